"""How few AND-OR concepts explain a network, how stable they are, and what training does to them.

The survey's Sec. 4.1, with the concepts of ``interaction_train.concepts``: exact log-odds of all
masked images of a small grid, decomposed into ANDs alone, and into ANDs and ORs within a bound of
0, 2 and 4 % of v(N) − v(∅). (a) Trained networks against untrained ones, absent cells showing the
training mean or black; (b) how much of the strongest concepts stays when the image gets noise;
(c) whether the interaction loss, dropout and adversarial training leave fewer concepts, or others;
(d) concepts over epochs: high orders are said to vanish first and to return with over-fitting.

k90 is how many of the strongest make 90 % of Σ|I|; R² is that of the ``count`` strongest, refitted,
over all masked images; the mean order is Σ|S| |I(S)| / Σ|I(S)|.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import common
import lightning as L
import torch
from common import Check, Mean, Part, Study, Summary, paired, units
from matplotlib.figure import Figure
from torch import Tensor, nn

import interaction_train as it
from interaction_train.callbacks.samples import spread
from interaction_train.concepts import strength_by_order
from interaction_train.indices import dividends
from interaction_train.tracking.figures import new_panels
from interaction_train.tracking.style import styled

UNTRAINED, NORMAL, LOSS = "untrained", "normal", "interaction loss"
AND = "AND alone"
MEASURES = ("k90", "R²", "mean order")
CLAIMS: tuple[tuple[str, str, Literal[-1, 1]], ...] = (  # of trainings against the normal one
    (LOSS, "k90", -1),
    ("dropout", "k90", -1),
    ("adversarial", "k90", -1),
    (LOSS, "mean order", -1),
    ("dropout", "mean order", -1),
    ("adversarial", "mean order", -1),
)


def form_of(noise: float) -> str:
    """The name of a decomposition."""
    return f"AND-OR, {100 * noise:g} %"


def and_alone(v: Tensor) -> it.Concepts:
    """The dividends of a game as its concepts."""
    i_and = dividends(v)
    constant = i_and[:, 0].clone()
    i_and[:, 0] = 0
    total = i_and.abs().sum(-1)
    none = torch.zeros_like(total)
    steps, exact = none.long(), none == 0
    return it.Concepts(i_and, 0 * i_and, constant, total, none, none, steps, exact)


def decomposed(v: Tensor, form: str) -> it.Concepts:
    """The concepts of games ``(B, 2^n)``."""
    if form == AND:
        return and_alone(v)
    return it.sparse_concepts(v, noise=float(form.split()[1]) / 100)


def values(network: nn.Module, x: Tensor, y: Tensor, grid: Sequence[int], baseline: str) -> Tensor:
    """Log-odds of y on all coalitions of a grid's cells, ``(B, 2^n)`` float64."""
    absent = it.input_baseline(network, None, x) if baseline == "mean" else 0.0
    game = it.MaskedGame(network, x, absent, it.GridPlayers(*grid), "log_odds", y)
    return it.exact_values(game).double()


def mean_order(concepts: it.Concepts) -> Tensor:
    """``(B,)``."""
    strength = strength_by_order(concepts.and_) + strength_by_order(concepts.or_)
    sizes = torch.arange(1.0, concepts.n + 1, dtype=strength.dtype)
    return strength @ sizes / strength.sum(-1)


def strongest(concepts: it.Concepts, count: int) -> Tensor:
    """Which are among the strongest, bool ``(B, 2^(n+1))``."""
    both = torch.cat([concepts.and_, concepts.or_], -1).abs()
    chosen = torch.zeros_like(both, dtype=torch.bool)
    return chosen.scatter(-1, both.topk(min(count, both.shape[-1])).indices, True)


def described(v: Tensor, form: str, count: int) -> dict[str, list[float]]:
    """The measures of each game."""
    concepts = decomposed(v, form)
    found = it.fidelity(concepts, v, [count])
    return {
        "k90": found.k90.tolist(),
        "R²": found.r2_refitted[:, 0].tolist(),
        "mean order": mean_order(concepts).tolist(),
        "AND": strength_by_order(concepts.and_).mean(0).tolist(),
        "OR": strength_by_order(concepts.or_).mean(0).tolist(),
    }


class Seen(L.Callback):
    """Measures a network before and after some epochs."""

    def __init__(self, epochs: Sequence[int], measure: Callable[[nn.Module], Any]) -> None:
        self.epochs, self.measure = epochs, measure
        self.found: dict[str, Any] = {}

    def look(self, module: Any, epoch: int) -> None:
        """Measure in eval mode, if this epoch is wanted."""
        if epoch in self.epochs:
            training = module.training
            self.found[str(epoch)] = self.measure(module.model.eval())
            module.train(training)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.look(pl_module, 0)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.look(pl_module, trainer.current_epoch + 1)


