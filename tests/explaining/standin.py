"""What the figures read of an explanation, from the exact indices of a packaged network."""

from dataclasses import dataclass

import torch
from torch import Tensor

import interaction_train as it


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

    def cells(self, sample: int) -> Tensor | None:
        return self.label_map

    def title(self, sample: int) -> str:
        return f"{self.network}, class {int(self.labels[sample])}, {self.payoff}"

    def spectrum(self):
        strength = self.orders.abs().sum((-1, -2)) / (len(self.names) * (len(self.names) - 1))
        value, spread = strength.mean(0), strength.var(0, correction=0) ** 0.5
        stderr = spread / (len(strength) - 1) ** 0.5 if len(strength) > 1 else value * torch.nan
        return {"orders": list(range(len(value))), "value": value, "stderr": stderr}


def digits(count: int = 4, rows: int = 3, cols: int = 3) -> StandIn:
    """The packaged digits network on test images, cells of a grid as players."""
    network = it.pretrained(it.models.DigitsNet(), "digits_cnn")
    data = it.DigitsDataModule(batch_size=count)
    data.setup()
    x, y = next(iter(data.test_dataloader()))
    grid = it.GridPlayers(rows, cols)
    game = it.MaskedGame(network, x, it.input_baseline(network, None, x), grid, "log_odds", y)
    values = it.exact_values(game)
    names = tuple(f"row {i // cols + 1}, column {i % cols + 1}" for i in range(rows * cols))
    shapley = it.shapley_values(values)
    return StandIn(
        x, y, names, "log_odds", "DigitsNet", shapley, torch.zeros_like(shapley),
        it.shapley_interactions(values), torch.zeros(len(x), rows * cols, rows * cols),
        it.multi_order_interactions(values), grid.cells(x.shape[1:]),
    )  # fmt: skip


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
