"""What adversarial perturbations do to interactions, and what robust networks do with them.

The survey's Sec. 5.2 (Figs. 7 and 8), on networks trained normally, on adversarial images and with
Cutout: (a) which orders an attack changes; (b) D(m) of normally and adversarially trained networks;
(c) whether Cutout removes high orders; (d) how much of a perturbation is undone by minimising the
loss; (e) how well single statistics tell adversarial from clean images: high-order interactions,
the rank-based (SVD) one and one in the style of ML-LOO.

Interactions I(m) are exact, over all coalitions of a small grid, for the log-odds of the true
class. Low, middle and high orders are thirds of 0 … n−2. An attack's effect on the log-odds splits
exactly into the main effects and (n−1−m) times the mean pair of every order m (Eq. 12).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import common
import numpy as np
import torch
from common import Check, Mean, Part, Study, Summary, columns, logits, paired
from matplotlib.figure import Figure
from scipy.stats import bootstrap, rankdata, spearmanr
from torch import Tensor, nn

import interaction_train as it
from interaction_train.attacks.run import craft
from interaction_train.callbacks.samples import spread
from interaction_train.data import Cutout
from interaction_train.indices.readings import plug_in
from interaction_train.metrics.rows import column, exact_rows
from interaction_train.tracking.figures import new_panels
from interaction_train.tracking.style import INK, styled

LOW, HIGH = (0.05, 0.1, 0.2, 0.3), (0.7, 0.8, 0.9, 0.95)  # orders of D, where it is not 1 by itself
RATIOS = (*LOW, 0.5, *HIGH)
THIRDS = ("low", "middle", "high")
HIGH_ORDER = "high-order interactions"
LOW_ORDER, LOO, SVD = "low-order interactions", "ML-LOO style", "SVD, high ranks"
STATISTICS = (HIGH_ORDER, LOW_ORDER, LOO, SVD, "confidence")
READINGS = ("plug-in", "split-sign")
BY_ORDER = ("|I|", "J", "|I| of the change", "change / |I|", "part of the fall")
EASIER = "adversarial images are easier to recover after adversarial training"
CLAIMS: tuple[tuple[str, Literal[-1, 1], str, str], ...] = (  # sign, training, measure
    ("attacks change more of high orders than of low ones", 1, "normal", "change / |I| high"),
    ("adversarial training raises low-order D, plug-in", 1, "adversarial", "D low, plug-in"),
    ("adversarial training raises low-order D, split-sign", 1, "adversarial", "D low, split-sign"),
    ("adversarial training keeps high orders under attack", -1, "adversarial", "change / |I| high"),
    (EASIER, 1, "adversarial", "perturbation undone"),
    ("Cutout takes high orders out of J", -1, "cutout", "J high"),
)
RESAMPLED = 500
NAMES = {"normal": "normal", "adversarial": "adversarially trained", "cutout": "Cutout"}


def trained(
    study: Study, source: str, training: str, seed: int, epochs: int, eps: float
) -> nn.Module:
    """A network trained normally, on adversarial images or with Cutout."""
    digits = source == "digits"
    if digits and study.scale == "smoke":
        return it.pretrained(it.models.DigitsNet(), "digits_cnn").eval()
    if not digits and study.scale != "full":
        weights = study.file("cifar_resnet20.safetensors")
        return it.models.CIFARThinResNet(20, weights=weights).eval()
    hardening = partial(it.TransferAttack, eps=eps, alpha=eps / 4, steps=7, random_start=True)
    hardener = [it.callbacks.AdversarialTraining(hardening, warmup_epochs=2)]
    cutout = Cutout(4 if digits else 16) if training == "cutout" else None
    options: dict[str, Any] = {"epochs": epochs}
    options["callbacks"] = hardener if training == "adversarial" else []
    data = common.splits(source, seed, cutout=cutout)
    build, lr = (it.models.DigitsNet, 0.05) if digits else (it.models.CIFARResNet, 0.1)
    return common.fit(build, data, seed=seed, lr=lr, **options)


def work(study: Study, data: str, training: str, seed: int, **size: Any) -> Summary:
    """Train or load one network and measure all of it; ``size`` as in ``settings.yaml``."""
    source, eps = study.source(data), size["eps"]
    network = trained(study, source, training, seed, size["epochs"], eps)
    x, y = common.right_images([network], source, "test", size["detected"])
    pgd = it.TransferAttack(network, eps, eps / 4, size["steps"])
    bad = craft(pgd, x, y)
    some = spread(range(len(x)), size["exact"])
    summary: Summary = {
        "accuracy": common.accuracy(network, *common.images(source, "test")),
        "fooled": 1 - common.accuracy(network, bad, y),
        "undone": undone(pgd, x, bad, y).tolist(),
        **detection(network, x, bad, it.GridPlayers(4, 4)),
        **orders(network, x[some], bad[some], y[some], it.GridPlayers(*size["grid"])),
    }
    if size["sampled"]:
        grid, pairs = it.GridPlayers(8, 8), it.RandomPairs(1, 12)
        metric = it.Disentanglement(grid, ratios=RATIOS, pairs=pairs, contexts=size["contexts"])
        some = spread(range(len(x)), size["sampled"])
        metric.update(network, x[some], y[some])
        found = metric.compute()
        summary["D"] = {key: found[f"D_{key}"].tolist() for key in ("plug_in", "split_sign")}
    return summary


def orders(network: nn.Module, x: Tensor, bad: Tensor, y: Tensor, grid: it.GridPlayers) -> Summary:
    """Exact interactions of clean and adversarial images, per image and order.

    ``strength`` E|I(m)| clean, ``change`` E|I(m) adversarial − clean| over pairs, and ``utility``,
    what each order adds to the fall of the log-odds, the main effects first.
    """
    clean_value, clean = common.exact_orders(network, x, y, grid)
    bad_value, changed = common.exact_orders(network, bad, y, grid)
    fall = clean_value - bad_value
    before, change = (exact_rows(found, fall) for found in (clean, clean - changed))
    weight = torch.arange(clean.shape[1], 0, -1)  # n − 1 − m
    utility = weight * column(change, "signed")
    return {
        "strength": column(before, "plug_in").tolist(),
        "change": column(change, "plug_in").tolist(),
        "utility": torch.cat([(fall - utility.sum(1))[:, None], utility], 1).tolist(),
    }


def undone(pgd: it.TransferAttack, x: Tensor, bad: Tensor, y: Tensor) -> Tensor:
    """The share of each perturbation (L2) that the same steps towards the label take back."""
    back = it.TransferAttack(pgd.model, pgd.eps, pgd.alpha, pgd.steps)
    back.set_mode_targeted_by_label(quiet=True)
    restored = back(bad, y)  # towards the label: no attack in the sense of `craft`
    distance, size = ((images - x).flatten(1).norm(dim=1) for images in (restored, bad))
    return 1 - distance / size.clamp(min=1e-9)


def detection(network: nn.Module, x: Tensor, bad: Tensor, grid: it.GridPlayers) -> Summary:
    """What each statistic says of clean and of adversarial images, and how well it tells them."""
    clean, attacked = (statistics(network, images, grid) for images in (x, bad))
    related = spearmanr(*(torch.cat([clean[name], attacked[name]]) for name in (HIGH_ORDER, LOO)))
    return {
        "scores": {name: [clean[name].tolist(), attacked[name].tolist()] for name in STATISTICS},
        "auroc": {name: auroc(clean[name], attacked[name]) for name in STATISTICS},
        "related": float(related.statistic),
    }


def auroc(clean: Any, attacked: Any) -> float:
    """The probability that an adversarial image scores higher than a clean one."""
    ranks = rankdata(np.concatenate([clean, attacked]))[len(clean) :]
    return float((ranks.mean() - (len(attacked) + 1) / 2) / len(clean))


def statistics(network: nn.Module, x: Tensor, grid: it.GridPlayers) -> dict[str, Tensor]:
    """The statistics ``(B,)``; interactions and attributions are about the predicted class."""
    seen = logits(network, x).argmax(1)
    baseline = it.input_baseline(network, None, x)
    game = it.MaskedGame(network, x, baseline, grid, "log_odds", seen)
    ends = it.sample_multi_order(game, it.AllPairs(), 2, ratios=[0, 1])  # one context each: exact
    low, high = ends.over_pairs(plug_in(ends)).unbind(1)
    leave_out = torch.cat([torch.ones(1, game.n), 1 - torch.eye(game.n)]).bool()
    v = game(leave_out).double()
    energy = torch.linalg.svdvals(x.double()).square()
    tail = energy[..., energy.shape[-1] // 2 :].sum(-1) / energy.sum(-1)
    return {
        HIGH_ORDER: high,
        LOW_ORDER: low,
        LOO: (v[:, :1] - v[:, 1:]).std(1),
        SVD: tail.mean(1),
        "confidence": v[:, 0],
    }


class Findings:
    """Summaries of ``training/seed_s`` as measures per seed, or per image of a single run."""

    def __init__(self, found: Mapping[str, Summary]) -> None:
        self.runs: defaultdict[str, list[Summary]] = defaultdict(list)
        for name, summary in found.items():
            self.runs[name.split("/")[0]].append(summary)
        self.measures: defaultdict[str, dict[str, list[float]]] = defaultdict(dict)
        for training, runs in self.runs.items():
            seen = [measures(run) for run in runs]
            self.measures[training] = {k: common.units([one[k] for one in seen]) for k in seen[0]}

    def told_better(self, first: str, second: str) -> Mean:
        """The difference of two AUROCs: Student's interval over seeds, or bootstrap's over images.

        Of a single run the directions are those of all images, and a clean image stays with its
        adversarial version.
        """
        run, *more = self.runs["normal"]
        if more:
            return paired(*(self.measures["normal"][f"told {name}"] for name in (first, second)))
        signs = [1 if run["auroc"][name] >= 0.5 else -1 for name in (first, second)]
        scores = [
            sign * np.array(part)
            for sign, name in zip(signs, (first, second), strict=True)
            for part in run["scores"][name]
        ]

        def gap(*scores: np.ndarray) -> float:
            return auroc(*scores[:2]) - auroc(*scores[2:])

        again = bootstrap(
            scores, gap, n_resamples=RESAMPLED, vectorized=False, paired=True,
            method="percentile", random_state=np.random.default_rng(0),
        )  # fmt: skip
        return Mean(gap(*scores), again.standard_error, *again.confidence_interval)


def measures(run: Summary) -> dict[str, Any]:
    """What is shown of a run: name → a number, or one per image; by thirds of the orders."""
    strength, change, utility = (np.array(run[k]) for k in ("strength", "change", "utility"))
    fall = utility.mean(0)  # the main effects first
    found: dict[str, Any] = {
        "accuracy": run["accuracy"],
        "under PGD": run["accuracy"] * (1 - run["fooled"]),
        "perturbation undone": np.array(run["undone"]),
        "related": run["related"],
    }
    for place, third in enumerate(THIRDS):
        count = strength.shape[1]
        inside = np.minimum((np.arange(count) / max(1, count - 1) * 3).astype(int), 2) == place
        changed = change[:, inside].mean(1)
        found |= {
            f"|I| {third}": strength[:, inside].mean(1),
            f"J {third}": strength[:, inside].mean() / strength.mean(),
            f"|I| of the change {third}": changed,
            f"change / |I| {third}": changed / strength[:, inside].mean(),
            f"part of the fall {third}": fall[1:][inside].sum() / fall.sum(),
        }
    for reading, values in run.get("D", {}).items():
        for name, which in (("low", LOW), ("high", HIGH)):
            places = [RATIOS.index(ratio) for ratio in which]
            found[f"D {name}, {reading.replace('_', '-')}"] = np.array(values)[places].mean()
    for name, area in run["auroc"].items():  # told: in the better direction
        found |= {f"AUROC {name}": area, f"told {name}": max(area, 1 - area)}
    return found


def tables(found: Findings) -> dict[str, list[dict[str, Any]]]:
    """The tables; of a statistic below .5 adversarial images score lower."""
    networks, by_order = [], []
    for training, seen in found.measures.items():
        names = ["accuracy", "under PGD", "perturbation undone"]
        names += [f"D {name}, {reading}" for name in ("low", "high") for reading in READINGS]
        shown = columns({name: seen[name] for name in names if name in seen})
        networks.append({"network": NAMES[training], **shown})
        for third in THIRDS:
            shown = columns({name: seen[f"{name} {third}"] for name in BY_ORDER})
            by_order.append({"network": NAMES[training], "orders": third, **shown})
    detected = [
        {"statistic": name}
        | columns({f"AUROC, {NAMES[t]}": found.measures[t][f"AUROC {name}"] for t in found.runs})
        for name in STATISTICS
    ]
    return {"": networks, "orders": by_order, "detection": detected}


def judge(part: Part, found: Findings) -> None:
    """The verdict, claim by claim."""
    checks = []
    for says, sign, training, measure in CLAIMS:
        if training in found.runs:
            other = "change / |I| low" if training == "normal" else measure
            first, second = found.measures[training][measure], found.measures["normal"][other]
            gap = paired(first, second)
            numbers = f"{np.mean(first):.3g} against {np.mean(second):.3g}, difference {gap}"
            checks.append(Check(says, gap.clearly(sign), numbers))
    told = [np.mean(found.measures["normal"][f"told {name}"]) for name in (HIGH_ORDER, SVD)]
    better = found.told_better(HIGH_ORDER, SVD)
    related = Mean.of(found.measures["normal"]["related"])
    says = "high orders tell adversarial images better than the SVD"
    numbers = f"AUROC {told[0]:.2f} against {told[1]:.2f}, difference {better}"
    checks.append(Check(says, better.clearly(1), numbers))
    says, numbers = "ML-LOO's statistic goes with high orders", f"rank correlation {related}"
    checks.append(Check(says, related.clearly(1), numbers))
    left = {training for _, _, training, _ in CLAIMS} - found.runs.keys()
    part.verdict(checks, "adversarial training and Cutout at full scale only" if left else "")


@styled()
def curves(data: str, found: Findings) -> Figure:
    """The change by order, J and D by order, and the AUROCs."""
    disentangled = all("D" in run for runs in found.runs.values() for run in runs)
    rows = 2 if disentangled else 1
    figure, grid = new_panels(rows, 2, 7, 2.9 * rows)
    panels = grid.flatten()
    last, width = panels[-1], 0.8 / len(found.runs)
    for k, (training, runs) in enumerate(found.runs.items()):
        strength, change = (
            np.array([np.mean(run[key], 0) for run in runs]) for key in ("strength", "change")
        )
        ratio = np.arange(strength.shape[1]) / (strength.shape[1] - 1)
        drawn = [(ratio, change / strength)]
        if disentangled:
            drawn.append((ratio, strength / strength.mean(1, keepdims=True)))
            drawn.append((np.array(RATIOS), np.array([run["D"]["plug_in"] for run in runs])))
        for axes, (x, values) in zip(panels, drawn, strict=False):
            common.curve(axes, x, [Mean.of(v) for v in values.T], label=NAMES[training])
        means = [Mean.of(found.measures[training][f"AUROC {name}"]) for name in STATISTICS]
        heights, errors = ([m.value - 0.5 for m in means], np.nan_to_num([m.stderr for m in means]))
        places = np.arange(len(STATISTICS)) + (k - (len(found.runs) - 1) / 2) * width
        last.barh(places, heights, width, xerr=errors, left=0.5, ecolor=INK)
    titles = ("What PGD changes", "Strength, clean images", "Disentanglement")
    labels = ("change of I / |I|", "J(m)", "D(m), plug-in")
    for axes, title, label in zip(panels[:-1], titles, labels, strict=False):
        axes.set(ylabel=label, title=title, xlabel="order m/(n−2)")
    last.set_yticks(range(len(STATISTICS)), [s.replace(" inter", "\ninter") for s in STATISTICS])
    last.axvline(0.5, color=INK, linewidth=0.8)
    last.set(xlabel="AUROC", title="Telling adversarial images", xlim=(0, 1))
    last.invert_yaxis()
    panels[0].set_ylim(bottom=0)
    last.grid(visible=False, axis="y")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.suptitle(f"Networks on {data} (bars: one standard error)")
    return figure


def main() -> None:
    """Run, write tables and the figure, and judge."""
    study = Study.from_command_line(__file__, __doc__)
    for part in study.parts():
        with part:
            trainings = part.settings.pop("trainings")
            plan = {
                f"{training}/seed_{seed}": {"data": part.data, "training": training, "seed": seed}
                | part.settings
                for training in trainings
                for seed in part.seeds
            }
            found = Findings(part.runs(plan, partial(work, study)))
            for name, rows in tables(found).items():
                part.table(rows, name)
            part.figure(curves(part.data, found))
            judge(part, found)


if __name__ == "__main__":
    main()
