"""Learning what an absent player shows."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from interaction_train.baselines.learned import LearnedBaseline
from interaction_train.baselines.measures import nothing_absent
from interaction_train.baselines.objectives import Objective
from interaction_train.baselines.problem import (
    BaselineProblem,
    Data,
    check_labels,
    gathered,
    some_of,
)
from interaction_train.baselines.shared import (
    SharedBaseline,
    Start,
    described,
    deviations,
    starting_value,
)
from interaction_train.errors import at_least, in_range
from interaction_train.game.payoffs import Payoff
from interaction_train.game.players import Players


@torch.inference_mode(False)
@torch.enable_grad()
def learn_baseline(
    model: nn.Module,
    data: Data,
    players: Players,
    *,
    objective: str | Objective = "low_order_shapley",
    payoff: str | Payoff = "log_odds",
    start: Start = "mean",
    steps: int = 300,
    lr: float = 0.03,
    contexts: int = 20,
    batch_size: int = 32,
    max_shift: float | None = None,
    layer: str | None = None,
    samples: int = 64,
    seed: int = 0,
    chunk_size: int | None = None,
    relative: bool | None = None,
) -> LearnedBaseline:
    """The baseline, one for all samples, that minimises an objective's mean over them.

    Adam in standardised coordinates, whose rate falls to 0 along a cosine. The network stays as it
    is. Warns (``UserWarning``) where |v(N) − v(∅)| fell below half: then the baseline became like
    the samples, so that little is ever absent.

    Args:
        model: the network, ``(B, ...)`` → logits ``(B, classes)``; work runs on its device.
        data: samples ``(B, ...)``, floats unless there is a ``layer``, and labels ``(B,)`` int64;
            or batches of both, such as a ``DataLoader``, which are read once and kept.
        players: how a sample, or the layer's output, splits into players.
        objective: ``"low_order_shapley"``, ``"low_order_marginal"``, ``"dividend_l1"``, or a
            callable as in :mod:`interaction_train.baselines.objectives`.
        payoff: as :class:`~interaction_train.game.masked.MaskedGame` has it.
        start: ``"mean"``, ``"median"``, ``"zero"``, numbers, a tensor or a saved baseline
            (:func:`~interaction_train.baselines.shared.starting_value`).
        steps: steps of the optimizer, of one mini-batch each.
        lr: the first rate, in standard deviations per step.
        contexts: contexts of each order and step, new ones at every step.
        batch_size: samples of a mini-batch.
        max_shift: bound on every coordinate's distance to the start, in standard deviations.
        layer: the layer whose output is masked; the baseline is one of its outputs then. Of a
            network for token ids, which takes an ``attention_mask``, the embedding layer: the
            baseline is the embedding ``(D,)`` of an absent word, and the mask's, once it is written
            to the weights at ``mask_id``.
        samples: how many, spread evenly, are measured before and after.
        seed: of mini-batches and contexts.
        chunk_size: rows sent through the network at once; with one, memory is flat.
        relative: whether the objective is divided by the mean |v(N) − v(∅)|, so that the samples
            themselves, where nothing is absent, are no minimum; default: that of a low order.

    Raises:
        InputError: an argument out of its range, or data, players or a start that do not fit.

    Examples:
        >>> import interaction_train as it
        >>> def logits(x):  # x0 x1 and 0
        ...     return torch.stack([x[:, 0] * x[:, 1], 0 * x[:, 0]], 1)
        >>> class Net(nn.Module):
        ...     forward = staticmethod(logits)
        >>> data = torch.ones(1, 2), torch.tensor([0])
        >>> found = learn_baseline(Net(), data, it.UnitPlayers(), start=0.5, steps=100)
        >>> bool((found.value.abs() < 0.05).all()), round(found.before.loss, 4)
        (True, 0.5)
    """
    at_least("steps", steps, 1)
    at_least("batch_size", batch_size, 1)
    in_range("lr", lr, 0, float("inf"), above=True, below=True)
    problem = BaselineProblem(
        model, players, objective, payoff, contexts, layer, seed, chunk_size, relative
    )
    x, y = gathered(model, data)
    observed = problem.observed(x)
    first = starting_value(start, observed)
    check_labels(model, x, y)
    shared = SharedBaseline(first, deviations(observed, first.shape), max_shift).to(x.device)
    measured = some_of(x, y, samples)
    before = problem.measure_start(*measured, first)
    optimizer = torch.optim.Adam([shared.shift], lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    history = []
    for step, places in enumerate(mini_batches(len(x), batch_size, steps, seed)):
        at = places.to(x.device, non_blocking=True)
        loss, reported = problem.loss(x[at], y[at], shared(), step)
        # Not backward, which would leave gradients on the network's weights.
        (shared.shift.grad,) = torch.autograd.grad(loss, shared.shift)
        optimizer.step()
        schedule.step()
        shared.project()
        history.append(reported)
    value = shared().detach()
    after = problem.measure(*measured, value)
    if warning := nothing_absent(before, after):
        warnings.warn(warning, stacklevel=2)
    settings = problem.settings() | {"start": described(start), "lr": lr, "max_shift": max_shift}
    return LearnedBaseline(value, torch.stack(history), before, after, settings)


def mini_batches(count: int, size: int, steps: int, seed: int) -> Iterator[Tensor]:
    """The places of so many batches, in a new random order for every pass over the samples."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if not len(left):
            left = torch.randperm(count, generator=generator)
        batch, left = left[:size], left[size:]
        yield batch
