"""Games at other inputs: a method on masked inputs, and its mean over several baselines."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from interaction_train.attributions.gradients import pass_rows
from interaction_train.errors import InputError
from interaction_train.game.masked import MaskedGame
from interaction_train.game.samples import masked_rows


def game_at(game: MaskedGame, samples: Tensor, present: Tensor, absent: Tensor) -> MaskedGame:
    """The game of other inputs and baselines ``(R, ...)``, of the classes of samples ``(R,)``."""
    return MaskedGame(
        game.model,
        present,
        absent,
        game.players.part(samples),
        game.payoff,
        None if game.labels is None else game.labels[samples],
        rivals=None if game.rivals is None else game.rivals[samples],
        chunk_size=game.chunk_size,
        owner=game.owner,
        progress=game.progress,
    )


def masked_attributions(
    game: MaskedGame, coalitions: Tensor, method: Callable[[MaskedGame], Tensor]
) -> Tensor:
    """A(x_T) for coalitions T, bool ``(K, n)``, and the game's baseline: ``(B, m, K)``.

    ``method`` gives ``(R, m)`` for a game of R samples; memory beyond the result is flat.
    """
    device, (batch, *_) = game.present.device, game.present.shape
    rows = pass_rows(game, batch * len(coalitions))
    parts = []
    for some in coalitions.to(device).split(max(1, rows // batch)):
        samples = torch.arange(batch, device=device).repeat_interleave(len(some))
        each = some.expand(batch, -1, -1)
        inputs = masked_rows(game.present, game.absent, game.players, each).flatten(0, 1)
        found = method(game_at(game, samples, inputs, game.absent[samples]))
        parts.append(found.unflatten(0, (batch, len(some))).transpose(1, 2))
    return torch.cat(parts, -1)


def over_baselines(
    game: MaskedGame,
    absents: Tensor,
    method: Callable[[MaskedGame], Tensor],
    rows: int | None = None,
) -> Tensor:
    """The mean ``(B, ...)`` of what a method gives for K baselines in turn, in place of the game's.

    Args:
        game: its own baseline is not used.
        absents: ``(K, ...)``, each of which broadcasts to the samples ``(B, ...)``.
        method: gives ``(R, ...)`` for a game of R samples.
        rows: how large R may be, if it is more than B. Default: as many as go through a network at
            once with gradient.

    Raises:
        InputError: no baselines, or ones that do not broadcast.
    """
    present = game.present
    baselines = checked_absents(game, absents)
    count, batch = baselines.shape[:2]
    rows = rows or pass_rows(game, count * batch)
    total: Tensor | None = None
    for some in baselines.split(max(1, rows // batch)):
        samples = torch.arange(batch, device=present.device).repeat(len(some))
        found = method(game_at(game, samples, present[samples], some.flatten(0, 1)))
        found = found.unflatten(0, (len(some), batch)).sum(0)
        total = found if total is None else total + found
    assert total is not None
    return total / count


def checked_absents(game: MaskedGame, absents: Tensor) -> Tensor:
    """Baselines ``(K, ...)``, expanded to ``(K, B, ...)``, in the dtype of the samples."""
    shape = tuple(game.present.shape)
    expected = f"(K, ...) with K at least 1, of which each broadcasts to {shape}"
    if not isinstance(absents, Tensor) or absents.dim() == 0 or len(absents) == 0:
        got = f"shape {tuple(absents.shape)}" if isinstance(absents, Tensor) else absents
        raise InputError("absents", got, expected)
    missing = len(shape) + 1 - absents.dim()
    if missing >= 0:
        aligned = absents.reshape(len(absents), *(1,) * missing, *absents.shape[1:])
        try:
            return aligned.to(game.present).expand(-1, *shape)
        except RuntimeError:
            pass
    raise InputError("absents", f"shape {tuple(absents.shape)}", expected)
