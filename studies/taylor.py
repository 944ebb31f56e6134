"""Attribution methods as Taylor interactions: what each does with the effects of sets of cells.

Deng et al. 2024, Tables V and VI, on small trained networks. (a) How far attributions are from what
their rule (Table IV) makes of the effects of degree 1, of 1 and 2, and of 1 to 3, when the baseline
is the image with noise; the paper does not say how much. To degree 2 the rules of integrated
gradients and of Shapley values are the same: at degree 3 each is tried on the other's attributions
too, also for polynomials of that degree, of which all effects are there. (b) The three principles
as numbers, beside the paper's ticks: effects given to cells that have no part in them
(``unrelated``) and effects not given in full (``incomplete``), as shares of Σ|J|, and the
infidelity. (c) Whether the interaction loss or dropout brings the methods closer together:
1 − cosine of the attributions of two methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any, Literal

import common
import torch
from common import Check, Mean, Part, Study, Summary, paired
from matplotlib.figure import Figure
from torch import Tensor, nn

import interaction_train as it
from interaction_train.attributions import (
    METHODS,
    Effects,
    allocation,
    attribute,
    check_principles,
    infidelity,
    second_order_effects,
    table_iv,
)
from interaction_train.callbacks.samples import spread
from interaction_train.errors import InputError
from interaction_train.indices import dividends
from interaction_train.tracking.figures import new_panels
from interaction_train.tracking.style import styled

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "relu": nn.ReLU,
}
CUBIC = "cubic polynomial"
CELLS = it.GridPlayers(3, 3)
PATCHES = [[0, 1, 3, 4], [2, 5], [6, 7], [8]]
SEVERAL = ("prediction_difference", "expected_gradients")  # methods with several baselines
EXPANDED = ("occlusion", "occlusion_patch", "integrated_gradients", "shapley", *SEVERAL)
BASELINES = 4  # of those
DEGREES = (1, 2, 3)
OTHER = {"integrated_gradients": "shapley", "shapley": "integrated_gradients"}
PRINCIPLES = ("unrelated", "incomplete", "gap", "infidelity")
KEPT = {  # by Table VI: no unrelated effects, complete
    **dict.fromkeys(("gradient_input", "grad_cam", "lrp_epsilon"), (True, True)),
    **dict.fromkeys(("occlusion_patch",), (False, False)),
    **dict.fromkeys(("lrp_alpha_beta", "deep_taylor"), (False, True)),
    **dict.fromkeys(("occlusion", "prediction_difference"), (True, False)),
    **dict.fromkeys(("integrated_gradients", "expected_gradients", "shapley"), (True, True)),
    **dict.fromkeys(("deeplift_rescale", "deeplift_reveal_cancel", "deep_shap"), (True, True)),
}
COMPLETE = ("shapley", "deeplift_rescale", "deeplift_reveal_cancel", "deep_shap")
COMPARED = (
    "gradient_input", "occlusion", "integrated_gradients", "shapley", "lrp_epsilon",
    "deeplift_rescale", "deeplift_reveal_cancel",
)  # fmt: skip
NORMAL, LOSS = "normal", "interaction loss"


class Cubic(nn.Module):
    """Polynomials of degree 3 in nine cells: linear in the products of up to three of them."""

    def __init__(self) -> None:
        super().__init__()
        cells = torch.arange(9)
        self.factors = [torch.combinations(cells, k, with_replacement=True) for k in DEGREES]
        self.linear = nn.Linear(sum(map(len, self.factors)), 10)

    def forward(self, cells: Tensor) -> Tensor:
        """Logits of ``(B, 9)``."""
        return self.linear(torch.cat([cells[:, f].prod(-1) for f in self.factors], 1))


def network(kind: str, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """Nine pooled cells; but for cubic ones two layers of eight units, few enough for Deep SHAP."""
    if kind == CUBIC:
        layers: tuple[nn.Module, ...] = (Cubic(),)
    else:
        act = ACTIVATIONS[kind]
        layers = (nn.Linear(9, 8), act(), nn.Linear(8, 8), act(), nn.Linear(8, 10))
    return nn.Sequential(it.Normalize(mean, std), nn.AdaptiveAvgPool2d(3), nn.Flatten(), *layers)


def trained(
    study: Study, data: str, build: Any, seed: int, size: Mapping[str, Any], **more: Any
) -> nn.Module:
    """A network in float64, in eval mode."""
    module = common.splits(study.source(data), seed, **size.get("splits", {}))
    fitted = common.fit(build, module, seed=seed, epochs=size["epochs"], lr=size["lr"], **more)
    return fitted.double()


def some_images(study: Study, data: str, count: int) -> tuple[Tensor, Tensor]:
    """Test images, spread evenly, in float64."""
    x, y = common.images(study.source(data), "test")
    places = spread(range(len(x)), count)
    return x[places].double(), y[places]


def effects(game: it.MaskedGame) -> Effects:
    """All Taylor effects of degree 1 to 3 at the baseline."""
    lower = Effects.of_second_order(*second_order_effects(game))
    masks = game.players.mask(torch.eye(game.n, dtype=torch.bool), game.present.shape[1:])

    def payoff(t: Tensor, x: Tensor, absent: Tensor, label: Tensor) -> Tensor:
        inputs = absent + torch.tensordot(t, masks.to(t), 1) * (x - absent)
        return game.model(inputs.unsqueeze(0))[0].gather(0, label.view(1))[0]

    derivative: Callable[..., Tensor] = payoff
    for _ in range(3):
        derivative = torch.func.jacrev(derivative)
    at = torch.zeros(len(game.present), game.n).to(game.present)
    third = torch.func.vmap(derivative)(at, game.present, game.absent, game.labels)
    factors = torch.combinations(torch.arange(game.n), 3, with_replacement=True)
    i, j, k = factors.T
    degrees = nn.functional.one_hot(factors, game.n).sum(1)
    factorials = degrees.to(third).add(1).lgamma().exp().prod(1)  # κ!
    values = third[:, i, j, k] / factorials
    return Effects(torch.cat([lower.degrees, degrees]), torch.cat([lower.values, values], 1))


def error(a: Tensor, rule: str, terms: Sequence[Effects], degree: int, **options: Any) -> Any:
    """‖a − a*‖/‖a‖ by image, where a* is a method's rule, the mean over the effects' baselines."""
    known = [(e, e.degrees.sum(1) <= degree) for e in terms]
    rules = [table_iv(rule, Effects(e.degrees[k], e.values[:, k]), **options) for e, k in known]
    return ((a - torch.stack(rules).mean(0)).norm(dim=1) / a.norm(dim=1)).tolist()


def expansion(net: nn.Module, x: Tensor, y: Tensor, sigmas: Sequence[float]) -> Summary:
    """σ → method → degree → the error by image; with "other" that of the other method's rule."""
    drawn = (BASELINES, *x.shape)
    noise = torch.randn(drawn, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    result: Summary = {}
    for sigma in sigmas:
        absents = x + sigma * noise
        games = [it.MaskedGame(net, x, absent, CELLS, "logit", y) for absent in absents]
        terms = [effects(game) for game in games]
        for method in EXPANDED:
            options: dict[str, Any] = {"patches": PATCHES} if method == "occlusion_patch" else {}
            several: dict[str, Any] = {"absents": absents} if method in SEVERAL else {}
            a = attribute(games[0], method, **options, **several)
            own = terms if several else terms[:1]
            for degree in DEGREES:
                key = f"{sigma}, {method}, {degree}"
                result[key] = error(a, method, own, degree, **options)
            if method in OTHER:
                result[f"{sigma}, {method}, other"] = error(a, OTHER[method], own, DEGREES[-1])
    return result


def principles(net: nn.Module, x: Tensor, y: Tensor) -> Summary:
    """Method → its numbers by image, or why it is refused."""
    absent = it.input_baseline(net, None, x)
    game = it.MaskedGame(net, x, absent, CELLS, "logit", y)
    known = dividends(it.exact_values(game))
    result: Summary = {}
    for method in METHODS:
        options: dict[str, Any] = {"patches": PATCHES} if method == "occlusion_patch" else {}
        if method in SEVERAL:
            options["absents"] = absent.expand_as(x[:1])
        try:
            a = attribute(game, method, **options)
            report = check_principles(allocation(game, method, **options), known)
        except InputError as error:
            result[method] = {"refused": str(error)}
            continue
        told = {name: getattr(report, name) for name in PRINCIPLES[:3]}
        told["infidelity"] = infidelity(game, a)
        result[method] = {name: value.tolist() for name, value in told.items()}
    return result


def distances(net: nn.Module, x: Tensor, y: Tensor) -> Summary:
    """Pair of methods → mean of 1 − cosine of their attributions over images."""
    game = it.MaskedGame(net, x, it.input_baseline(net, None, x), CELLS, "logit", y)
    found = {method: attribute(game, method) for method in COMPARED}
    return {
        f"{a}, {b}": float(1 - torch.cosine_similarity(found[a], found[b]).mean())
        for a, b in combinations(COMPARED, 2)
    }


def work(study: Study, data: str, kind: str, of: str, seed: int, **size: Any) -> Summary:
    """One network: ``kind`` is what is measured, ``of`` which network or training."""
    x, y = some_images(study, data, size["images"])
    if kind == "distances":
        options: dict[str, Any] = {}
        if of == LOSS:
            loss = it.InteractionLoss(layer="classifier.2")
            options["losses"] = {"interaction": it.WeightedTerm(loss, 1.0)}
        digits = partial(it.models.DigitsNet, dropout=0.5 if of == "dropout" else 0.0)
        slower = {**size, "lr": 0.05}  # as the packaged jobs
        return distances(trained(study, data, digits, seed, slower, **options), x, y)
    build = partial(network, of, size["mean"], size["std"])
    net = trained(study, data, build, seed, {**size, "lr": size["lr"][of]})
    accuracy = common.accuracy(net, x, y)
    if kind == "expansion":
        return {"accuracy": accuracy, **expansion(net, x, y, size["sigmas"])}
    return {"accuracy": accuracy, **principles(net, x, y)}


def over(found: Mapping[str, Summary], part: Part, kind: str, of: str, *keys: str) -> list[float]:
    """A number over the seeds, or over the images of a single seed."""
    values = []
    for seed in part.seeds:
        value: Any = found[f"{kind}/{of}/seed_{seed}"]
        for key in keys:
            value = value[key]
        values.append(value)
    return common.units(values)


def rows(found: Mapping[str, Summary], part: Part) -> list[dict[str, Any]]:
    """(b): a row for each activation and method, with the paper's ticks."""
    result = []
    for activation in part.settings["activations"]:
        told = found[f"principles/{activation}/seed_{part.seeds[0]}"]
        for method in (m for m in METHODS if "refused" not in told[m]):
            row: dict[str, Any] = {"network": activation, "method": method.replace("_", " ")}
            for name in PRINCIPLES:
                row |= Mean.of(over(found, part, "principles", activation, method, name)).columns(
                    name
                )
            row["Table VI"] = " and ".join(
                name if kept else f"not {name}"
                for name, kept in zip(("related only", "complete"), KEPT[method], strict=True)
            )
            result.append(row)
    return result


def expansion_rows(found: Mapping[str, Summary], part: Part) -> list[dict[str, Any]]:
    """(a): a row for each network, noise and method."""
    result = []
    shown = {str(degree): f"error, degree {degree} (%)" for degree in DEGREES}
    shown["other"] = "degree 3, the other's rule (%)"
    for kind in part.settings["smooth"]:
        for sigma in part.settings["sigmas"]:
            for method in EXPANDED:
                row: dict[str, Any] = {
                    "network": kind, "noise": sigma, "method": method.replace("_", " ")
                }  # fmt: skip
                for of, title in shown.items():
                    if of != "other" or method in OTHER:
                        errors = over(found, part, "expansion", kind, f"{sigma}, {method}, {of}")
                        row |= Mean.of(100 * e for e in errors).columns(title)
                result.append(row)
    return result


def largest(
    found: Mapping[str, Summary], part: Part, activation: str, methods: Sequence[str], name: str
) -> dict[str, float]:
    """The largest of a method's numbers, for each method."""
    return {m: max(over(found, part, "principles", activation, m, name)) for m in methods}


def checks(found: Mapping[str, Summary], part: Part) -> list[Check]:
    """What the numbers say of the claims."""
    result: list[Check] = []

    def claim(says: str, difference: Mean, sign: Literal[-1, 1]) -> None:
        result.append(Check(says, difference.clearly(sign), f"by {difference}"))

    sigmas = part.settings["sigmas"]
    for kind in part.settings["smooth"]:
        get = partial(over, found, part, "expansion", kind)
        middle = sigmas[len(sigmas) // 2]
        for method, than in (
            ("integrated_gradients", "occlusion"),
            ("shapley", "occlusion"),
            ("expected_gradients", "prediction_difference"),
        ):
            gap = paired(get(f"{middle}, {method}, 2"), get(f"{middle}, {than}, 2"))
            claim(f"{kind}: degree 2 explains {method} better than {than}", gap, -1)
        for method, other in OTHER.items():
            gap = paired(get(f"{middle}, {method}, 3"), get(f"{middle}, {method}, other"))
            claim(f"{kind}: degree 3 tells {method} from {other}", gap, -1)
        if kind == CUBIC:
            worst = max(max(get(f"{s}, {method}, 3")) for s in sigmas for method in EXPANDED)
            result.append(Check(f"{kind}: degree 3 is exact", worst < 1e-8, f"at most {worst:.1g}"))
            continue
        low, high = (Mean.of(get(f"{s}, occlusion, 2")).value for s in (sigmas[0], sigmas[-1]))
        says = f"{kind}: the noise decides, {sigmas[-1]} against {sigmas[0]} makes 10 times"
        result.append(Check(says, high > 10 * low, f"{100 * low:.2g} and {100 * high:.2g} %"))
    for activation in part.settings["activations"]:
        told = found[f"principles/{activation}/seed_{part.seeds[0]}"]
        there = [method for method in METHODS if "refused" not in told[method]]
        most = partial(largest, found, part, activation)
        exact = most([m for m in COMPLETE if m in there], "incomplete")
        worst = max(exact.values())
        says = f"{activation}: {', '.join(exact)} are complete on the whole network"
        result.append(Check(says, worst < 1e-8, f"at most {worst:.1g} is missing"))
        lacking = most([m for m in ("occlusion", "occlusion_patch") if m in there], "incomplete")
        says = f"{activation}: occlusion, of cells and patches, is not"
        result.append(
            Check(says, min(lacking.values()) > 0.01, f"{min(lacking.values()):.2g} or more")
        )
        # The rule of Grad-CAM is one of networks with a pooling head.
        others = most([m for m in there if m not in ("occlusion_patch", "grad_cam")], "unrelated")
        patch = most(["occlusion_patch"], "unrelated")["occlusion_patch"]
        says = f"{activation}: patches have unrelated effects, all others but Grad-CAM none"
        numbers = f"{patch:.2g} and at most {max(others.values()):.1g}"
        result.append(Check(says, patch > 0.01 and max(others.values()) < 1e-6, numbers))
    for training in part.settings["trainings"]:
        if training != NORMAL:
            mean = [
                [sum(found[f"distances/{t}/seed_{s}"].values()) for s in part.seeds]
                for t in (training, NORMAL)
            ]
            count = len(list(combinations(COMPARED, 2)))
            change = paired(*([value / count for value in one] for one in mean))
            claim(f"{training} brings the methods closer together", change, -1)
    return result


@styled()
def figure(found: Mapping[str, Summary], part: Part) -> Figure:
    """Incompleteness of every method by activation, and errors of the expansion by noise."""
    drawn, panels = new_panels(1, 2, 10.5, 4.2)
    left, right = panels[0]
    shown = rows(found, part)
    methods = list(dict.fromkeys(row["method"] for row in shown))
    for k, activation in enumerate(part.settings["activations"]):
        values = {row["method"]: row["incomplete"] for row in shown if row["network"] == activation}
        places = [methods.index(method) + 0.22 * (k - 1) for method in values]
        left.plot([max(v, 1e-16) for v in values.values()], places, "o", label=activation)
    left.set_yticks(range(len(methods)), methods)
    left.invert_yaxis()
    left.set_xscale("log")
    left.set(xlabel="effects not given in full (share of Σ|J|)", title=f"{part.data}: completeness")
    left.legend()
    sigmas = part.settings["sigmas"]
    shown_kind = part.settings["smooth"][0]
    for method in EXPANDED:
        get = partial(over, found, part, "expansion", shown_kind)
        means = [Mean.of(100 * e for e in get(f"{sigma}, {method}, 2")) for sigma in sigmas]
        common.curve(right, list(sigmas), means, label=method.replace("_", " "))
    right.set(xscale="log", yscale="log", xlabel="noise of the baseline (pixels in [0, 1])")
    right.set_xticks(list(sigmas), list(map(str, sigmas)))
    right.minorticks_off()
    right.set(ylabel="‖a − a*‖ / ‖a‖ (%)", title=f"effects of degree 1 and 2 ({shown_kind})")
    right.legend()
    return drawn


def main() -> None:
    """Run the study."""
    study = Study.from_command_line(__file__, __doc__)
    for part in study.parts():
        with part:
            apart = ("activations", "smooth", "trainings")
            size = {k: v for k, v in part.settings.items() if k not in apart}
            kinds = [("expansion", kind) for kind in part.settings["smooth"]]
            kinds += [("principles", a) for a in part.settings["activations"]]
            kinds += [("distances", t) for t in part.settings["trainings"]]
            plan = {
                f"{kind}/{of}/seed_{seed}": {"kind": kind, "of": of, "seed": seed, **size}
                for kind, of in kinds
                for seed in part.seeds
            }
            found = part.runs(plan, partial(work, study, part.data))
            part.table(rows(found, part))
            part.table(expansion_rows(found, part), "expansion")
            part.figure(figure(found, part))
            part.verdict(checks(found, part))


if __name__ == "__main__":
    main()
