"""Explanations to draw: a real one, and numbers of any size."""

from dataclasses import dataclass

import torch
from torch import Tensor

import interaction_train as it
from interaction_train.explaining import Explanation, explain


@dataclass
class StandIn:
    """The attributes of an ``Explanation`` that figures rely on."""

    x: Tensor
    labels: Tensor
    names: tuple[str, ...]
    payoff: str
    network: str
    shapley: Tensor
    shapley_stderr: Tensor
    pairs: Tensor
    pairs_stderr: Tensor
    orders: Tensor
    label_map: Tensor | None

    at = Explanation.at

    def __len__(self) -> int:
        return len(self.x)

    def cells(self, sample: int) -> Tensor | None:
        return self.label_map

    def title(self, sample: int) -> str:
        return f"{self.network}, class {int(self.labels[sample])}, {self.payoff}"

    def spectrum(self):
        strength = self.orders.abs().sum((-1, -2)) / (len(self.names) * (len(self.names) - 1))
        value, spread = strength.mean(0), strength.var(0, correction=0) ** 0.5
        stderr = spread / (len(strength) - 1) ** 0.5 if len(strength) > 1 else value * torch.nan
        return {"orders": list(range(len(value))), "value": value, "stderr": stderr}


def digits() -> Explanation:
    """The packaged digits network on four test images, the cells of a grid as players."""
    network = it.pretrained(it.models.DigitsNet(), "digits_cnn")
    data = it.DigitsDataModule(batch_size=4)
    data.setup()
    x, y = next(iter(data.test_dataloader()))
    return explain(network, x, y, "grid:3x3")


def drawn(n: int, x: Tensor, label_map: Tensor | None, names: tuple[str, ...] = ()) -> StandIn:
    """Numbers of any size, the same every time; ``x`` of one sample."""
    random = torch.Generator().manual_seed(n)
    shapley = torch.randn(1, n, generator=random, dtype=torch.float64)
    pairs = torch.randn(1, n, n, generator=random, dtype=torch.float64) ** 3
    pairs = pairs.triu(1) + pairs.triu(1).mT
    orders = torch.randn(1, n - 1, n, n, generator=random, dtype=torch.float64)
    names = names or tuple(f"player {i}" for i in range(n))
    return StandIn(
        x[None], torch.tensor([3]), names, "logit", "ResNet-18", shapley, 0.2 + 0 * shapley,
        pairs, 0.1 + 0 * pairs, orders, label_map,
    )  # fmt: skip


def segments(size: int = 224) -> Tensor:
    """A label map of 16 regions that are no rectangles."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    seeds = torch.rand(16, 2, generator=torch.Generator().manual_seed(0)) * size
    return ((y[..., None] - seeds[:, 0]) ** 2 + (x[..., None] - seeds[:, 1]) ** 2).argmin(-1)
