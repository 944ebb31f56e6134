"""Networks whose games are known."""

import torch
from torch import Tensor, nn


class Known(nn.Module):
    """Logits z and 0 with z = abc − defg + h σ(6ij − 3): the true baseline is 0."""

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d, e, f, g, h, i, j = x.unbind(-1)
        z = a * b * c - d * e * f * g + h * torch.sigmoid(6 * i * j - 3)
        return torch.stack([z, torch.zeros_like(z)], 1)


def ones(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """The sample x = 1 of the first class."""
    return torch.ones(1, 10, dtype=dtype), torch.tensor([0])


def smooth_network(columns: int) -> nn.Module:
    """Random, in float64, of three classes."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(columns, 8), nn.Tanh(), nn.Linear(8, 3)).double()
