"""Small exact games, and brute-force truth about them, for the tests of losses."""

import itertools
import math

import torch
from torch import Tensor, nn

from interaction_train.game.players import GridPlayers


class Spy(nn.Module):
    """Counts and keeps the rows of a network's forward passes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.calls = network, []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(x.detach())
        return self.network(x)


class Game(nn.Module):
    """A network on images (1, 1, n) that uses interactions of all orders; cells are players."""

    def __init__(self, n: int, classes: int = 3, norm: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        middle = [nn.BatchNorm1d(8)] if norm else []
        self.first = nn.Sequential(nn.Flatten(), nn.Linear(n, 8), nn.Tanh())
        self.rest = nn.Sequential(*middle, nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, classes))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter *= 2

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.first(x))


class Kink(nn.Module):
    """v(S) = (|S| − 1 − order)_+: its only interactions are of one order, 1 for every pair.

    Present cells are 1, absent ones 0. The second class has the negative payoff.
    """

    def __init__(self, order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        value = (x.flatten(1).sum(1) - 1 - self.order).clamp(min=0)
        return torch.stack([value, -value], 1)


def grid(n: int) -> GridPlayers:
    return GridPlayers(1, n)


def images(size: int, n: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(size, 1, 1, n, generator=generator, dtype=dtype)
    return x, torch.arange(size) % 3


def values(model: nn.Module, x: Tensor, baseline: float) -> dict[frozenset, Tensor]:
    """v of every coalition, (B, classes), one forward pass after the other."""
    n = x.shape[-1]
    result = {}
    with torch.no_grad():
        for size in range(n + 1):
            for members in itertools.combinations(range(n), size):
                row = torch.full_like(x, baseline)
                row[..., list(members)] = x[..., list(members)]
                result[frozenset(members)] = model(row)
    return result


def curve(v: dict[frozenset, Tensor], n: int) -> list[Tensor]:
    """f(s), the mean of v over coalitions of each size."""
    return [
        torch.stack([value for members, value in v.items() if len(members) == size]).mean(0)
        for size in range(n + 1)
    ]


def mean_interactions(v: dict[frozenset, Tensor], n: int) -> list[Tensor]:
    """Ī^(m) for m = 0 … n−2, by its definition."""
    result = []
    for m in range(n - 1):
        terms = []
        for i, j in itertools.combinations(range(n), 2):
            others = [k for k in range(n) if k not in (i, j)]
            terms += [
                v[s | {i, j}] - v[s | {i}] - v[s | {j}] + v[s]
                for s in map(frozenset, itertools.combinations(others, m))
            ]
        result.append(torch.stack(terms).mean(0))
    return result


def mean_main_effect(v: dict[frozenset, Tensor], n: int) -> Tensor:
    return torch.stack([v[frozenset({i})] - v[frozenset()] for i in range(n)]).mean(0)


def all_draws(n: int, samples: int) -> Tensor:
    """Keys of every permutation of n players, (samples, n!, n): all draws that a loss can make."""
    permutations = torch.tensor(list(itertools.permutations(range(n))))
    assert len(permutations) == math.factorial(n)
    return permutations.expand(samples, -1, -1).contiguous()
