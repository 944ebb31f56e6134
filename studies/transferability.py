"""Do perturbations whose units interact less transfer better, and does it pay to make them so?

The survey's Sec. 5.1 (Table 2, Fig. 6): (a) interaction reduction against PGD, and, at equal passes
through the source, against more steps, averaged gradients and its own masked ablation; (b) the
correlation of interaction and transfer, over attacks and over the images of an attack; (c) whether
MI, VR, SGM, DI and TI lower the interaction; (d) all of them together, with and without IR.

Measured are images that all networks classify correctly. Two of each method's settings, with the
cross entropy and with the margin, are tried on validation images, and the one whose perturbations
are worth most at the targets goes on to the test images; methods without such a choice run as
published. Interactions are those inside δ at the source, the players the cells of an 8 × 8 grid.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, Literal, get_args

import common
import numpy as np
import pandas as pd
import torch
from common import Check, Mean, Part, Study, Summary, columns, logits, paired
from matplotlib.figure import Figure
from scipy.stats import binomtest, rankdata
from torch import Tensor, nn

import interaction_train as it
from interaction_train.attacks.objectives import Loss
from interaction_train.attacks.run import counted_passes, craft
from interaction_train.game.payoffs import margin
from interaction_train.metrics.rows import column
from interaction_train.models import CIFARVGG, CIFARResNet, CIFARThinResNet
from interaction_train.tracking.figures import new_panels
from interaction_train.tracking.style import INK, styled

Factory = Callable[[nn.Module], it.TransferAttack]
Measure = Literal["interaction", "absolute", "gain", "transfer", "fooled"]

LOWERING = ("MI", "VR", "SGM", "DI", "TI")  # what the survey explains by fewer interactions
COSTLY = ("PGD, long", "MI, long", "VR, tuned", "VT", "masked", "IR")  # tuned, at equal passes
RESAMPLED = 1000
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Budget:
    """What every attack may do."""

    eps: float  # bound on a pixel
    alpha: float  # step size
    steps: int
    grid: int = 8  # cells along each side, for IR and its ablation
    draws: int = 8  # groups of cells per step
    size: int = 8  # cells in a group
    kernel: int = 3  # width of TI's kernel in pixels

    @property
    def rows(self) -> int:
        """Rows per image and step of IR."""
        return 2 * self.draws + 1

    def attack(self, loss: Loss = "cross_entropy", **more: Any) -> Factory:
        """The loop with this bound, ``more`` changing it."""
        settings = {"eps": self.eps, "alpha": self.alpha, "steps": self.steps}
        return partial(
            it.TransferAttack, **{**settings, "objective": it.attacks.Objective(loss), **more}
        )

    def reduction(self, kind: Callable[..., it.TransferAttack], **more: Any) -> Factory:
        """IR or its hybrid within the budget."""
        given = {key: value for key, value in vars(self).items() if key != "kernel"}
        momentum = {"decay": None} if kind is it.IRAttack else {}
        return partial(kind, **{"weight": 1.0, **given, **momentum, **more})

    def as_published(self) -> dict[str, Factory]:
        """Name → attack without a choice."""
        hybrid = {"samples": self.rows, "kernel_size": self.kernel}
        everything = [
            it.attacks.SkipGradient(),
            it.attacks.RandomNoise(1, "normal", 2 * self.rows),
            it.attacks.InputDiversity(),
            it.attacks.TranslationInvariance(self.kernel),
            it.attacks.Momentum(),
        ]
        return {
            "FGSM": self.attack(alpha=self.eps, steps=1),
            "PGD": self.attack(),
            "PGD, margin": self.attack("margin"),
            "MI": self.attack(parts=[it.attacks.Momentum()]),
            "VR": self.attack(parts=[it.attacks.RandomNoise(1, "normal", self.rows)]),
            "SGM": self.attack(parts=[it.attacks.SkipGradient()]),
            "DI": self.attack(parts=[it.attacks.InputDiversity()]),
            "TI": self.attack(parts=[it.attacks.TranslationInvariance(self.kernel)]),
            "IR, published": self.reduction(it.IRAttack, loss="cross_entropy"),
            "IR, margin": self.reduction(it.IRAttack, loss="margin"),
            "hybrid without IR": self.attack("margin", parts=everything),
            "HybridIR": self.reduction(it.HybridIRAttack, **hybrid),
        }

    def candidates(self) -> dict[str, dict[str, Factory]]:
        """Method → setting → attack: four settings each, all with the passes of IR."""
        found: dict[str, dict[str, Factory]] = {name: {} for name in COSTLY}
        grid = it.GridPlayers(self.grid, self.grid)
        values = ((1.0, 1, 0.5, 0.3), (0.25, 2, 1.5, 1.0))
        for loss, (part, times, beta, weight) in product(get_args(Loss), values):
            long: Any = {"steps": self.steps * self.rows, "alpha": part * self.alpha}
            averaged = it.attacks.RandomNoise(times, "normal", self.rows)
            masks = it.GroupReduction(grid, self.draws, times * self.size)
            momentum = [it.attacks.Momentum()]
            tuning = [it.attacks.VarianceTuning(self.rows - 1, beta), it.attacks.Momentum()]
            tried = {
                "PGD, long": (f"α × {part:g}", self.attack(loss, **long)),
                "MI, long": (
                    f"α × {part:g}",
                    self.attack(loss, **long, parts=momentum),
                ),
                "VR, tuned": (f"σ = {times} ε", self.attack(loss, parts=[averaged])),
                "VT": (f"β = {beta}", self.attack(loss, parts=tuning)),
                "masked": (
                    f"{times * self.size} cells",
                    self.attack(objective=it.attacks.MaskedObjective(loss, masks)),
                ),
                "IR": (f"λ = {weight}", self.reduction(it.IRAttack, weight=weight, loss=loss)),
            }
            for method, (setting, attack) in tried.items():
                found[method][f"{loss.replace('_', ' ')}, {setting}"] = attack
        return found


def networks(study: Study, source: str, seed: int, epochs: int) -> dict[str, nn.Module]:
    """The source first, then the targets."""
    digits = source == "digits"
    if not digits and study.scale != "full":
        files = {depth: study.file(f"cifar_resnet{depth}.safetensors") for depth in (20, 32)}
        return {f"resnet{d}": CIFARThinResNet(d, weights=file).eval() for d, file in files.items()}
    build: dict[str, Callable[..., nn.Module]] = {
        "resnet18": CIFARResNet,
        "resnet34": partial(CIFARResNet, 34),
        "vgg16": partial(CIFARVGG, 16),
        "alexnet": it.models.CIFARAlexNet,
    }
    if digits:
        build = {name: common.DIGITS[name] for name in ("resnet", "cnn", "mlp")}
    if study.scale == "smoke":
        return {k: it.pretrained(make(), f"digits_{k}").eval() for k, make in build.items()}
    found = {}
    for name, make in build.items():
        lr = 0.05 if digits else 0.1 if name.startswith("resnet") else 0.01
        data = common.splits(source, seed, augment=True)
        found[name] = common.fit(make, data, seed=seed, epochs=epochs, lr=lr)
    return found


def attacked(
    network: nn.Module, attacks: Mapping[str, Factory], x: Tensor, y: Tensor
) -> Iterator[tuple[str, Tensor, float]]:
    """Of every attack its name, the adversarial images, and the passes forward per image."""
    for name, factory in attacks.items():
        attack = factory(network.to(DEVICE))
        batches = zip(x.to(DEVICE).split(256), y.to(DEVICE).split(256), strict=True)
        with counted_passes(network) as passes:
            crafted = torch.cat([craft(attack, *batch).cpu() for batch in batches])
        network.cpu()
        yield name, crafted, passes["forwards"] / len(x)


def utility(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The best other logit less the label's, ``(B,)``: what an attack raises."""
    return -margin(logits(network, x), y)


