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

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, Literal

import numpy as np
import torch
from common import (
    Check,
    Mean,
    Part,
    Study,
    Summary,
    accuracy,
    fit,
    logits,
    paired,
    spread,
    tensors,
)
from matplotlib.figure import Figure
from scipy.stats import rankdata, spearmanr
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_auroc

from interaction_train.attacks import TransferAttack
from interaction_train.attacks.run import craft
from interaction_train.callbacks import AdversarialTraining
from interaction_train.data.module import Cutout, DigitsDataModule, ImageDataModule
from interaction_train.game.absence import input_baseline
from interaction_train.game.masked import MaskedGame
from interaction_train.game.players import GridPlayers
from interaction_train.indices import sample_multi_order
from interaction_train.indices.exact import exact_values, multi_order_interactions
from interaction_train.indices.readings import plug_in
from interaction_train.metrics import Disentanglement
from interaction_train.models import CIFARResNet, CIFARThinResNet, DigitsNet, pretrained
from interaction_train.sampling.pairs import AllPairs, RandomPairs

LOW, HIGH = (0.05, 0.1, 0.2, 0.3), (0.7, 0.8, 0.9, 0.95)  # orders of D, where it is not 1 by itself
THIRDS = ("low", "middle", "high")
HIGH_ORDER = "high-order interactions"
LOW_ORDER, LOO, SVD = "low-order interactions", "ML-LOO style", "SVD, high ranks"
STATISTICS = (HIGH_ORDER, LOW_ORDER, LOO, SVD, "confidence")
RESAMPLED = 500
NAMES = {"normal": "normal", "adversarial": "adversarially trained", "cutout": "Cutout"}


def attack(network: nn.Module, eps: float, alpha: float, steps: int, start: bool = False) -> Any:
    """PGD."""
    return TransferAttack(network, eps, alpha, steps, random_start=start)


def trained(
    study: Study, data: str, training: str, seed: int, epochs: int, eps: float
) -> nn.Module:
    """A network trained normally, on adversarial images or with Cutout."""
    if data == "digits" and study.scale == "smoke":
        return pretrained(DigitsNet(), "digits_cnn").eval()
    if data == "cifar10" and study.scale != "full":
        return CIFARThinResNet(20, weights=study.file("cifar_resnet20.safetensors")).eval()
    hardening = partial(attack, eps=eps, alpha=eps / 4, steps=7, start=True)
    callbacks = [AdversarialTraining(hardening, warmup_epochs=2)]
    return fit(
        DigitsNet if data == "digits" else CIFARResNet,
        _data(study, data, seed, Cutout(4 if data == "digits" else 16), training == "cutout"),
        seed=seed,
        epochs=epochs,
        lr=0.05 if data == "digits" else 0.1,
        callbacks=callbacks if training == "adversarial" else (),
    )


def _data(study: Study, data: str, seed: int, cutout: Cutout, covered: bool) -> Any:
    more: dict[str, Any] = {"seed": seed, "cutout": cutout if covered else None}
    return DigitsDataModule(**more) if data == "digits" else ImageDataModule(study.cifar10, **more)


@cache
def plain(source: str) -> Any:
    """The images as they are, read once."""
    return DigitsDataModule() if source == "digits" else ImageDataModule(source, augment=False)


