"""Small networks and inputs to explain."""

from types import SimpleNamespace

import torch
from torch import nn

import interaction_train as it


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def filled(model: nn.Module, seed: int = 3, scale: float = 0.5) -> nn.Module:
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator(seed), dtype=p.dtype) * scale)
    return model


class ImageNet(nn.Sequential):
    """Colour images of 6 x 6 pixels, 4 classes, with BatchNorm and dropout in training mode."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__(
            it.Normalize([0.4, 0.5, 0.6], [0.2, 0.3, 0.2]),
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.Tanh(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(4 * 36, 4),
        )
        self.to(dtype)
        filled(self, scale=0.3)


def images(batch: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> torch.Tensor:
    return torch.rand(batch, 3, 6, 6, generator=generator(seed), dtype=dtype)


class Reader(nn.Module):
    """Token ids, or their embeddings ``(B, L, 5)``, to an object with logits of 3 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 5)
        self.rnn = nn.GRU(5, 6, batch_first=True)
        self.head = nn.Linear(6, 3)
        self.double()
        filled(self, scale=1.0)

    def forward(self, tokens: torch.Tensor) -> SimpleNamespace:
        embedded = self.embedding(tokens) if tokens.dim() == 2 else tokens
        return SimpleNamespace(logits=self.head(self.rnn(embedded)[0][:, -1]))


def sine(x: torch.Tensor) -> torch.Tensor:
    """Logits z and 0 of feature vectors, with interactions of all orders."""
    weights = torch.linspace(0.2, 1.1, x.shape[1], dtype=x.dtype, device=x.device)
    z = (x @ weights).sin() + x[:, 0] * x[:, 1]
    return torch.stack([z, torch.zeros_like(z)], 1)