def work(
    study: Study, data: str, seed: int, images: int, chosen_on: int, epochs: int,
    budget: Mapping[str, Any], contexts: int,
) -> Summary:  # fmt: skip
    """Train or load the networks, choose settings, attack, and measure; numbers per image."""
    origin, allowed = study.source(data), Budget(**budget)
    found = networks(study, origin, seed, epochs)
    first, *targets = found.values()
    attacks, settings = allowed.as_published(), defaultdict[str, str](str)
    if chosen_on:
        x, y = common.right_images(found.values(), origin, "val", chosen_on, 8 * chosen_on)
        for method, tried in allowed.candidates().items():
            gains = {
                setting: sum(float(utility(target, bad, y).mean()) for target in targets)
                for setting, bad, _ in attacked(first, tried, x, y)
            }
            settings[method] = max(gains, key=lambda setting: gains[setting])
            attacks[method] = tried[settings[method]]
    x, y = common.right_images(found.values(), origin, "test", images, 8 * images)
    clean = torch.stack([utility(target, x, y) for target in targets])
    summary: Summary = {}
    for name, bad, passes in attacked(first, attacks, x, y):
        metric = it.PerturbationInteraction(it.GridPlayers(8, 8), it.RandomPairs(1, 6), contexts)
        metric.update(first, x, bad, y)
        rows = torch.cat(metric.rows)
        worth = torch.stack([utility(target, bad, y) for target in targets])
        fooled = {k: 1 - common.accuracy(network, bad, y) for k, network in found.items()}
        summary[name] = {
            "setting": settings[name],
            "passes": passes,
            "white": fooled.pop(next(iter(found))),
            "black": fooled,
            "fooled": worth.gt(0).double().mean(0).tolist(),
            "transfer": (worth - clean).double().mean(0).tolist(),
            "interaction": column(rows, "signed")[:, 0].tolist(),
            "absolute": column(rows, "plug_in")[:, 0].tolist(),
            "gain": column(rows, "scale")[:, 0].tolist(),
        }
    return summary