def work(
    study: Study,
    data: str,
    training: str,
    seed: int,
    epochs: int,
    eps: float,
    steps: int,
    grid: Sequence[int],
    exact: int,
    sampled: int,
    contexts: int,
    detected: int,
) -> Summary:
    """Train or load one network and measure all of it."""
    network = trained(study, data, training, seed, epochs, eps)
    source = plain("digits" if data == "digits" else study.cifar10)
    x, y = tensors(source, "test")
    right = logits(network, x).argmax(1) == y
    x, y = x[right], y[right]
    places = spread(detected, len(x))
    x, y = x[places], y[places]
    pgd = attack(network, eps, eps / 4, steps)
    bad = craft(pgd, x, y)
    summary: Summary = {
        "accuracy": accuracy(network, source, "test"),
        "fooled": float((logits(network, bad).argmax(1) != y).double().mean()),
        "undone": undone(pgd, x, bad, y).tolist(),
        **detection(network, x, bad, GridPlayers(4, 4)),
    }
    some = spread(exact, len(x))
    summary |= orders(network, x[some], bad[some], y[some], GridPlayers(*grid))
    if sampled:
        metric = Disentanglement(
            GridPlayers(8, 8), ratios=(*LOW, 0.5, *HIGH), pairs=RandomPairs(1, 12),
            contexts=contexts,
        )  # fmt: skip
        some = spread(sampled, len(x))
        metric.update(network, x[some], y[some])
        found = metric.compute()
        summary["D"] = {key: found[f"D_{key}"].tolist() for key in ("plug_in", "split_sign")}
    return summary


def orders(network: nn.Module, x: Tensor, bad: Tensor, y: Tensor, grid: GridPlayers) -> Summary:
    """Exact interactions of clean and adversarial images, per image and order.

    Returns:
        ``strength`` E|I(m)| clean, ``change`` E|I(m) adversarial − clean| over pairs, and
        ``utility``, what each order adds to the fall of the log-odds, the main effects first.
    """
    n = grid.count(x.shape[1:])
    upper = torch.triu_indices(n, n, 1)
    both = []
    for images in (x, bad):
        game = MaskedGame(
            network, images, input_baseline(network, None, images), grid, "log_odds", y
        )
        v = exact_values(game).double()
        both.append((v[:, -1], multi_order_interactions(v)[:, :, upper[0], upper[1]]))
    (clean_value, clean), (bad_value, changed) = both
    weight = n - 1 - torch.arange(n - 1)
    utility = weight * (clean - changed).mean(-1)
    main = clean_value - bad_value - utility.sum(1)
    return {
        "strength": clean.abs().mean(-1).tolist(),
        "change": (changed - clean).abs().mean(-1).tolist(),
        "utility": torch.cat([main[:, None], utility], 1).tolist(),
    }


def undone(pgd: TransferAttack, x: Tensor, bad: Tensor, y: Tensor) -> Tensor:
    """The share of each perturbation (L2) that the same steps towards the label take back."""
    back = attack(pgd.model, pgd.eps, pgd.alpha, pgd.steps)
    back.set_mode_targeted_by_label(quiet=True)
    restored = craft(back, bad, y)
    distance, size = ((images - x).flatten(1).norm(dim=1) for images in (restored, bad))
    return 1 - distance / size.clamp(min=1e-9)


def detection(network: nn.Module, x: Tensor, bad: Tensor, grid: GridPlayers) -> Summary:
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
    scores = np.concatenate([clean, attacked])
    # As ranks in [0, 1], since torchmetrics takes other numbers for logits.
    ranks = torch.from_numpy(rankdata(scores)) / len(scores)
    target = torch.tensor([0] * len(clean) + [1] * len(attacked))
    return float(binary_auroc(ranks, target))


