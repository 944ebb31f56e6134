"""What different baselines make of the same games."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur

from interaction_train.baselines.learn import learn_baseline
from interaction_train.baselines.learned import LearnedBaseline
from interaction_train.baselines.measures import measures_table
from interaction_train.baselines.objectives import Objective
from interaction_train.baselines.problem import (
    BaselineProblem,
    Data,
    check_labels,
    gathered,
    some_of,
)
from interaction_train.baselines.shared import STATISTICS, Start, starting_value
from interaction_train.errors import InputError
from interaction_train.game.payoffs import Payoff
from interaction_train.game.players import Players

NAMES = (*STATISTICS, "blur", "learned")
_BLUR = 8  # the kernel's share of the height, and its standard deviation's of the kernel


def compare_baselines(
    model: nn.Module,
    data: Data,
    players: Players,
    baselines: Collection[str] | Mapping[str, Start | LearnedBaseline] | None = None,
    *,
    objective: str | Objective = "low_order_shapley",
    payoff: str | Payoff = "log_odds",
    contexts: int = 20,
    layer: str | None = None,
    samples: int = 64,
    seed: int = 0,
    chunk_size: int | None = None,
    **learning: Any,
) -> pd.DataFrame:
    """One row per baseline, one column per measure of the same samples and contexts.

    The columns are those of :class:`~interaction_train.baselines.measures.Measures`. A small
    ``strength_over_effect`` says that a baseline explains with few interactions; a small
    ``strength`` beside a small ``effect`` only that it is near to the samples.

    Args:
        model: this and all but the following are as in
            :func:`~interaction_train.baselines.learn.learn_baseline`.
        data: samples and labels.
        players: how a sample splits.
        baselines: some of ``"mean"``, ``"median"``, ``"zero"``, ``"blur"`` (each image's own,
            smoothed) and ``"learned"``; default: all, ``"blur"`` of images only. Or a mapping of
            names to these, to numbers, tensors, saved files or learned baselines.
        objective: what is learned, and the columns ``loss`` and ``loss_over_effect``.
        payoff: what the games read off the logits.
        contexts: contexts of each order.
        layer: the layer whose output is masked.
        samples: how many samples, spread evenly, are measured; the learning has all.
        seed: seed of contexts and mini-batches.
        chunk_size: rows at once.
        learning: for ``"learned"``: ``start``, ``steps``, ``lr``, ``batch_size``, ``max_shift``,
            ``relative``.

    Raises:
        InputError: as there, or an unknown baseline.
    """
    problem = BaselineProblem(model, players, objective, payoff, contexts, layer, seed, chunk_size)
    x, y = gathered(model, data)
    observed = problem.observed(x)
    check_labels(model, x, y)
    images = observed.dim() == 4
    if baselines is None:
        baselines = [name for name in NAMES if images or name != "blur"]
    named = baselines if isinstance(baselines, Mapping) else _by_name(baselines)
    shown = some_of(x, y, samples)
    rows = {}
    for name, given in named.items():
        if given == "blur":
            rows[name] = problem.measure(*shown, _blurred(problem.present(shown[0])))
            continue
        if given == "learned":
            given = learn_baseline(
                model, (x, y), players, objective=objective, payoff=payoff, contexts=contexts,
                layer=layer, samples=samples, seed=seed, chunk_size=chunk_size, **learning,
            )  # fmt: skip
        start = given.value if isinstance(given, LearnedBaseline) else given
        value = starting_value(start, observed, f"baselines[{name!r}]")
        rows[name] = problem.measure(*shown, value)
    return measures_table(rows)


def _by_name(names: Collection[str]) -> dict[str, Start | LearnedBaseline]:
    """In the order of NAMES, as sets have none."""
    if isinstance(names, str) or (unknown := set(names) - set(NAMES)):
        got = repr(names) if isinstance(names, str) else sorted(unknown)
        raise InputError("baselines", got, f"some of {', '.join(map(repr, NAMES))}, or a mapping")
    return {name: name for name in NAMES if name in names}


def _blurred(x: Tensor) -> Tensor:
    if x.dim() != 4:
        raise InputError("baselines", "'blur'", f"others for samples {tuple(x.shape[1:])}")
    size = max(3, x.shape[-1] // 2 * 2 - 1)
    return gaussian_blur(x, [size, size], [x.shape[-1] / _BLUR * 2] * 2)