@dataclass(frozen=True)
class Findings:
    """All runs of a part: attack → measure → ``(runs, images)``."""

    runs: Sequence[Summary]

    @property
    def attacks(self) -> list[str]:
        """Names of the attacks."""
        return list(self.runs[0])

    def table(self, attack: str, measure: Measure) -> np.ndarray:
        """One measure of one attack, ``(runs, images)``."""
        return np.array([run[attack][measure] for run in self.runs], dtype=float)

    def units(self, attack: str, measure: Measure) -> list[float]:
        """One measure of one attack, per run or per image of a single run."""
        return common.units(list(self.table(attack, measure)))

    def relative(self, attack: str) -> list[float]:
        """Units of the interaction divided by the attack's mean gain."""
        gain = self.table(attack, "gain").mean(1, keepdims=True)
        return common.units(list(self.table(attack, "interaction") / gain))

    def success(self, attack: str) -> Mean:
        """How often the targets are fooled: Student's interval over runs, or Wilson's."""
        mean, values = Mean.of(self.units(attack, "fooled")), self.table(attack, "fooled")
        if len(values) > 1:
            return mean
        targets = len(self.runs[0][attack]["black"])
        share = binomtest(round(float(values.sum()) * targets), values.size * targets)
        return Mean(mean.value, mean.stderr, *share.proportion_ci(method="wilson"))

    def less(self, first: str, second: str, measure: Measure = "fooled") -> Mean:
        """The paired difference of two attacks."""
        return paired(self.units(first, measure), self.units(second, measure))


def correlations(found: Findings) -> list[dict[str, Any]]:
    """Pearson's and Spearman's coefficients with bootstrap intervals, as rows of a table.

    Between attacks: of the attacks' means, attacks and images drawn again. Within attacks: over an
    attack's images, the mean over attacks, images drawn again. All are means over runs. For an
    image's interaction per gain, gains below a tenth of the median count as that.
    """
    measures: tuple[Measure, ...] = ("interaction", "absolute", "gain", "transfer")
    signed, absolute, gain, transfer = (
        np.stack([found.table(attack, measure) for attack in found.attacks], 1)
        for measure in measures
    )  # (runs, attacks, images)
    generator, sizes = np.random.default_rng(0), gain.shape[1:]
    draws: list[list[Any]] = [
        [generator.integers(size, size=size) for size in sizes] for _ in range(RESAMPLED)
    ]

    def between(
        top: np.ndarray, bottom: np.ndarray, rank: bool, attacks: np.ndarray, images: np.ndarray
    ) -> float:
        chosen = [v[:, attacks][..., images].mean(-1) for v in (top, bottom, transfer)]
        return _coefficient(chosen[0] / chosen[1], chosen[2], rank)

    def within(
        top: np.ndarray, bottom: np.ndarray, rank: bool, _: np.ndarray, images: np.ndarray
    ) -> float:
        floor = np.median(bottom, axis=-1, keepdims=True).clip(min=1e-9) / 10
        values = top / np.maximum(bottom, floor)
        return _coefficient(values[..., images], transfer[..., images], rank)

    whole = np.arange(sizes[0]), np.arange(sizes[1])
    rows, one = [], np.ones_like(gain)
    read = ("mean I", signed, one), ("mean |I|", absolute, one), ("mean I / gain", signed, gain)
    for over, statistic in (("attacks", between), ("images of an attack", within)):
        for name, top, bottom in read:
            row: dict[str, Any] = {"over": over, "interaction": name}
            for kind, rank in (("pearson", False), ("spearman", True)):
                again = [statistic(top, bottom, rank, *draw) for draw in draws]
                value = statistic(top, bottom, rank, *whole)
                interval = np.nanpercentile(again, [2.5, 97.5])
                row |= Mean(value, 0, *map(float, interval)).columns(kind, interval=True)
            rows.append(row)
    return rows


