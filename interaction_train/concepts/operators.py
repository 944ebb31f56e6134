"""K, which sums concepts to values, and the eigenvectors of K Kᵀ, both in about O(n 2^n).

K maps x = (AND, OR), ``(..., 2, 2^n)``, to values ``(..., 2^n)``; the AND of ∅ is the constant, and
the OR of ∅ adds nothing. With A = [[1, 1], [1, 2]] and B = [[2, 1], [1, 1]]

    K Kᵀ = A^{⊗n} + B^{⊗n} + 2^n 1 1ᵀ − c 1ᵀ − 1 cᵀ,   c(S) = 2^{n−|S|}.

Every term is the n-fold power of a 2 × 2 matrix, or a symmetric tensor, and so commutes with the
permutations of players. By Schur–Weyl duality one orthogonal change of basis makes all of them
block diagonal at once, with blocks of at most n + 1: the coupling of n spins ½, whose blocks are
total spins d/2 and whose entries are symmetric powers Sym^d of the 2 × 2 matrices. Players are
coupled one after the other (Clebsch–Gordan coefficients of a spin and a spin ½).
"""

from __future__ import annotations

import math
from functools import lru_cache, reduce
from itertools import accumulate

import numpy as np
import torch
from numpy.polynomial.polynomial import polymul, polypow
from torch import Tensor

from interaction_train.indices.exact import all_coalitions