def statistics(network: nn.Module, x: Tensor, grid: GridPlayers) -> dict[str, Tensor]:
    """The statistics ``(B,)``; interactions and attributions are about the predicted class."""
    seen = logits(network, x).argmax(1)
    game = MaskedGame(network, x, input_baseline(network, None, x), grid, "log_odds", seen)
    ends = sample_multi_order(game, AllPairs(), 2, ratios=[0, 1])  # one context each: exact
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
    """The runs of a part: training → one summary per seed.

    Args:
        found: ``training/seed_s`` → summary.
    """

    def __init__(self, found: Mapping[str, Summary]) -> None:
        self.runs: dict[str, list[Summary]] = {}
        for name, summary in found.items():
            self.runs.setdefault(name.split("/")[0], []).append(summary)

    def seeds(self, training: str, read: Callable[[Summary], float]) -> list[float]:
        """One number per seed."""
        return [read(run) for run in self.runs[training]]

    def third(self, training: str, key: str, third: str, by: str | None = None) -> list[float]:
        """A quantity of the orders of a third, per seed, or per image of a single run.

        Args:
            training: which networks.
            key: of the summary, ``(images, orders)``.
            third: of the orders.
            by: a quantity to divide by, meaned over the run's images.
        """
        units = []
        for run in self.runs[training]:
            values = np.array(run[key])
            inside = of_third(values.shape[1], third)
            values = values[:, inside].mean(1)
            if by is not None:
                values = values / np.array(run[by])[:, inside].mean()
            units.append(values)
        return units[0].tolist() if len(units) == 1 else [float(v.mean()) for v in units]

    def relative(self, training: str, third: str) -> list[float]:
        """How much of an interaction's size the attack changes."""
        return self.third(training, "change", third, by="strength")

    def share(self, training: str, third: str) -> list[float]:
        """What part of J's orders' strength a third's orders have, in their mean: J(m)."""
        return self.seeds(
            training,
            lambda run: float(
                np.array(run["strength"])[:, of_third(len(run["strength"][0]), third)].mean()
                / np.array(run["strength"]).mean()
            ),
        )

    def part_of_fall(self, training: str, third: str) -> list[float]:
        """The part of the log-odds' fall that is due to a third's orders, or to ``"main"``."""

        def read(run: Summary) -> float:
            values = np.array(run["utility"]).mean(0)
            whole = values.sum()
            if third == "main":
                return float(values[0] / whole)
            return float(values[1:][of_third(len(values) - 1, third)].sum() / whole)

        return self.seeds(training, read)

    def disentanglement(self, training: str, which: Sequence[float], reading: str) -> list[float]:
        """D meaned over orders."""
        ratios = (*LOW, 0.5, *HIGH)
        places = [ratios.index(ratio) for ratio in which]
        return self.seeds(training, lambda run: float(np.array(run["D"][reading])[places].mean()))

    def told(self, training: str, statistic: str) -> list[float]:
        """AUROC in the better direction."""
        return self.seeds(
            training, lambda run: max(run["auroc"][statistic], 1 - run["auroc"][statistic])
        )

    def told_better(self, training: str, first: str, second: str) -> Mean:
        """The difference of two AUROCs: Student's interval over seeds, or bootstrap's over images.

        Of a single run the directions are those of all images, and a clean image stays with its
        adversarial version.
        """
        runs = self.runs[training]
        if len(runs) > 1:
            return paired(self.told(training, first), self.told(training, second))
        scores = {name: np.array(runs[0]["scores"][name]) for name in (first, second)}
        sign = {name: 1 if runs[0]["auroc"][name] >= 0.5 else -1 for name in scores}
        count = scores[first].shape[1]
        generator = np.random.default_rng(0)

        def gap(places: np.ndarray) -> float:
            told = [auroc(*(sign[name] * scores[name][:, places])) for name in (first, second)]
            return told[0] - told[1]

        again = [gap(generator.integers(0, count, size=(count,))) for _ in range(RESAMPLED)]
        low, high = (float(v) for v in np.percentile(again, [2.5, 97.5]))
        return Mean(gap(np.arange(count)), float(np.std(again)), low, high)

    def area(self, training: str, statistic: str) -> list[float]:
        """A statistic's AUROC, per seed."""
        return self.seeds(training, lambda run: run["auroc"][statistic])

    def undone(self, training: str) -> list[float]:
        """The share of perturbations that is undone, per seed, or per image of a single run."""
        units = [np.array(run["undone"]) for run in self.runs[training]]
        return units[0].tolist() if len(units) == 1 else [float(v.mean()) for v in units]


def of_third(count: int, third: str) -> np.ndarray:
    """Which of the orders 0 … count − 1 belong to a third of them."""
    place = THIRDS.index(third)
    ratio = np.arange(count) / max(1, count - 1)
    return np.minimum((ratio * 3).astype(int), 2) == place