def _coefficient(first: np.ndarray, second: np.ndarray, rank: bool) -> float:
    """The correlation along the last axis, meaned over all others."""
    if rank:
        first, second = rankdata(first, axis=-1), rankdata(second, axis=-1)
    first, second = (v - v.mean(-1, keepdims=True) for v in (first, second))
    size = np.sqrt((first**2).sum(-1) * (second**2).sum(-1))
    with np.errstate(invalid="ignore"):
        return float(np.nanmean((first * second).sum(-1) / size))


def transfer_rows(found: Findings) -> list[dict[str, Any]]:
    """The table of transfer."""
    settings = {a: dict.fromkeys(run[a]["setting"] for run in found.runs) for a in found.attacks}
    return [
        {
            "attack": attack,
            "chosen on validation": " / ".join(s for s in settings[attack] if s),
            "passes": int(found.runs[0][attack]["passes"]),
            "white box": float(np.mean([run[attack]["white"] for run in found.runs])),
            **found.success(attack).columns("targets fooled", interval=True),
            **found.less(attack, "PGD").columns("less PGD's"),
            **columns({"gain at targets": found.units(attack, "transfer")}),
        }
        for attack in found.attacks
    ]


def interaction_rows(found: Findings) -> list[dict[str, Any]]:
    """The table of interactions."""
    return [
        {
            "attack": attack,
            **columns({"mean I": found.units(attack, "interaction")}),
            **found.less(attack, "PGD", "interaction").columns("less PGD's"),
            **columns({"mean |I|, plug-in": found.units(attack, "absolute")}),
            **columns({"gain": found.units(attack, "gain"), "I / gain": found.relative(attack)}),
            **paired(found.relative(attack), found.relative("PGD")).columns("less PGD's I / gain"),
        }
        for attack in found.attacks
    ]


def judge(part: Part, found: Findings, correlated: Sequence[Mapping[str, Any]]) -> None:
    """The verdict: IR against what it is to beat, the correlations, and the five methods."""
    checks = []
    for says, attack, other in (
        ("IR as published fools the targets more than PGD", "IR, published", "PGD"),
        ("IR on the margin fools them more than PGD on it", "IR, margin", "PGD, margin"),
        ("HybridIR fools them more than its parts without IR", "HybridIR", "hybrid without IR"),
    ):
        gap = found.less(attack, other)
        checks.append(Check(says, gap.clearly(1), gap.points()))
    if "IR" in found.attacks:
        against = {name: found.less("IR", name) for name in COSTLY if name != "IR"}
        shares = (f"{name} {100 * gap.value:+.1f}" for name, gap in against.items())
        best = all(gap.clearly(1) for gap in against.values())
        says = "tuned IR fools them more than all others at equal passes"
        checks.insert(2, Check(says, best, f"points above the others: {', '.join(shares)}"))
    for row in (correlated[0], correlated[3]):
        says = f"mean I and transfer correlate negatively over {row['over']}"
        low, high = row["spearman_low"], row["spearman_high"]
        numbers = f"rank correlation {row['spearman']:+.2f} [{low:+.2f}, {high:+.2f}]"
        checks.append(Check(says, high < 0, numbers))
    changes = {name: found.less(name, "PGD", "interaction") for name in LOWERING}
    lower, higher = (
        ", ".join(name for name, gap in changes.items() if gap.clearly(sign)) or "none"
        for sign in (-1, 1)
    )
    fall = all(gap.clearly(-1) for gap in changes.values())
    numbers = f"clearly lower: {lower}, higher: {higher}"
    checks.append(Check(f"{', '.join(LOWERING)} all lower the mean I", fall, numbers))
    part.verdict(checks)


