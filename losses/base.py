"""The base classes of the loss terms."""

from __future__ import annotations

import copy
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from interaction_train.errors import InputError, checked_labels, in_range
from interaction_train.game.absence import Baseline, input_baseline, read_baseline
from interaction_train.game.evaluation import Network, unwrap, without_grad
from interaction_train.game.layers import ForwardRecord, LayerSuffix, features
from interaction_train.game.masked import MaskedGame
from interaction_train.game.players import Players, UnitPlayers
from interaction_train.losses.order_weights import OrderWeights, order_weights
from interaction_train.sampling.random import Draws, content_hash


def show_shared(cls: Any, without: Sequence[str] = ()) -> None:
    """Show in a class's signature what its ``**shared`` passes on to the parent."""
    shown = list(inspect.signature(cls.__init__).parameters.values())[1:]
    if shown and shown[-1].kind is inspect.Parameter.VAR_KEYWORD:
        shown.pop()
        names = {*without, *(p.name for p in shown)}
        above = inspect.signature(cls.__mro__[1]).parameters.values()
        keyword = inspect.Parameter.KEYWORD_ONLY
        shown += [p.replace(kind=keyword) for p in above if p.name not in names]
    cls.__signature__ = inspect.Signature(shown)


_ROUNDING = 64  # units in the last place of what values differ by
_OWN = 4  # of the largest value itself, whose rounding four values bring along
_HALF = (torch.float16, torch.bfloat16)
_ENOUGH = 8  # differences that tell


class InteractionTerm(nn.Module, ABC):
    """A differentiable scalar of a network and a batch, to be added to a training loss.

    In a plain loop: ``loss = criterion(model(x), y) + weight * term(model, x, y)``. Where the main
    forward pass runs inside :func:`~interaction_train.game.layers.record`, the record saves the
    term from running its own. A term has no weights: its state dict is empty.

    Args:
        seed: seed of the term's draws.
        name: name of the draws; default: the class's. Two terms of one class need different names
            or seeds to draw independently.
    """

    __signature__: inspect.Signature

    def __init__(self, seed: int = 0, name: str | None = None) -> None:
        super().__init__()
        self.seed = seed
        self.name = type(self).__name__ if name is None else name
        self._calls = 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        show_shared(cls)

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers whose outputs the term wants recorded during the main forward pass."""
        return ()

    def forward(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        forward: ForwardRecord | None = None,
        step: int | None = None,
    ) -> Tensor:
        """The term's value, a scalar.

        Args:
            model: the network, ``(B, ...)`` → ``(B, classes)``.
            x: inputs ``(B, ...)``.
            y: labels ``(B,)`` int64, or the classes' probabilities ``(B, classes)`` (mixup).
            forward: record of the main forward pass on the same ``x``.
            step: the global micro-batch counter that the draws depend on; default: the calls.

        Raises:
            InputError: inputs, labels or a network that do not fit the term.
        """
        if step is None:
            step = self._calls
            self._calls += 1
        return self.compute(model, x, y, forward or ForwardRecord(), step)

    @abstractmethod
    def compute(
        self, model: nn.Module, x: Tensor, y: Tensor, forward: ForwardRecord, step: int
    ) -> Tensor:
        """The value, with the record (perhaps empty) and the step given."""

    def draws(self, x: Tensor, step: int) -> Draws:
        """The term's random numbers for samples ``x`` at a step."""
        return Draws(content_hash(x), self.seed, self.name, step)

    def extra_repr(self) -> str:
        """The settings that differ from the defaults."""
        shown = {}
        for name, parameter in inspect.signature(type(self)).parameters.items():
            value = getattr(self, name, parameter.default)
            default = type(self).__name__ if name == "name" else parameter.default
            value = getattr(value, "__name__", value)  # of a payoff
            if value is not default and value != default:
                shown[name] = type(value).__name__ if isinstance(value, nn.Module) else repr(value)
        return ", ".join(f"{name}={value}" for name, value in shown.items())


