"""Games of known concepts, and the definitions of patterns word for word."""

import itertools

import torch

from interaction_train.concepts.concepts import Concepts
from interaction_train.indices.exact import dividends

# n = 8: what the exact game is made of, and all it is made of.
ANDS = {(0, 1, 2): 2.0, (3, 4): -1.0, (0,): 0.5}
ORS = {(4, 5, 6, 7): 1.5, (1, 2): -0.75}


def counts_on(players, is_or: bool, coalition) -> bool:
    """Whether a pattern counts on a set of players."""
    return bool(set(players) & set(coalition)) if is_or else set(players) <= set(coalition)


def subsets(n: int):
    """All coalitions in the order of the value tensors."""
    return [tuple(i for i in range(n) if s >> i & 1) for s in range(1 << n)]


def column(players, is_or: bool, n: int) -> torch.Tensor:
    """On which coalitions a pattern counts, float64 (2^n,)."""
    return torch.tensor([float(counts_on(players, is_or, c)) for c in subsets(n)]).double()


def design(members: torch.Tensor, is_or: torch.Tensor) -> torch.Tensor:
    """The design of a regression on a sample's patterns: (2^n, 1 + k), the constant first."""
    n = members.shape[-1]
    rows = zip(members, is_or.tolist(), strict=True)
    found = [column(m.nonzero().flatten().tolist(), o, n) for m, o in rows]
    return torch.stack([torch.ones(1 << n).double(), *found], 1)


def row(values, n: int) -> torch.Tensor:
    result = torch.zeros(1 << n, dtype=torch.float64)
    for players, value in values.items():
        result[sum(1 << i for i in players)] = value
    return result


def made_of(i_and: torch.Tensor, i_or: torch.Tensor, constant: torch.Tensor | None = None):
    """A decomposition of these interactions, and its game."""
    lead = i_and.shape[:-1]
    nothing = torch.zeros(lead, dtype=i_and.dtype)
    constant = nothing if constant is None else constant
    strength = i_and.abs().sum(-1) + i_or.abs().sum(-1)
    steps = torch.zeros(lead, dtype=torch.int64)
    done = torch.ones(lead, dtype=torch.bool)
    concepts = Concepts(i_and, i_or, constant, strength, strength, nothing, steps, done)
    return concepts, concepts.values()


def exact_game():
    """The issue's game, as a batch of one."""
    return made_of(row(ANDS, 8)[None], row(ORS, 8)[None], torch.tensor([0.25]).double())


def random_game(n: int, batch: int = 3, strong: int | None = None, dtype=torch.float64):
    """Random interactions, `strong` ANDs and ORs or all, none of ∅ and no OR of one player."""
    generator = torch.Generator().manual_seed(100 * n + batch)
    parts = torch.randn(2, batch, 1 << n, generator=generator, dtype=torch.float64)
    if strong is not None:
        parts = parts * (torch.rand(parts.shape, generator=generator).argsort(-1) < strong)
    parts[..., 0] = 0
    parts[1, :, [1 << i for i in range(n)]] = 0
    constant = torch.randn(batch, generator=generator, dtype=torch.float64)
    return made_of(*parts.to(dtype), constant.to(dtype))


def only_dividends(v: torch.Tensor):
    """The decomposition of a game into its dividends."""
    i_and = dividends(v)
    constant = i_and[..., 0].clone()
    i_and[..., 0] = 0
    return made_of(i_and, torch.zeros_like(i_and), constant)[0]


def permuted(t: torch.Tensor, order) -> torch.Tensor:
    """A value tensor in which player i is the former player order[i]."""
    n = len(order)
    old = [sum(1 << order[i] for i in range(n) if s >> i & 1) for s in range(1 << n)]
    return t[..., old]


def concepts_of(surrogate, sample: int = 0) -> dict:
    """(is_or, players) → value of a sample."""
    one = surrogate[sample]
    rows = zip(one.is_or[0], one.members[0], one.value[0], strict=True)
    return {(bool(o), tuple(m.nonzero().flatten().tolist())): float(x) for o, m, x in rows}


def all_patterns(n: int):
    return list(itertools.product((False, True), subsets(n)))