def network_rows(found: Findings) -> list[dict[str, Any]]:
    """The table of networks."""
    rows = []
    for training, runs in found.runs.items():
        robust = [run["accuracy"] * (1 - run["fooled"]) for run in runs]
        row: dict[str, Any] = {
            "network": NAMES[training],
            **Mean.of(run["accuracy"] for run in runs).columns("accuracy"),
            **Mean.of(robust).columns("under PGD"),
            **Mean.of(found.undone(training)).columns("perturbation undone"),
        }
        if "D" in runs[0]:
            for name, which in (("low", LOW), ("high", HIGH)):
                for reading in ("plug_in", "split_sign"):
                    values = found.disentanglement(training, which, reading)
                    row |= Mean.of(values).columns(f"D {name}, {reading.replace('_', '-')}")
        rows.append(row)
    return rows


def order_rows(found: Findings) -> list[dict[str, Any]]:
    """The table of orders."""
    return [
        {
            "network": NAMES[training],
            "orders": third,
            **Mean.of(found.third(training, "strength", third)).columns("|I|"),
            **Mean.of(found.share(training, third)).columns("J"),
            **Mean.of(found.third(training, "change", third)).columns("|I| of the change"),
            **Mean.of(found.relative(training, third)).columns("change / |I|"),
            **Mean.of(found.part_of_fall(training, third)).columns("part of the fall"),
        }
        for training in found.runs
        for third in THIRDS
    ]


def detection_rows(found: Findings) -> list[dict[str, Any]]:
    """The table of statistics; below .5 adversarial images score lower."""
    return [
        {
            "statistic": name,
            **{
                column: value
                for training in found.runs
                for column, value in Mean.of(found.area(training, name))
                .columns(f"AUROC, {NAMES[training]}")
                .items()
            },
        }
        for name in STATISTICS
    ]


def judge(part: Part, found: Findings) -> None:
    """The verdict, claim by claim."""

    def check(
        says: str,
        sign: Literal[-1, 1],
        read: Callable[[str], Sequence[float]],
        one: str,
        other: str,
    ) -> Check:
        first, second = read(one), read(other)
        gap = paired(first, second)
        numbers = f"{np.mean(first):.3g} against {np.mean(second):.3g}, difference {gap}"
        return Check(says, gap.clearly(sign), numbers)

    changes = partial(found.relative, "normal")
    checks = [
        check("attacks change more of high orders than of low ones", 1, changes, "high", "low")
    ]
    hardened = "adversarial" in found.runs
    if hardened:
        both = "adversarial", "normal"
        for reading, name in (("plug_in", "plug-in"), ("split_sign", "split-sign")):
            low = partial(found.disentanglement, which=LOW, reading=reading)
            checks.append(check(f"adversarial training raises low-order D, {name}", 1, low, *both))
        high = partial(found.relative, third="high")
        share = partial(found.share, third="high")
        checks += [
            check("adversarial training keeps high orders under attack", -1, high, *both),
            check(
                "adversarial images are easier to recover after adversarial training",
                1,
                found.undone,
                *both,
            ),
            check("Cutout takes high orders out of J", -1, share, "cutout", "normal"),
        ]
    told = [np.mean(found.told("normal", name)) for name in (HIGH_ORDER, SVD)]
    better = found.told_better("normal", HIGH_ORDER, SVD)
    related = Mean.of(found.seeds("normal", lambda run: run["related"]))
    checks += [
        Check(
            "high orders tell adversarial images better than the SVD",
            better.clearly(1),
            f"AUROC {told[0]:.2f} against {told[1]:.2f}, difference {better}",
        ),
        Check(
            "ML-LOO's statistic goes with high orders",
            related.clearly(1),
            f"rank correlation {related}",
        ),
    ]
    part.verdict(checks, "" if hardened else "adversarial training and Cutout at full scale only")


