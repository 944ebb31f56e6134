"""Explain what a network says about an input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from interaction_train.errors import InputError, at_least, refuse_probabilities
from interaction_train.explaining import inputs
from interaction_train.explaining.explanation import Explanation
from interaction_train.explaining.progress import reported
from interaction_train.explaining.sampled import Sampler, pair_matrices
from interaction_train.game.evaluation import Logits, logits_of, unwrap
from interaction_train.game.masked import MaskedGame
from interaction_train.game.payoffs import Payoff, all_logits, get_payoff
from interaction_train.game.players import Players
from interaction_train.indices.curve import one_number
from interaction_train.indices.exact import exact_values, shapley_interactions, shapley_values


def explain(
    model: nn.Module | Callable[..., Any],
    x: Tensor,
    y: int | Sequence[int] | Tensor | None = None,
    players: str | Players = "grid:4x4",
    *,
    baseline: float | Sequence[float] | Tensor | str | Path | None = None,
    payoff: str | Payoff = "log_odds",
    names: Sequence[str] | None = None,
    classes: Sequence[str] | Mapping[int, str] | None = None,
    network: str | None = None,
    budget: int = 2**16,
    seed: int = 0,
    chunk_size: int | None = None,
    progress: bool | None = None,
) -> Explanation:
    """What the parts of an input, alone and together, add to what a network says about it.

    The network sees masked copies of the input in which some players are absent. All 2^n of them
    where the budget allows: then every number is exact. Else Shapley values come from a quarter of
    the budget and interactions of all pairs from the rest, with standard errors; orders cost
    another budget when they are asked for.

    The network runs in eval mode, where it is, and is left as it was.

    Args:
        model: maps ``(rows, ...)`` to logits ``(rows, classes)``, or to an object with them
            (:func:`~interaction_train.game.evaluation.logits_of`).
        x: one sample or a batch ``(B, ...)``, which the players tell apart: images are
            ``(C, H, W)``, rows of features ``(F,)``, token ids ``(L,)``, embeddings of tokens
            ``(L, D)``. For other players always a batch.
        y: the classes to explain, one for all samples or one each; default: the predicted ones.
        players: ``"grid:4x4"``, cells of images in so many rows and columns; ``"features"``, the
            columns of tabular samples; ``"tokens"``, the positions along a sample's first axis
            (without the special tokens that the network keeps); or any
            :class:`~interaction_train.game.players.Players`.
        baseline: what absent players show: a number, one per channel or column, an id, a tensor
            that broadcasts to the samples, or the file of a learned baseline. Default: the mean in
            the network's ``Normalize`` or ``Standardize``, or its ``mask_id``
            (:func:`~interaction_train.game.tokens.special_ids`). Inputs that are normalised outside
            the network have theirs at 0.
        payoff: of the explained class, one of :data:`~interaction_train.game.payoffs.PAYOFFS` but
            ``"all"``, or a callable that maps logits ``(..., classes)`` and labels, which broadcast
            to ``(...)``, to floating point values ``(...)``.
        names: of the n players; default: what the players call themselves.
        classes: names of the network's classes, for titles; or a mapping of classes to them.
        network: a name for titles; default: the type of ``model``.
        budget: coalitions to evaluate for each sample, at most.
        seed: of the draws where the budget allows only a part.
        chunk_size: rows sent through the network at once; default: the fastest size.
        progress: whether to show a bar with the time left, on the standard error stream; default:
            on a terminal or in a notebook, for work of more than a few seconds.

    Raises:
        InputError: arguments that do not fit each other, a network that returns no logits, or
            probabilities where the payoff wants logits, or a payoff that is not finite.

    Examples:
        >>> import interaction_train as it
        >>> net, image = it.models.DigitsNet(), torch.rand(1, 8, 8)
        >>> explain(net, image, 3, "grid:2x2", baseline=0.3)
        Explanation(DigitsNet, log_odds, 1 sample, 4 players, exact from 16 evaluations each)
    """
    at_least("budget", budget, 1)
    question = ask(
        model, x, y, players, baseline=baseline, payoff=payoff, names=names, classes=classes,
        network=network, chunk_size=chunk_size,
    )  # fmt: skip
    game = question.game
    if 2**game.n > budget:
        return question.sampled(budget, seed, progress)
    with reported(game, "all coalitions", 2**game.n, progress):
        values = exact_values(game, 2**game.n)
    return question.exact(values)


@dataclass(frozen=True)
class Question:
    """A game to explain, and what an explanation tells beside its numbers."""

    game: MaskedGame
    about: Mapping[str, Any]

    def exact(self, values: Tensor) -> Explanation:
        """The explanation from the game's values on all coalitions, ``(B, 2^n)``."""
        values = one_number(values).cpu()
        wide = values.double()
        shapley, pairs = shapley_values(wide), shapley_interactions(wide)
        return Explanation(
            **self.about,
            values=values,
            empty=wide[:, 0],
            full=wide[:, -1],
            shapley=shapley,
            shapley_stderr=torch.zeros_like(shapley),
            pairs=pairs,
            pairs_stderr=torch.zeros_like(pairs),
            evaluations=2**self.game.n,
        )

    def sampled(self, budget: int, seed: int, progress: bool | None) -> Explanation:
        """The explanation from a budget of coalitions."""
        sampler = Sampler(self.game, budget, seed, progress)
        values, estimates = sampler.values_and_pairs()
        pairs, errors = pair_matrices(estimates, self.game.n)
        empty, full = values.ends.to("cpu", torch.float64).unbind(-1)
        return Explanation(
            **self.about,
            values=None,
            empty=empty,
            full=full,
            shapley=values.value.to("cpu", torch.float64),
            shapley_stderr=values.stderr.to("cpu", torch.float64),
            pairs=pairs,
            pairs_stderr=errors,
            evaluations=sampler.evaluations,
            sampler=sampler,
        )