def network_of(
    study: Study, source: str, training: str, seed: int, size: Mapping[str, Any], seen: Seen
) -> nn.Module:
    """A network trained in one of the ways, or not at all."""
    digits = source == "digits"
    build: Any = it.models.DigitsNet if digits else partial(it.models.CIFARThinResNet, 20)
    if training == UNTRAINED:
        L.seed_everything(seed, verbose=False)
        return build().eval()
    if not digits and study.scale != "full":
        return build(weights=study.file("cifar_resnet20.safetensors")).eval()
    options: dict[str, Any] = {"callbacks": [seen] if training == NORMAL else []}
    if training == LOSS:
        loss = it.InteractionLoss(layer="classifier.2" if digits else "layer3")
        options["losses"] = {"interaction": it.WeightedTerm(loss, size["weight"])}
    if training == "dropout":
        build = partial(build, dropout=0.5)
    if training == "adversarial":
        eps = size["eps"]
        attack = partial(it.TransferAttack, eps=eps, alpha=eps / 4, steps=7, random_start=True)
        options["callbacks"] = [it.callbacks.AdversarialTraining(attack, warmup_epochs=2)]
    data = common.splits(source, seed)
    return common.fit(build, data, seed=seed, epochs=size["epochs"], lr=0.05, **options)


def work(study: Study, data: str, training: str, seed: int, **size: Any) -> Summary:
    """Train or load one network and decompose its games; ``size`` as in ``settings.yaml``."""
    source, first = study.source(data), size["grids"][0]
    forms = [AND, *map(form_of, size["noise"])]
    x, y = common.images(source, "test")
    some = spread(range(len(x)), max(grid["images"] for grid in size["grids"]))
    x, y = x[some], y[some]

    def measure(network: nn.Module) -> dict[str, list[float]]:
        v = values(network, x, y, first["grid"], "mean")
        return described(v, forms[-1], size["count"])

    seen = Seen(size["seen"] if training == NORMAL else [], measure)
    network = network_of(study, source, training, seed, size, seen)
    summary: Summary = {"phases": seen.found}
    summary["accuracy"] = common.accuracy(network, *common.images(source, "test"))
    compared = training in (UNTRAINED, NORMAL)
    for grid in size["grids"] if compared else [first]:
        few = spread(range(len(x)), grid["images"])
        for baseline in grid["baselines"] if compared else ["mean"]:
            v = values(network, x[few], y[few], grid["grid"], baseline)
            key = f"{v.shape[-1].bit_length() - 1} cells, {baseline}"
            for form in forms if compared else forms[-1:]:
                summary[f"{key}, {form}"] = described(v, form, size["count"])
    if training == NORMAL:
        noise = size["input_noise"] * torch.randn(
            x.shape, generator=torch.Generator().manual_seed(0)
        )
        noisy = (x + noise).clamp(0, 1)
        v, moved = (values(network, images, y, first["grid"], "mean") for images in (x, noisy))
        for form in (AND, forms[-1]):
            one, other = (strongest(decomposed(game, form), size["count"]) for game in (v, moved))
            jaccard = (one & other).sum(-1) / (one | other).sum(-1)
            summary[f"stability, {form}"] = jaccard.tolist()
    return summary


def of(found: Mapping[str, Summary], part: Part, training: str, key: str, name: str) -> list[float]:
    """A measure over the seeds, or over the images of a single seed."""
    return units([found[f"{training}/seed_{seed}"][key][name] for seed in part.seeds])


def rows(found: Mapping[str, Summary], part: Part) -> list[dict[str, Any]]:
    """The table."""
    result = []
    for training in part.settings["trainings"]:
        one = found[f"{training}/seed_{part.seeds[0]}"]
        for key in (key for key, told in one.items() if isinstance(told, dict) and "k90" in told):
            means = {name: Mean.of(of(found, part, training, key, name)) for name in MEASURES}
            where = dict(zip(("players", "absent", "form"), key.split(", ", 2), strict=True))
            told = (mean.columns(name) for name, mean in means.items())
            result.append(
                {"training": training, **where, **{k: v for t in told for k, v in t.items()}}
            )
    return result


