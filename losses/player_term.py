"""What the losses share whose players are units of a layer or parts of the input."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from interaction_train.errors import InputError
from interaction_train.game.absence import input_baseline
from interaction_train.game.evaluation import Network, without_grad
from interaction_train.game.layers import ForwardRecord, LayerSuffix, features
from interaction_train.game.players import Players, UnitPlayers
from interaction_train.losses.base import InteractionTerm
from interaction_train.losses.order_weights import OrderWeights


class PlayerTerm(InteractionTerm):
    """A term over players at one place of the network.

    Args:
        layer: dotted name of the layer whose units are the players; absent units are 0.
        players: how the layer's output, or without ``layer`` the input, splits into players.
        baseline: what absent parts of the input show; default: the training mean per channel.
        batch_fraction: the share of the batch that the term looks at, its first rows.
        chunk_size: rows per forward pass; default: all at once.
        suffix: what follows the layer.
        seed: seed of the draws.
        name: name of the draws.

    Raises:
        InputError: an argument out of its range, or two that do not go together.
    """

    def __init__(
        self,
        layer: str | None,
        players: Players | None,
        baseline: float | Sequence[float] | None,
        batch_fraction: float,
        chunk_size: int | None,
        suffix: Network | None,
        seed: int,
        name: str | None,
    ) -> None:
        super().__init__(seed, name)
        if not 0 < batch_fraction <= 1:
            raise InputError("batch_fraction", batch_fraction, "in (0, 1]")
        if layer is None and (players is None or suffix is not None):
            raise InputError("layer", None, "a layer's name, or players that split the input")
        if layer is not None and baseline is not None:
            raise InputError("baseline", baseline, "None at a layer, whose absent units are 0")
        self.layer, self.suffix, self.baseline = layer, suffix, baseline
        self.players: Players = UnitPlayers() if players is None else players
        self.batch_fraction, self.chunk_size = batch_fraction, chunk_size

    @property
    def layers(self) -> tuple[str, ...]:
        return () if self.layer is None else (self.layer,)

    def samples(self, batch: int) -> int:
        """How many samples of a batch the term looks at."""
        return math.ceil(self.batch_fraction * batch)

    def place(
        self, model: nn.Module, x: Tensor, forward: ForwardRecord
    ) -> tuple[Network, Tensor, Tensor | float]:
        """The network over the players, what it sees where they are present, and elsewhere."""
        if self.layer is None:
            return model, x, input_baseline(model, self.baseline, x)
        network = LayerSuffix(model, self.layer, x) if self.suffix is None else self.suffix
        recorded = forward.features.get(self.layer)
        present = features(model, self.layer, x) if recorded is None else recorded[: len(x)]
        return network, present, 0.0

    def count(self, model: nn.Module, x: Tensor) -> int:
        """The number of players n of inputs such as ``x``, ``(B, ...)``."""
        if self.layer is None:
            return self.players.count(x.shape[1:])
        with without_grad(), torch.autocast(x.device.type, enabled=False):
            return self.players.count(features(model, self.layer, x[:1]).shape[1:])

    @abstractmethod
    def order_weights(self, n: int) -> OrderWeights:
        """Which orders the expected difference weighs, for n players.

        Raises:
            InputError: so few players that the setting's sizes do not exist.
        """