_AND = torch.tensor([[1.0, 1.0], [1.0, 2.0]], dtype=torch.float64)  # Z Zᵀ of one player
_OR = torch.tensor([[2.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
_ZETA = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
_DENSE = 6  # players whose transform is one matrix product


class Operators:
    """K, Kᵀ and (K Kᵀ + τ I)⁻¹ for n ≥ 1 players on a device, float64.

    Attributes:
        lam: ``(2^n,)``, the eigenvalues of K Kᵀ, in the order of :meth:`spectral`.
    """

    def __init__(self, n: int, device: torch.device) -> None:
        self.n = n
        count = -(-n // _DENSE)  # of factors of the n-fold power, alike in size
        sizes = [n * (k + 1) // count - n * k // count for k in range(count)]
        self._zeta = [_power(_ZETA, size).to(device) for size in sizes]
        self._first = _power(torch.eye(2, dtype=torch.float64), min(n, _DENSE))
        self._steps: list[_Coupling] = []
        paths = {1: 1}  # total spin d/2 → in how many ways the players so far make it
        for players in range(2, n + 1):
            step, paths = _couple(paths, 1 << (players - 1))
            if players <= _DENSE:
                self._first = step.there(self._first.view(-1, 1 << players)).view_as(self._first)
            else:
                self._steps.append(step.to(device))
        self._first = self._first.to(device)
        self._blocks = []
        eigenvalues = []
        constants = self._couple(_symmetric(n, device))[:, : n + 1].cpu()
        for d in sorted(paths, reverse=True):
            matrix = _symmetric_power(_AND, d) + _symmetric_power(_OR, d)
            if d == n:
                one, c = constants
                both = torch.outer(one, c)
                matrix = matrix + 2.0**n * torch.outer(one, one) - both - both.T
            values, vectors = torch.linalg.eigh(matrix)
            eigenvalues.append(values.repeat(paths[d]))
            self._blocks.append((paths[d], vectors.to(device)))
        self.lam = torch.cat(eigenvalues).clamp(min=torch.finfo(torch.float64).eps).to(device)

    def values(self, x: Tensor) -> Tensor:
        """K x: the values ``(..., 2^n)`` of ANDs and ORs ``(..., 2, 2^n)``."""
        # The OR of ∅ is in both sums over ORs, and cancels.
        ands, ors = self._kron(x).unbind(-2)
        return ands + x[..., 1, :].sum(-1, keepdim=True) - ors.flip(-1)

    def adjoint(self, y: Tensor) -> Tensor:
        """Kᵀ y, ``(..., 2^n)`` → ``(..., 2, 2^n)``."""
        result = self._kron(torch.stack([y, y.flip(-1)], -2), transposed=True)
        result[..., 1, :] = y.sum(-1, keepdim=True) - result[..., 1, :]
        result[..., 1, 0] = 0
        return result

    def solve(self, y: Tensor, tau: Tensor | float = 0.0) -> Tensor:
        """(K Kᵀ + τ I)⁻¹ y; τ broadcasts to ``(..., 1)``."""
        return self.from_spectral(self.spectral(y) / (self.lam + tau))

    def spectral(self, y: Tensor) -> Tensor:
        """Coefficients of y on the eigenvectors of K Kᵀ, ``(..., 2^n)``."""
        return self._each_block(self._couple(y), transposed=False)

    def from_spectral(self, coefficients: Tensor) -> Tensor:
        """The inverse of :meth:`spectral`, and its transpose."""
        y = self._each_block(coefficients, transposed=True)
        for step in reversed(self._steps):
            y = step.back(y.reshape(-1, step.size)).view_as(y)
        first = self._first
        return (y.reshape(-1, len(first)) @ first.T).view_as(y)

    def _couple(self, y: Tensor) -> Tensor:
        result = (y.reshape(-1, len(self._first)) @ self._first).view_as(y)
        for step in self._steps:
            result = step.there(result.view(-1, step.size)).view_as(y)
        return result

    def _each_block(self, y: Tensor, *, transposed: bool) -> Tensor:
        parts = y.split([paths * len(vectors) for paths, vectors in self._blocks], -1)
        found = [
            (part.reshape(-1, len(vectors)) @ (vectors.T if transposed else vectors)).view_as(part)
            for part, (_, vectors) in zip(parts, self._blocks, strict=True)
        ]
        return torch.cat(found, -1)

    def _kron(self, x: Tensor, *, transposed: bool = False) -> Tensor:
        """Sums over subsets (or, transposed, over supersets), ``(..., 2^n)``."""
        result = x.reshape(-1, *(len(factor) for factor in reversed(self._zeta)))
        for factor in reversed(self._zeta):  # each product moves its axis to the end
            result = torch.tensordot(result, factor if transposed else factor.T, dims=([1], [0]))
        return result.reshape(x.shape)


class _Coupling:
    """An orthogonal map of which every row and column has two entries: two looks and a sum."""

    def __init__(self, place: Tensor, weight: Tensor) -> None:
        self.size = place.shape[1]
        order = place.flatten().argsort(stable=True).view(-1, 2).T
        self.place, self.weight = place, weight
        self.back_place, self.back_weight = order % self.size, weight.flatten()[order]

    def to(self, device: torch.device) -> _Coupling:
        self.place, self.back_place = (p.int().to(device) for p in (self.place, self.back_place))
        self.weight, self.back_weight = (w.to(device) for w in (self.weight, self.back_weight))
        return self

    def there(self, x: Tensor) -> Tensor:
        return _look(x, self.place, self.weight)

    def back(self, x: Tensor) -> Tensor:
        return _look(x, self.back_place, self.back_weight)


def _look(x: Tensor, place: Tensor, weight: Tensor) -> Tensor:
    first = x.index_select(-1, place[0]).mul_(weight[0])
    return first.addcmul_(x.index_select(-1, place[1]), weight[1])


def _couple(paths: dict[int, int], size: int) -> tuple[_Coupling, dict[int, int]]:
    """Add a player to those coupled, whose blocks lie by falling d, each ``(paths, d + 1)``.

    Entry k of a block has as many players present, beyond the pairs that cancel. The new player's
    bit is the highest: present, an entry lies ``size`` further on.
    """
    ends = accumulate((ways * (d + 1) for d, ways in paths.items()), initial=0)
    start = dict(zip(paths, ends, strict=False))
    places: dict[int, list[Tensor]] = {}
    weights: dict[int, list[Tensor]] = {}
    for d, ways in paths.items():
        k = torch.arange(d + 2)
        without, with_new = k.clamp(max=d), (k - 1).clamp(min=0)
        # At both ends the second look has weight 0, at the entry that has no other use.
        without = torch.where(k > d, size + d, without)
        with_new = torch.where(k < 1, 0, size + with_new)
        share = k.double() / (d + 1)
        options = [
            (d + 1, torch.stack([without, with_new]), torch.stack([1 - share, share]).sqrt())
        ]
        if d:
            k = torch.arange(d)
            share = (k + 1).double() / (d + 1)
            weight = torch.stack([share.sqrt(), -(1 - share).sqrt()])
            options.append((d - 1, torch.stack([k + 1, size + k]), weight))
        block = start[d] + (d + 1) * torch.arange(ways)[:, None]
        for total, place, weight in options:
            places.setdefault(total, []).append((place[:, None] + block).flatten(1))
            weights.setdefault(total, []).append(weight[:, None].expand(-1, ways, -1).flatten(1))
    order = sorted(places, reverse=True)
    place = torch.cat([part for d in order for part in places[d]], 1)
    weight = torch.cat([part for d in order for part in weights[d]], 1)
    found = {d: sum(part.shape[1] for part in places[d]) // (d + 1) for d in order}
    return _Coupling(place, weight), found


def _symmetric(n: int, device: torch.device) -> Tensor:
    """The vectors 1 and c, ``(2, 2^n)``."""
    sizes = all_coalitions(n, device).sum(-1)
    return torch.stack([torch.zeros_like(sizes), n - sizes]).double().exp2()


def _symmetric_power(matrix: Tensor, d: int) -> Tensor:
    """Sym^d of a 2 × 2 matrix on the orthonormal basis of k = 0 … d players present."""
    (a, b), (c, e) = matrix.tolist()
    root = np.sqrt([math.comb(d, k) for k in range(d + 1)])
    # The image of (d − k) absent and k present ones is a product of linear forms.
    columns = [polymul(polypow([a, c], d - k), polypow([b, e], k)) for k in range(d + 1)]
    return torch.from_numpy(np.stack(columns, 1) * root / root[:, None])


def _power(matrix: Tensor, n: int) -> Tensor:
    return reduce(torch.kron, [matrix] * n, torch.ones(1, 1, dtype=torch.float64))


@lru_cache(maxsize=4)
def operators(n: int, device: torch.device) -> Operators:
    """The operators for n players, made once."""
    return Operators(n, device)
