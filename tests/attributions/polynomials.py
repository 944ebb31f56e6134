"""Polynomials, whose Taylor effects at any baseline are known."""

import itertools
import math

import torch

import interaction_train as it


class Polynomial(torch.nn.Module):
    """Two logits: Σ_k c_k Π x_i^{m_ki}, and 0."""

    def __init__(self, terms: dict[tuple[int, ...], float]) -> None:
        super().__init__()
        self.terms = terms

    def forward(self, x):
        total = 0 * x.sum(1)
        for powers, c in self.terms.items():
            term = c + 0 * total
            for i, m in enumerate(powers):
                for _ in range(m):
                    term = term * x[:, i]
            total = total + term
        return torch.stack([total, 0 * total], 1)

    def effects(self, x, b) -> dict[tuple[int, ...], float]:
        """I(κ) of the expansion at b, by the binomial theorem for (b_i + d_i)^{m_i}."""
        found: dict[tuple[int, ...], float] = {}
        for powers, c in self.terms.items():
            for kappa in itertools.product(*(range(m + 1) for m in powers)):
                value = c
                for i, (m, k) in enumerate(zip(powers, kappa, strict=True)):
                    value *= math.comb(m, k) * b[i] ** (m - k) * (x[i] - b[i]) ** k
                found[kappa] = found.get(kappa, 0.0) + value
        return found


def game_of(network, x, b=0.0, **options) -> it.MaskedGame:
    """Every input is a player, the first logit is the payoff."""
    x = torch.as_tensor(x, dtype=torch.float64)
    x = x if x.dim() == 2 else x[None]
    labels = torch.zeros(len(x), dtype=torch.int64)
    b = torch.as_tensor(b, dtype=torch.float64)
    return it.MaskedGame(network, x, b, it.UnitPlayers(), "logit", labels, **options)


def index(players) -> int:
    return sum(1 << i for i in players)


SHEET = Polynomial({(1, 0, 0): 1.0, (3, 0, 0): 1.0, (1, 1, 2): 1.0, (3, 1, 2): 1.0})
ANTISYMMETRIC = Polynomial({(2, 1): 1.0, (1, 2): -1.0})


def tensor(*rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def close(got, expected, atol=1e-10) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(got, expected, rtol=0, atol=atol)