@styled()
def overview(data: str, transfer: pd.DataFrame, interactions: pd.DataFrame) -> Figure:
    """Transfer and interaction of every attack side by side, from the two tables."""
    both = transfer.merge(interactions, on="attack", suffixes=("", " of I"))
    both = both.sort_values("targets fooled", kind="stable").reset_index(drop=True)
    figure, panels = new_panels(1, 2, 7, 0.9 + 0.24 * len(both), sharey=True)
    left, right = panels[0]
    cheap = both["passes"] <= both.loc[both["attack"] == "PGD", "passes"].item()
    with_ir = both["attack"].str.startswith(("IR", "HybridIR"))
    groups = {"one pass per step": cheap & ~with_ir, "more": ~cheap & ~with_ir, "with IR": with_ir}
    for (label, members), marker in zip(groups.items(), "osD", strict=True):
        some = both[members]
        middle, style = some["targets fooled"], {"fmt": marker, "capsize": 0, "label": label}
        sides = [middle - some["targets fooled_low"], some["targets fooled_high"] - middle]
        left.errorbar(100 * middle, some.index, xerr=100 * np.array(sides), **style)
        right.errorbar(
            1000 * some["mean I"], some.index, xerr=1000 * some["mean I_stderr"], **style
        )
    left.set_yticks(both.index, both["attack"])
    left.margins(y=0.03)
    left.set(xlabel="targets fooled, % (95 % intervals)", title="Transfer")
    right.set(
        xlabel="mean I inside δ, 0.001 logits\n(one standard error)",
        title="Interactions at the source",
    )
    right.axvline(0, color=INK, lw=0.8)
    figure.suptitle(f"Attacks on {data}")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


@styled()
def scatter(data: str, transfer: pd.DataFrame, interactions: pd.DataFrame) -> Figure:
    """Every attack as a point: interaction against what it is worth at the targets."""
    both = transfer.merge(interactions, on="attack", suffixes=("", " of I"))
    figure, panels = new_panels(1, 2, 8, 4, sharey=True)
    for axes, of, factor in zip(panels[0], ("mean I", "I / gain"), (1e3, 1e4), strict=True):
        for (_, row), marker in zip(both.iterrows(), "osD^v<>Pp*hX8dosD^v<>Pp*hX8d", strict=False):
            axes.errorbar(
                factor * row[of], row["gain at targets"], row["gain at targets_stderr"],
                factor * row[f"{of}_stderr"], fmt=marker, markersize=5, elinewidth=0.6,
                capsize=0, label=row["attack"],
            )  # fmt: skip
        axes.axvline(0, color=INK, lw=0.8)
    panels[0, 0].set(xlabel="mean I inside δ, 0.001 logits", ylabel="gain at the targets, logits")
    panels[0, 1].set(xlabel="mean I / gain at the source, 0.0001")
    figure.suptitle(f"Attacks on {data}: interaction and transfer (bars: one standard error)")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center")
    return figure


def main() -> None:
    """Run, write tables and figures, and judge."""
    study = Study.from_command_line(__file__, __doc__)
    for part in study.parts():
        with part:
            plan = {
                f"seed_{seed}": {"data": part.data, "seed": seed, **part.settings}
                for seed in part.seeds
            }
            found = Findings(list(part.runs(plan, partial(work, study)).values()))
            correlated = correlations(found)
            transfer, interactions = transfer_rows(found), interaction_rows(found)
            part.table(transfer)
            part.table(interactions, "interactions")
            part.table(correlated, "correlations")
            frames = pd.DataFrame(transfer), pd.DataFrame(interactions)
            part.figure(overview(part.data, *frames))
            part.figure(scatter(part.data, *frames), "correlations")
            judge(part, found, correlated)


if __name__ == "__main__":
    main()