def ask(
    model: nn.Module | Callable[..., Any],
    x: Tensor,
    y: int | Sequence[int] | Tensor | None,
    players: str | Players,
    *,
    baseline: Any,
    payoff: str | Payoff,
    names: Sequence[str] | None,
    classes: Sequence[str] | Mapping[int, str] | None,
    network: str | None,
    chunk_size: int | None,
) -> Question:
    """The checked question that :func:`explain` answers; arguments and errors are the same."""
    if chunk_size is not None:
        at_least("chunk_size", chunk_size, 1)
    if not callable(model):
        raise InputError("model", type(model).__name__, "a network, or a function")
    players = inputs.resolve_players(players)
    if get_payoff(payoff) is all_logits:
        raise InputError("payoff", "'all'", "one number per coalition, such as 'log_odds'")
    x = inputs.as_batch(x, players)
    x = x.to(_device(model, x))
    logits_model = logits_of(model)  # type: ignore[arg-type]  # callables run in it as well
    players = inputs.without_kept(players, logits_model, x)
    absent = inputs.resolve_baseline(baseline, logits_model, x, players)
    shown = inputs.resolve_names(names, players, x.shape[1:])
    if len(shown) < 2:
        raise InputError("players", f"{len(shown)} player", "at least 2")
    logits = inputs.predicted(logits_model, x, chunk_size)
    if payoff in ("log_odds", "log_prob"):
        refuse_probabilities(logits)
    labels = inputs.resolve_labels(y, logits)
    if classes is not None and len(classes) < logits.shape[-1]:
        raise InputError("classes", f"{len(classes)} names", f"{logits.shape[-1]}, one per class")
    owner = model if isinstance(model, nn.Module) else None
    game = MaskedGame(
        logits_model, x, absent, players, payoff, labels, chunk_size=chunk_size, owner=owner
    )
    about = {
        "x": x.cpu(),
        "labels": labels.cpu(),
        "players": players,
        "names": tuple(shown),
        "payoff": payoff if isinstance(payoff, str) else getattr(payoff, "__name__", "payoff"),
        "network": network or _name(model),
        "classes": None if classes is None else [str(classes[k]) for k in range(len(classes))],
    }
    return Question(game, about)


def _device(model: object, x: Tensor) -> torch.device:
    if not isinstance(model, nn.Module):
        return x.device
    tensors = (*model.parameters(), *model.buffers())
    return tensors[0].device if tensors else x.device


def _name(model: object) -> str:
    if isinstance(model, Logits):
        return _name(model.model)
    if isinstance(model, nn.Module):
        return type(unwrap(model)).__name__
    return getattr(model, "__name__", type(model).__name__)