def checks(found: Mapping[str, Summary], part: Part) -> list[Check]:
    """What the numbers say of each claim."""
    noise, grids = part.settings["noise"], part.settings["grids"]
    first, last = grids[0]["grid"], form_of(noise[-1])
    result = []

    def get(training: str, name: str, form: str = last, baseline: str = "mean") -> list[float]:
        key = f"{first[0] * first[1]} cells, {baseline}, {form}"
        return of(found, part, training, key, name)

    def claim(says: str, difference: Mean, sign: Literal[-1, 1]) -> None:
        result.append(Check(says, difference.clearly(sign), f"by {difference}"))

    fewer = paired(get(NORMAL, "k90"), get(NORMAL, "k90", AND))
    claim(f"{last}, needs fewer concepts than AND alone", fewer, -1)
    for baseline in grids[0]["baselines"]:
        both = (get(training, "k90", last, baseline) for training in (NORMAL, UNTRAINED))
        claim(f"training makes concepts fewer ({baseline})", paired(*both), -1)
    count, r2 = part.settings["count"], Mean.of(get(NORMAL, "R²"))
    says = f"the {count} strongest, refitted, have an R² above .9"
    result.append(Check(says, r2.value > 0.9, f"{r2}"))
    stable = [
        units([found[f"{NORMAL}/seed_{seed}"][f"stability, {form}"] for seed in part.seeds])
        for form in (last, AND)
    ]
    noise_says = f"{Mean.of(stable[0])} against {Mean.of(stable[1])}"
    less = paired(*stable).clearly(-1)
    result.append(Check("AND-OR sets are less stable than those of AND", less, noise_says))
    for training, name, sign in CLAIMS:
        if training in part.settings["trainings"]:
            change = paired(get(training, name), get(NORMAL, name))
            claim(
                f"{training}: {'fewer concepts' if name == 'k90' else 'lower orders'}", change, sign
            )
    if phases := found[f"{NORMAL}/seed_{part.seeds[0]}"]["phases"]:
        order = {
            epoch: units(
                [found[f"{NORMAL}/seed_{s}"]["phases"][epoch]["mean order"] for s in part.seeds]
            )
            for epoch in phases
        }
        epochs = list(order)
        lowest = min(epochs, key=lambda epoch: Mean.of(order[epoch]).value)
        claim(f"orders fall first, to epoch {lowest}", paired(order[lowest], order[epochs[0]]), -1)
        claim("and rise again", paired(order[epochs[-1]], order[lowest]), 1)
    return result


@styled()
def figure(found: Mapping[str, Summary], part: Part) -> Figure:
    """k90 by form, strength by order, and orders over epochs."""
    runs = [found[f"{NORMAL}/seed_{seed}"]["phases"] for seed in part.seeds]
    epochs = list(runs[0])
    charts = 3 if epochs else 2
    drawn, panels = new_panels(1, charts, 3.7 * charts, 3.6)
    sparse, orders = panels[0, :2]
    first = part.settings["grids"][0]["grid"]
    cells, noise = first[0] * first[1], part.settings["noise"]
    forms = [AND, *map(form_of, noise)]
    for training in (UNTRAINED, NORMAL):
        means = [
            Mean.of(of(found, part, training, f"{cells} cells, mean, {form}", "k90"))
            for form in forms
        ]
        common.curve(sparse, list(range(len(forms))), means, label=training)
    sparse.set_xticks(range(len(forms)), ["AND", *(f"AND-OR\n{100 * e:g} %" for e in noise)])
    sparse.set(ylabel="concepts for 90 % of Σ|I|", title=f"{part.data}: sparsity, {cells} cells")
    sparse.set_ylim(bottom=0)
    key = f"{cells} cells, mean, {forms[-1]}"
    for training in part.settings["trainings"]:
        told = [found[f"{training}/seed_{seed}"][key] for seed in part.seeds]
        both = torch.tensor([[run["AND"], run["OR"]] for run in told]).sum(1)
        shares = both / both.sum(-1, keepdim=True)
        means = [Mean.of(column) for column in shares.T.tolist()]
        common.curve(orders, list(range(1, cells + 1)), means, label=training)
    orders.set(xlabel="players in the concept", ylabel="share of Σ|I|", title="strength by order")
    if epochs:
        phases = panels[0, 2]
        for name in ("mean order", "k90"):
            means = [Mean.of(units([run[epoch][name] for run in runs])) for epoch in epochs]
            top = max(mean.value for mean in means)
            means = [Mean(*(value / top for value in mean)) for mean in means]
            common.curve(phases, list(range(len(epochs))), means, label=f"{name} / {top:.3g}")
        phases.set_xticks(range(len(epochs)), epochs)
        phases.set(xlabel="epoch", ylabel="part of the highest", title="over training")
    for axes in panels[0]:
        axes.legend()
    return drawn


def main() -> None:
    """Run the study."""
    study = Study.from_command_line(__file__, __doc__)
    for part in study.parts():
        with part:
            size = {k: v for k, v in part.settings.items() if k != "trainings"}
            plan = {
                f"{training}/seed_{seed}": {"training": training, "seed": seed, **size}
                for training in part.settings["trainings"]
                for seed in part.seeds
            }
            found = part.runs(plan, partial(work, study, part.data))
            part.table(rows(found, part))
            part.figure(figure(found, part))
            part.verdict(checks(found, part))


if __name__ == "__main__":
    main()
