"""What is explained: players, samples, baselines and labels, as a user may give them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from interaction_train.errors import InputError, checked_classes, checked_labels
from interaction_train.game.absence import default_baseline, input_baseline
from interaction_train.game.evaluation import eval_logits
from interaction_train.game.players import GridPlayers, Players
from interaction_train.game.segments import SegmentPlayers
from interaction_train.game.tabular import FeaturePlayers
from interaction_train.game.tokens import TokenPlayers, kept_tokens, special_ids, token_baseline

_ROWS = 64  # of the forward pass that predicts
_PLAYERS = '"grid:4x4" or another grid, "features", "tokens", or such as GridPlayers(4, 4)'


def resolve_players(players: str | Players) -> Players:
    """Players by their short name; others pass through."""
    if isinstance(players, Players):
        return players
    if grid := re.fullmatch(r"grid:([1-9]\d*)x([1-9]\d*)", str(players)):
        return GridPlayers(int(grid[1]), int(grid[2]))
    if players == "features":
        return FeaturePlayers()
    if players == "tokens":
        return TokenPlayers()
    raise InputError("players", repr(players), _PLAYERS)


def without_kept(players: Players, model: nn.Module, x: Tensor) -> Players:
    """Players of single tokens without those that the network keeps present in all samples."""
    if not isinstance(players, TokenPlayers) or players.groups or x.is_floating_point():
        return players
    kept = kept_tokens(model, x).flatten(1).all(0)
    if x.dim() != 2 or not bool(kept.any()):
        return players
    names, free = players.names(x.shape[1:]), (~kept).nonzero().flatten().tolist()
    if not free:
        raise InputError("x", "special tokens alone", "a sample with other tokens")
    return TokenPlayers([[place] for place in free], names)


def as_batch(x: Any, players: Players) -> Tensor:
    """Samples ``(B, ...)``: one that comes alone is told by the axes that its players know of."""
    if not isinstance(x, Tensor):
        raise InputError("x", type(x).__name__, "a tensor, of one sample or of a batch")
    axes = None
    if isinstance(players, GridPlayers | SegmentPlayers):
        axes, sample = 3, "(C, H, W)"
    elif isinstance(players, FeaturePlayers):
        axes, sample = 1, "(features,)"
    elif isinstance(players, TokenPlayers):
        ids = not x.is_floating_point()
        axes, sample = (1, "(length,) of ids") if ids else (2, "(length, embedding)")
    if axes is not None and x.dim() < axes:
        raise InputError("x", f"shape {tuple(x.shape)}", f"one sample {sample}, or a batch of them")
    if axes == x.dim():
        x = x.unsqueeze(0)
    if x.dim() < 2 or 0 in x.shape:
        raise InputError("x", f"shape {tuple(x.shape)}", "a batch (B, ...) of one sample or more")
    return x.detach()


def resolve_baseline(baseline: Any, model: nn.Module, x: Tensor, players: Players) -> Tensor:
    """What absent players show, as a tensor that broadcasts to ``x``."""
    if isinstance(baseline, str | Path):
        return input_baseline(model, baseline, x)
    ids = isinstance(players, TokenPlayers) and not x.is_floating_point()
    known = special_ids(model) if ids else default_baseline(model)
    if baseline is None and known is None and isinstance(players, FeaturePlayers):
        raise InputError("baseline", None, "a value per column, such as the means x_train.mean(0)")
    if baseline is None and isinstance(players, TokenPlayers) and (known is None or not ids):
        expected = "what absent tokens show: the id of a mask or padding token, or its embedding"
        raise InputError("baseline", None, expected)
    if ids and (baseline is None or isinstance(baseline, int | float)):
        return token_baseline(model, baseline, x)
    if baseline is None:
        if not x.is_floating_point():
            raise InputError("x", x.dtype, "floating point values, as the mean in Normalize has")
        return input_baseline(model, None, x)
    given = as_tensor("baseline", baseline, "a number, numbers or a tensor", x.device)
    if given.is_complex() or (given.is_floating_point() and not x.is_floating_point()):
        raise InputError("baseline", baseline, f"of the inputs' dtype, {x.dtype}")
    if not x.is_floating_point() and bool((given.to(x.dtype) != given).any()):
        raise InputError("baseline", baseline, f"within the range of the inputs' dtype, {x.dtype}")
    per_channel = given.dim() == 1 and x.dim() > 2 and not isinstance(players, TokenPlayers)
    absent = input_baseline(model, given.tolist(), x) if per_channel else given
    absent = absent.to(x)
    try:
        absent.expand_as(x)
    except RuntimeError:
        expected = f"one that broadcasts to {tuple(x.shape)}"
        raise InputError("baseline", f"shape {tuple(absent.shape)}", expected) from None
    if not absent.isfinite().all():
        raise InputError("baseline", "numbers that are not finite", "finite ones")
    return absent


def resolve_labels(y: Any, logits: Tensor) -> Tensor:
    """The explained class of each sample, ``(B,)`` int64: by default the predicted one."""
    if y is None:
        return logits.argmax(-1)
    given = as_tensor("y", y, "a class, or one for each sample", logits.device)
    if given.dim() == 0 and not given.is_floating_point() and given.dtype != torch.bool:
        given = given.long().expand(len(logits))
    labels = checked_labels(given, len(logits), "y")
    checked_classes(labels, logits.shape[-1], "y")
    return labels


def resolve_names(names: Sequence[str] | None, players: Players, shape: Sequence[int]) -> list[str]:
    """A name for each player."""
    if names is None:
        return list(players.names(shape))
    n, given = players.count(shape), [str(name) for name in names]
    if isinstance(names, str) or len(given) != n:
        got = repr(names) if isinstance(names, str) else f"{len(given)} names"
        raise InputError("names", got, f"{n}, one for each player")
    return given


def predicted(network: nn.Module, x: Tensor, rows: int | None) -> Tensor:
    """The logits of the samples themselves, ``(B, classes)``."""
    return torch.cat([eval_logits(network, part) for part in x.split(rows or _ROWS)])


def as_tensor(argument: str, value: Any, expected: str, device: torch.device) -> Tensor:
    """Numbers as a tensor, or an InputError."""
    try:
        return torch.as_tensor(value, device=device)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(argument, repr(value), expected) from None
