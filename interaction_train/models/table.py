"""A network for tables."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from interaction_train.errors import InputError
from interaction_train.game.normalize import Standardize
from interaction_train.models.networks import linear_layers


class TableMLP(nn.Module):
    """A multilayer perceptron on standardised columns, ``(B, F)`` → ``(B, num_classes)``.

    Layers: ``standardize``; ``features``, a linear layer, a ReLU and a dropout per hidden layer;
    ``classifier``.

    Args:
        features: number of columns F.
        num_classes: number of logits.
        hidden: units of each hidden layer.
        dropout: probability after each hidden layer; 0 for none.
        mean: training mean per column; default: that of the ``TableDataModule`` it is fitted to.
        std: standard deviation per column.

    Raises:
        InputError: an argument out of its range, inputs of another shape, or a forward pass before
            mean and std are known.
    """

    def __init__(
        self,
        features: int,
        num_classes: int = 2,
        hidden: Sequence[int] = (64, 64),
        dropout: float = 0.0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if not hidden or min(hidden) < 1:
            raise InputError("hidden", hidden, "one size per hidden layer, each at least 1")
        self.standardize = Standardize(features, mean, std)
        drops = [None, *[dropout] * len(hidden)]
        _, *layers, last = linear_layers([features, *hidden, num_classes], drops)
        self.features, self.classifier = nn.Sequential(*layers), last

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(self.standardize(x)))