def curves(found: Findings) -> Figure:
    """The change by order, J and D by order, and the AUROCs."""
    disentangled = all("D" in run for runs in found.runs.values() for run in runs)
    count = 4 if disentangled else 2
    figure = Figure(figsize=(6.4, 5.2 if count == 4 else 2.8), layout="constrained")
    panels = figure.subplots(count // 2, 2).flatten()
    for training, runs in found.runs.items():
        strength, change = (
            np.array([np.mean(run[key], 0) for run in runs]) for key in ("strength", "change")
        )
        ratio = np.arange(strength.shape[1]) / (strength.shape[1] - 1)
        _band(panels[0], ratio, change / strength, NAMES[training])
        if disentangled:
            _band(panels[1], ratio, strength / strength.mean(1, keepdims=True), NAMES[training])
            values = np.array([run["D"]["plug_in"] for run in runs])
            _band(panels[2], np.array([*LOW, 0.5, *HIGH]), values, NAMES[training])
    panels[0].set(ylabel="change of I / |I|", title="what PGD changes", xlabel="m/(n−2)")
    if disentangled:
        panels[1].set(ylabel="J(m)", title="strength, clean images", xlabel="m/(n−2)")
        panels[2].set(ylabel="D(m), plug-in", title="disentanglement", xlabel="m/(n−2)")
    last = panels[-1]
    for k, training in enumerate(found.runs):
        means = [Mean.of(found.area(training, name)) for name in STATISTICS]
        heights = [mean.value - 0.5 for mean in means]
        width = 0.8 / len(found.runs)
        places = np.arange(len(STATISTICS)) + (k - (len(found.runs) - 1) / 2) * width
        errors = [0.0 if np.isnan(mean.stderr) else mean.stderr for mean in means]
        last.barh(places, heights, width, xerr=errors, left=0.5, label=NAMES[training])
    last.set_yticks(
        range(len(STATISTICS)), [name.replace(" inter", "\ninter") for name in STATISTICS]
    )
    last.axvline(0.5, color="black", linewidth=0.8)
    last.set(xlabel="AUROC", title="telling adversarial images", xlim=(0, 1))
    last.invert_yaxis()
    panels[0].set_ylim(bottom=0)
    panels[0].legend(fontsize=8)
    return figure


def _band(axes: Any, x: np.ndarray, values: np.ndarray, label: str) -> None:
    mean = values.mean(0)
    line = axes.plot(x, mean, marker="o", markersize=3, label=label)[0]
    if len(values) > 1:
        error = values.std(0, ddof=1) / len(values) ** 0.5
        axes.fill_between(x, mean - error, mean + error, color=line.get_color(), alpha=0.2)


def main() -> None:
    """Run, write tables and the figure, and judge."""
    study = Study.from_command_line(__file__, __doc__)
    settings: dict[Any, dict[str, Any]] = {
        "digits": {
            "epochs": study.pick(0, 20, 30),
            "eps": 0.1,
            "steps": study.pick(2, 20, 20),
            "grid": study.pick([2, 2], [3, 4], [4, 4]),
            "exact": study.pick(2, 32, 32),
            "sampled": study.pick(2, 24, 64),
            "contexts": study.pick(2, 16, 100),
            "detected": study.pick(8, 128, 300),
        },
        "cifar10": {
            "epochs": study.pick(0, 0, 100),
            "eps": 8 / 255,
            "steps": study.pick(1, 10, 20),
            "grid": study.pick([2, 2], [3, 4], [4, 4]),
            "exact": study.pick(2, 12, 32),
            "sampled": study.pick(0, 0, 64),
            "contexts": study.pick(2, 2, 100),
            "detected": study.pick(4, 48, 1000),
        },
    }
    seeds = study.pick((0,), (0, 1, 2), (0, 1, 2))
    for data, size in settings.items():
        if not study.wants(data):
            continue
        everything = data == "digits" or study.scale == "full"
        trainings = list(NAMES) if everything else ["normal"]
        with study.part(data, seeds if everything else (0,)) as part:
            plan = {
                f"{training}/seed_{seed}": {
                    "data": data,
                    "training": training,
                    "seed": seed,
                    **size,
                }
                for training in trainings
                for seed in part.seeds
            }
            found = Findings(part.runs(plan, partial(work, study), "networks"))
            part.table(network_rows(found))
            part.table(order_rows(found), "orders")
            part.table(detection_rows(found), "detection")
            part.figure(curves(found))
            judge(part, found)


if __name__ == "__main__":
    main()
