"""Games of few known interactions among many players."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["and", "or", "fourier"]


@dataclass(frozen=True)
class SparseGame:
    """v(S) = Σ_T w_T f_T(S) over k known sets T of n players, for B samples.

    f_T(S) is 1 where T ⊆ S (``and``), where T meets S (``or``), or Π_{i∈T} z_i with z_i = −1 for
    the players of S and 1 for the others (``fourier``); elsewhere 0.

    Attributes:
        members: bool ``(k, n)``, each set once.
        weights: float64 ``(B, k)``.
        kind: which f.
    """

    members: Tensor
    weights: Tensor
    kind: Kind

    @property
    def n(self) -> int:
        """The number of players."""
        return self.members.shape[1]

    def __call__(self, coalitions: Tensor) -> Tensor:
        """Values ``(B, K)`` of coalitions, bool ``(K, n)``."""
        members = self.members.to(self.weights)
        common = coalitions.to(self.weights) @ members.T
        if self.kind == "fourier":
            counts = 1 - 2 * (common % 2)
        elif self.kind == "or":
            counts = (common > 0).to(common)
        else:
            counts = (common == members.sum(1)).to(common)
        return self.weights @ counts.T


def sparse_game(
    n: int,
    count: int,
    *,
    active: int = 16,
    orders: tuple[int, int] = (1, 5),
    hierarchical: bool = False,
    kind: Kind = "and",
    samples: int = 1,
    seed: int = 0,
    device: str = "cpu",
) -> SparseGame:
    """A game of ``count`` sets at random; all samples have the same sets, with other weights.

    Args:
        n: number of players.
        count: sets that are drawn; ones that come twice count once.
        active: how many players the sets are drawn from.
        orders: least and most players of a set, equally frequent.
        hierarchical: with a set come all its non-empty subsets, as tree-like games have them.
        kind: see :class:`SparseGame`.
        samples: B.
        seed: of all draws. Weights are ± U(.5, 1.5).
        device: of the game.
    """
    random = torch.Generator().manual_seed(seed)
    players = torch.randperm(n, generator=random)[:active]
    sizes = torch.randint(orders[0], orders[1] + 1, (count, 1), generator=random)
    ranks = torch.rand(count, active, generator=random).argsort(1).argsort(1)
    if hierarchical:  # every subset of the first players by rank
        subset = torch.arange(1, 1 << orders[1])[:, None] >> torch.arange(orders[1]) & 1
        wanted = subset.bool()[None] & (torch.arange(orders[1]) < sizes)[:, None]
        padded = torch.nn.functional.pad(wanted, (0, max(0, active - orders[1])))
        chosen = padded.gather(-1, ranks[:, None].expand(-1, len(subset), -1)).flatten(0, 1)
    else:
        chosen = ranks < sizes
    chosen = chosen[chosen.any(1)].unique(dim=0)
    members = torch.zeros(len(chosen), n, dtype=torch.bool)
    members[:, players] = chosen
    weights = 0.5 + torch.rand(samples, len(chosen), generator=random, dtype=torch.float64)
    signs = 1 - 2 * torch.randint(2, weights.shape, generator=random)
    return SparseGame(members.to(device), (weights * signs).to(device), kind)
