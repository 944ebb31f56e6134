"""One backward pass through a network under other rules, from the label's logit to its input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from interaction_train.attributions.gradients import pass_rows, player_sums, require_floats
from interaction_train.errors import InputError, checked_logits
from interaction_train.game.evaluation import Network, evaluation_mode, unwrap
from interaction_train.game.function_mode import FunctionMode
from interaction_train.game.masked import MaskedGame
from interaction_train.game.normalize import normalize_layer
from interaction_train.game.payoffs import logit

_TOLERANCE = 1e-4  # of Σ|a|, by which a sum may miss the change of the logit

_ZERO = 1e-5  # of a baseline after normalisation, in standard deviations


def plain_network(game: MaskedGame) -> Network:
    """The game's network, uncompiled, for methods that explain the label's logit.

    Raises:
        InputError: another payoff.
    """
    if game.payoff is not logit:
        name = getattr(game.payoff, "__name__", type(game.payoff).__name__)
        raise InputError("payoff", repr(name), "'logit', which back-propagation methods explain")
    return unwrap(game.model) if isinstance(game.model, nn.Module) else game.model


def label_logits(
    network: Network,
    rows: Tensor,
    labels: Tensor,
    owner: object,
    rules: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Tensor:
    """The differentiable logits ``(rows,)`` of the labels, from a network in eval, under a mode."""
    with evaluation_mode(owner), rules():
        output = network(rows)
    return logit(checked_logits(output, len(rows)), labels)


@torch.inference_mode(False)
def pair_attributions(game: MaskedGame, rules: Callable[[], FunctionMode]) -> Tensor:
    """m_i (x_i − b_i) ``(B, n)``, with the multipliers m of a mode for pairs of x and b.

    Raises:
        InputError: a payoff other than ``logit``, a function without rule, or a sum that misses
            f(x) − f(b) by more than 1e-4 of Σ|a|.
    """
    require_floats(game)
    network, found, logits = plain_network(game), [], []
    size = max(1, pass_rows(game, 2 * len(game.present)) // 2)
    for present, absent, y in game_parts(game, size):
        x = present.requires_grad_()
        with torch.enable_grad():
            pair = torch.cat([x, absent])  # no leaf: it depends on the input
            values = label_logits(network, pair, y.repeat(2), game.owner, rules)
            value = values[: len(x)]
            elements = gradient_of(value, x, torch.ones_like(value)) * (x.detach() - absent)
        found.append(elements.to(values.dtype))
        logits.append(values.detach().view(2, -1))
    elements = torch.cat(found)
    _check_sum(elements.flatten(1), torch.cat(logits, 1), game.present.dtype)
    return player_sums(game, elements)


@torch.inference_mode(False)
def relevances(game: MaskedGame, rules: Callable[[], FunctionMode]) -> Tensor:
    """Relevances ``(B, n)`` of a mode whose gradients they are, of the normalised input.

    Raises:
        InputError: a payoff other than ``logit``, a function without rule, or a baseline that is
            not 0 after :class:`~..game.normalize.Normalize`.
    """
    require_floats(game)
    network, found = plain_network(game), []
    normalize = normalize_layer(network) if isinstance(network, nn.Module) else None
    for present, absent, y in game_parts(game, pass_rows(game, len(game.present))):
        x, base = (rows if normalize is None else normalize(rows) for rows in (present, absent))
        if float(base.abs().max()) > _ZERO:
            where, expected = "", "0"
            if normalize is not None:
                where, expected = " after the layer Normalize", "the mean of that layer"
            raise InputError("absent", f"a baseline that is not 0{where}", expected)
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            start = x.clone()  # no leaf: it depends on the input
            rows = start if normalize is None else present
            with _replaced(normalize, start):
                values = label_logits(network, rows, y, game.owner, rules)
            found.append(gradient_of(values, x, values.detach()).to(values.dtype))
    return player_sums(game, torch.cat(found))


@contextmanager
def _replaced(layer: nn.Module | None, output: Tensor) -> Iterator[None]:
    """A layer's output, given."""
    if layer is None:
        yield
        return
    calls: list[None] = []

    def replace(*_: object) -> Tensor:
        calls.append(None)
        return output

    with layer.register_forward_hook(replace):
        yield
    if len(calls) != 1:
        got = f"a network that calls its layer Normalize {len(calls)} times"
        raise InputError("model", got, "one that calls it once")


def game_parts(game: MaskedGame, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Copies of inputs, baselines and labels, so many samples at a time.

    Tensors made in inference mode cannot take part in a backward pass; their copies can.
    """
    assert game.labels is not None  # the payoff is logit
    tensors = (game.present.detach(), game.absent.detach(), game.labels.to(game.present.device))
    for present, absent, y in zip(*(t.split(size) for t in tensors), strict=True):
        yield present.clone(), absent.clone(), y.clone()


def gradient_of(values: Tensor, x: Tensor, weights: Tensor) -> Tensor:
    """d(Σ weights · values)/dx; zeros where nothing depends on x."""
    if not values.requires_grad:
        return torch.zeros_like(x)
    return torch.autograd.grad(values, x, weights, materialize_grads=True)[0]


def _check_sum(elements: Tensor, logits: Tensor, dtype: torch.dtype) -> None:
    """That elements ``(B, ...)`` sum to the change of logits ``(2, B)``, by one host sync."""
    size = elements.abs().sum(1)
    rounding = 512 * torch.finfo(dtype).eps * logits.abs().amax(0)
    missed = (elements.sum(1) - (logits[0] - logits[1])).abs()
    wrong = ~(missed <= _TOLERANCE * size + rounding)  # also when NaN
    if bool(wrong.any()):
        worst = (missed / size)[wrong].max()
        got = f"a network whose attributions miss f(x) - f(b) by {float(worst):.2g} of their size"
        raise InputError(
            "model", got, "one that neither compares nor detaches numbers that depend on its input"
        )