class PlayerTerm(InteractionTerm):
    """A term over players at one place of the network.

    Args:
        players: how the input, or a layer's output, splits into players; default at a layer: every
            element.
        layer: dotted name of the layer whose units are the players, such as ``"classifier.6"``;
            absent units are 0. Default: players are parts of the input.
        baseline: what absent parts of the input show: a number, one per channel, or the file of a
            :class:`~interaction_train.baselines.LearnedBaseline`; default: the training mean per
            channel that the network's ``Normalize`` layer holds.
        batch_fraction: the part of the batch that the term looks at, its first rows.
        chunk_size: rows per forward pass; chunks are checkpointed, so memory stays flat. Default:
            as many as are fast (:func:`~interaction_train.game.chunks.gradient_rows`), in memory.
        suffix: what follows the layer, where a legal layer's output cannot be replaced.
        **shared: the settings of :class:`InteractionTerm`.

    Raises:
        InputError: an argument out of its range, or two that do not go together.
    """

    suffix: Network | None

    def __init__(
        self,
        players: Players | None = None,
        layer: str | None = None,
        *,
        baseline: Baseline | Sequence[float] | None = None,
        batch_fraction: float = 1.0,
        chunk_size: int | None = None,
        suffix: Network | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        in_range("batch_fraction", batch_fraction, 0, 1, above=True)
        if layer is None and (players is None or suffix is not None):
            raise InputError("layer", None, "a layer's name, or players that split the input")
        if layer is not None and not isinstance(layer, str):
            raise InputError("layer", type(layer).__name__, "the layer's dotted name, a string")
        if players is not None and not isinstance(players, Players):
            raise InputError("players", repr(players), "such as GridPlayers(4, 4)")
        if layer is not None and baseline is not None:
            raise InputError("baseline", baseline, "None at a layer, whose absent units are 0")
        if isinstance(baseline, str):
            read_baseline(baseline)
        self.layer, self.baseline = layer, baseline
        self.players: Players = UnitPlayers() if players is None else players
        self.batch_fraction, self.chunk_size = batch_fraction, chunk_size
        self.__dict__["suffix"] = suffix  # the network's own weights, which are not the term's
        self._looked = False

    @property
    def layers(self) -> tuple[str, ...]:
        return () if self.layer is None else (self.layer,)

    def n_samples(self, batch: int) -> int:
        """How many samples of a batch the term looks at."""
        return math.ceil(self.batch_fraction * batch)

    def place(
        self, model: nn.Module, x: Tensor, forward: ForwardRecord
    ) -> tuple[Callable[..., MaskedGame], Tensor]:
        """What builds games over the players from ``present``, and ``present`` for samples x."""
        network: Network = model
        present = x
        if self.layer is not None:
            network = LayerSuffix(model, self.layer, x) if self.suffix is None else self.suffix
            recorded = forward.features.get(self.layer)
            present = features(model, self.layer, x) if recorded is None else recorded[: len(x)]

        def build(present: Tensor, **settings: Any) -> MaskedGame:
            absent: Tensor | float = 0.0
            if self.layer is None:
                absent = input_baseline(model, self.baseline, present)
            return MaskedGame(
                network, present, absent, self.players,
                chunk_size=self.chunk_size, owner=unwrap(model), **settings,
            )  # fmt: skip

        return build, present

    def same_empty(self, present: Tensor) -> bool:
        """Whether v(∅) is the same for every sample: all that is shown is the baseline."""
        everything = self.players.background(present.shape[1:]) is None
        return everything and (self.layer is not None or present.is_floating_point())

    def count(self, model: nn.Module, x: Tensor) -> int:
        """The number of players n of inputs such as ``x``, ``(B, ...)``."""
        if self.layer is None:
            return self.players.count(x.shape[1:])
        with without_grad(), torch.autocast(x.device.type, enabled=False):
            return self.players.count(features(model, self.layer, x[:1]).shape[1:])

    def warn_of_nothing(
        self,
        model: nn.Module,
        x: Tensor,
        values: Sequence[Tensor],
        delta: Tensor,
        again: Callable[[nn.Module, Tensor], object],
    ) -> None:
        """Warn, at the first call, of second differences of values that are all rounding noise.

        What looks so in half precision is computed ``again``, on a float32 copy of network and x.
        """
        if self._looked or torch.compiler.is_compiling() or delta.numel() < _ENOUGH:
            return
        self._looked = True
        low, high = torch.cat([part.detach().flatten() for part in values]).aminmax()
        largest, own = delta.detach().abs().max(), _OWN * torch.maximum(-low, high)
        if computes_in_half(model, x):
            if bool(largest < torch.finfo(torch.bfloat16).eps * own):
                self._again_in_float32(model, x, again)
            return
        bound = torch.maximum(_ROUNDING * (high - low), own)
        if bool(largest < torch.finfo(delta.dtype).eps * bound):
            where = "the input" if self.layer is None else f"layer {self.layer!r}"
            rank_zero_warn(
                f"{type(self).__name__} {self.name!r}: the payoff is additive over the players of "
                f"{where}, on the first batch at least, so that there is no interaction to train. "
                "Take an earlier layer, or for the interaction loss another payoff."
            )

    def _again_in_float32(
        self, model: nn.Module, x: Tensor, again: Callable[[nn.Module, Tensor], object]
    ) -> None:
        self._looked = False
        x = x.float() if x.is_floating_point() else x
        # Networks that cannot be copied, or insist on their dtype, are not looked at.
        own = suppress(RuntimeError, TypeError, ValueError, AttributeError)
        with own, without_grad(), torch.autocast(x.device.type, enabled=False):
            again(copy.deepcopy(unwrap(model)).float(), x)
        self._looked = True

    @abstractmethod
    def told_orders(self, n: int) -> str:
        """Which orders the term is about for n players, in a line; raises InputError of too few."""


class CurveTerm(PlayerTerm):
    """A term whose differences of v weigh sizes of coalitions, and so orders, in a known way."""

    @abstractmethod
    def curve(self, n: int) -> dict[int, float]:
        """The expected difference of v: size of a coalition → coefficient of the mean v there.

        Raises:
            InputError: too few players.
        """

    def order_weights(self, n: int) -> OrderWeights:
        """Which orders the expected difference weighs, for n players; raises as :meth:`curve`."""
        return order_weights(n, self.curve(n))

    def told_orders(self, n: int) -> str:
        return str(self.order_weights(n))


def computes_in_half(model: nn.Module, x: Tensor) -> bool:
    """Whether a network runs in half precision, by itself or under autocast."""
    tensors = (x, *model.parameters())
    return torch.is_autocast_enabled(x.device.type) or any(t.dtype in _HALF for t in tensors)


def checked_batch(x: Tensor, y: Tensor) -> None:
    """Refuse what is no batch of inputs and hard or soft labels; no host synchronisation.

    Raises:
        InputError: x is no tensor ``(B, ...)``, or y neither int64 ``(B,)`` nor floats
            ``(B, classes)``.
    """
    if not isinstance(x, Tensor) or x.dim() < 2:
        got = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise InputError("x", got, "a tensor (B, ...)")
    if not (is_soft(y) and y.dim() == 2 and len(y) == len(x)):
        checked_labels(y, len(x), "y")


def is_soft(y: Tensor) -> bool:
    """Whether labels are probabilities of the classes, ``(B, classes)``, instead of indices."""
    return isinstance(y, Tensor) and y.is_floating_point()


def hard(y: Tensor) -> Tensor:
    """The labels ``(B,)``; of probabilities the largest class."""
    return y.argmax(1) if is_soft(y) else y
