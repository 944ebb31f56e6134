"""v(S): a network evaluated on inputs in which only the players of S are present."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from interaction_train.errors import InputError, checked_labels, checked_logits, whole
from interaction_train.game.chunks import chunk_rows, gradient_rows
from interaction_train.game.evaluation import Network, evaluation_mode, without_grad
from interaction_train.game.layers import LayerPrefix, LayerSuffix
from interaction_train.game.payoffs import Payoff, all_logits, get_payoff, margin
from interaction_train.game.players import Players
from interaction_train.game.samples import Samples, filling

ROWS = 8192  # coalitions × samples of one call, where a job comes in several


class MaskedGame:
    """The game v(S) = payoff(model(where(mask of S, present, absent))), for a batch of samples.

    Coalitions run in eval mode and leave no trace on modes, BatchNorm statistics,
    ``requires_grad``, hooks and the global RNG state.

    Args:
        model: maps ``(rows, ...)`` to logits ``(rows, classes)``, of two classes or more where the
            payoff is one of :data:`~interaction_train.game.payoffs.PAYOFFS`.
        present: ``(B, ...)``, what a sample shows where a player is present.
        absent: a number, or a tensor that broadcasts to ``present``, shown elsewhere; of token
            ids an id.
        players: how a sample splits into n players.
        payoff: one of their names, or a callable that maps logits ``(..., classes)`` and labels,
            which broadcast to ``(...)``, to floating point values ``(...)``.
        labels: ``(B,)`` int64; may be left out for the payoff ``"all"``.
        rivals: ``(B,)`` int64, the fixed rival class for the payoff ``"margin"``.
        chunk_size: rows sent through the model at once. Default: the fastest size (timed once per
            model and shape), in a differentiable call
            :func:`~interaction_train.game.chunks.gradient_rows`. A differentiable call with a
            ``chunk_size`` checkpoints every chunk: memory stays flat, for one more forward.
        owner: the module whose modes are held in eval while coalitions run; default: ``model``, or
            the network of a :class:`~interaction_train.game.layers.LayerSuffix` or ``LayerPrefix``.
        progress: called with the number of rows of every chunk, once it went through the model.
        extra: further inputs of the samples, ``(B, ...)`` each, that the model takes by their names
            and that are never masked, such as ``attention_mask``.

    Raises:
        InputError: shapes, dtypes, labels, rivals, further inputs or chunk size that do not fit, or
            players that are made for another number of samples.

    Examples:
        >>> from interaction_train.game.players import UnitPlayers
        >>> def network(x):  # two logits: x0 + 2 x1 + x0 x1, and 0
        ...     z = x[:, 0] + 2 * x[:, 1] + x[:, 0] * x[:, 1]
        ...     return torch.stack([z, torch.zeros_like(z)], 1)
        >>> x, y = torch.ones(1, 2), torch.tensor([0])
        >>> game = MaskedGame(network, x, 0.0, UnitPlayers(), labels=y)
        >>> game(torch.tensor([[False, False], [True, False], [False, True], [True, True]]))
        tensor([[0., 1., 2., 4.]])
    """

    def __init__(
        self,
        model: Network,
        present: Tensor,
        absent: Tensor | float,
        players: Players,
        payoff: str | Payoff = "logit",
        labels: Tensor | None = None,
        *,
        rivals: Tensor | None = None,
        chunk_size: int | None = None,
        owner: nn.Module | None = None,
        progress: Callable[[int], None] | None = None,
        extra: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.payoff = get_payoff(payoff)
        if not isinstance(present, Tensor):
            raise InputError("present", type(present).__name__, "a tensor (B, ...)")
        if len(present) == 0:
            raise InputError("present", f"shape {tuple(present.shape)}", "at least one sample")
        if players.samples not in (None, len(present)):
            got = f"players of {players.samples} samples, each with its own"
            raise InputError("players", got, f"as many as the batch has, {len(present)}")
        self.n = players.count(present.shape[1:])
        if labels is None and self.payoff is not all_logits:
            raise InputError("labels", None, f"class indices for the payoff {payoff!r}")
        for name, value in (("labels", labels), ("rivals", rivals)):
            if value is not None:
                checked_labels(value, len(present), name)
        if rivals is not None and self.payoff is not margin:
            raise InputError("rivals", "a tensor", "None for payoffs other than 'margin'")
        if chunk_size is not None:
            whole("chunk_size", chunk_size, 1)
        self.absent = _checked_absent(absent, present)
        self.extra = dict(extra or {})
        if isinstance(model, LayerSuffix) and {*model.inputs} != {*self.extra}:
            expected = f"{list(model.inputs)}, those that the LayerSuffix was made with"
            raise InputError("extra", list(self.extra), expected)
        for name, value in self.extra.items():
            if not isinstance(value, Tensor) or value.shape[:1] != present.shape[:1]:
                got = f"{name} of {getattr(value, 'shape', type(value).__name__)}"
                raise InputError("extra", got, f"tensors ({len(present)}, ...)")
        self.model, self.present, self.players = model, present, players
        self.labels, self.rivals, self.chunk_size = labels, rivals, chunk_size
        self.progress = progress
        if owner is None:
            inner = model.model if isinstance(model, LayerPrefix | LayerSuffix) else model
            owner = inner if isinstance(inner, nn.Module) else None
        self.owner = owner

    def __call__(self, coalitions: Tensor, *, grad: bool = False) -> Tensor:
        """Payoffs ``(B, K)``, or ``(B, K, classes)`` for ``"all"``; float32 at least.

        Args:
            coalitions: bool ``(K, n)``, the same for all samples, or ``(B, K, n)``.
            grad: whether the result is differentiable (with respect to whatever requires grad).

        Raises:
            InputError: coalitions of another dtype or shape, a model that returns no logits, or a
                payoff that returns anything but numbers for them.
        """
        coalitions = self.checked(coalitions)
        with nullcontext() if grad else without_grad():
            return self._blocks(coalitions, grad and torch.is_grad_enabled())

    def checked(self, coalitions: Tensor) -> Tensor:
        """Coalitions ``(B, K, n)`` on the game's device, of what a call takes."""
        batch = len(self.present)
        shape = tuple(coalitions.shape)
        fits = shape[-1:] == (self.n,) and 0 not in shape and shape[:-2] in ((), (batch,))
        if coalitions.dtype != torch.bool or len(shape) < 2 or not fits:
            expected = f"bool (K, {self.n}) or ({batch}, K, {self.n}) with K at least 1"
            raise InputError("coalitions", f"{coalitions.dtype} {shape}", expected)
        return coalitions.to(self.present.device).expand(batch, -1, -1)

    def _blocks(self, coalitions: Tensor, grad: bool) -> Tensor:
        batch, count, _ = coalitions.shape
        total = batch * count
        rows = self.chunk_size or self.fastest_chunk(total, grad)
        # Whole samples while they fit, so that chunks are as full as they can be.
        samples, per_sample = min(batch, max(1, rows // count)), min(count, rows)
        run: Callable[..., Tensor] = self._evaluate
        report = self.progress or (lambda rows: None)
        if grad and self.chunk_size is not None and rows < total:
            run = partial(checkpoint, run, use_reentrant=False, preserve_rng_state=False)
        parts = []
        blocks = zip(self.samples.split(samples), coalitions.split(samples), strict=True)
        for block, wanted in blocks:
            pieces = []
            for piece in wanted.split(per_sample, dim=1):
                pieces.append(run(block, piece))
                report(piece.shape[0] * piece.shape[1])
            parts.append(torch.cat(pieces, 1))
        return torch.cat(parts)

    @property
    def samples(self) -> Samples:
        """The samples, with all that a value takes of each."""
        classes = tuple(one for one in (self.labels, self.rivals) if one is not None)
        return Samples(self.players, self.present, self.absent, classes, self.extra)

    def choose_chunk(self, rows: int) -> int:
        """The chunk size for a job of so many rows; one that comes in several calls asks first."""
        return self.chunk_size or self.fastest_chunk(rows)

    def spans(self, count: int, rows: int) -> Iterator[range]:
        """Ranges of ``count`` items with so many rows of a sample each, one after the other."""
        rows *= len(self.present)
        self.choose_chunk(rows * count)
        for start in range(0, count, width := max(1, ROWS // rows)):
            yield range(count)[start : start + width]

    def fastest_chunk(self, rows: int, grad: bool = False) -> int:
        """The chunk size for so many rows where none is given."""
        if grad:
            return gradient_rows(self.present[0], rows)
        with evaluation_mode(self.owner):
            return chunk_rows(self.network, self.owner, self.present[:1], rows)

    def network(self, rows: Tensor, extra: Mapping[str, Tensor] | None = None) -> Tensor:
        """The logits of rows ``(R, ...)`` and their further inputs, by default the first sample's.

        The mode is set here, not around a whole job: a checkpointed chunk runs again in the
        backward pass, when the caller's modes are back.
        """
        if extra is None:
            first = {name: one[:1] for name, one in self.extra.items()}
            extra = {name: one.expand(len(rows), *one.shape[1:]) for name, one in first.items()}
        with evaluation_mode(self.owner):
            return checked_logits(self.model(rows, **extra), len(rows))

    def _evaluate(self, samples: Samples, coalitions: Tensor) -> Tensor:
        logits = self.network(*samples.rows(coalitions))
        return samples.read(self.payoff, logits.unflatten(0, coalitions.shape[:2]))


def _checked_absent(absent: Tensor | float, present: Tensor) -> Tensor:
    """What absent elements show, as large as ``present``."""
    if not isinstance(absent, Tensor):
        absent = filling("absent", absent, present)
    elif not present.is_floating_point() and absent.dtype != present.dtype:
        if absent.is_floating_point():
            raise InputError("absent", absent.dtype, f"ids, as present is {present.dtype}")
        if bool((absent.to(present) != absent.to(present.device)).any()):
            raise InputError("absent", "ids out of its range", f"ids of {present.dtype}")
    try:
        return absent.to(present).expand_as(present)
    except RuntimeError:
        expected = f"one that broadcasts to {tuple(present.shape)}"
        raise InputError("absent", f"shape {tuple(absent.shape)}", expected) from None
