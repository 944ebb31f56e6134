"""Concepts of samples: as rows of numbers, which processes gather, and in words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Any

import torch
from torch import Tensor

from interaction_train.concepts.concepts import Concepts
from interaction_train.concepts.fidelity import fidelity
from interaction_train.concepts.selection import Surrogate, select_concepts
from interaction_train.concepts.sparse import sparse_concepts

_SCALARS = ("constant", "objective", "lower_bound", "violation", "steps", "converged")


def row_length(n: int) -> int:
    """The number of columns of the rows of n players."""
    return 2 + (3 << n) + len(_SCALARS)


def concept_rows(own: Tensor, values: Tensor, noise: float) -> Tensor:
    """Two numbers of each sample ``(B, 2)``, its game ``(B, 2^n)`` and its sparsest concepts."""
    found = sparse_concepts(values, noise)
    scalars = torch.stack([getattr(found, name).to(values) for name in _SCALARS], 1)
    return torch.cat([own.to(values), values, found.and_, found.or_, scalars], 1)


def from_rows(rows: Tensor, n: int) -> tuple[Tensor, Tensor, Concepts]:
    """What :func:`concept_rows` put together: two int64 numbers, the game, and its concepts."""
    size = 1 << n
    own, values, i_and, i_or, scalars = rows.split([2, size, size, size, len(_SCALARS)], 1)
    more = dict(zip(_SCALARS, scalars.unbind(1), strict=True))
    more |= {"steps": more["steps"].long(), "converged": more["converged"].bool()}
    return own.long(), values, Concepts(i_and, i_or, **more)


def concepts_in_words(
    own: Tensor, values: Tensor, concepts: Concepts, names: Sequence[str], count: int
) -> tuple[list[dict[str, Any]], Surrogate]:
    """All concepts of each sample, the strongest first, and those that stand for its game.

    Args:
        own: place and label of the samples, ``(B, 2)``.
        values: their games, ``(B, 2^n)``.
        concepts: decompositions of these.
        names: of the n players.
        count: how many of the strongest are refitted; the others have null there.
    """
    surrogate = select_concepts(concepts, values, count)
    everything = select_concepts(concepts, values, 2 * values.shape[-1], refit=False)
    explained = fidelity(concepts, values, [count])
    samples = []
    for b, (place, label) in enumerate(own.tolist()):
        one, refitted = everything[b], surrogate[b].value[0].tolist()
        refitted += [None] * (int(one.count) - len(refitted))
        parts = one.members[0].tolist(), one.is_or[0].tolist(), one.value[0].tolist(), refitted
        told = [
            {
                "players": list(compress(names, members)),
                "kind": "OR" if is_or else "AND",
                "value": value,
                "refitted": best,
            }
            for members, is_or, value, best in zip(*parts, strict=True)
        ]
        samples.append(
            {
                "sample": place,
                "label": label,
                **{name: getattr(concepts, name)[b].item() for name in _SCALARS},
                "range": (values[b, -1] - values[b, 0]).item(),
                "k90": int(explained.k90[b]),
                "salient": int(explained.salient[b]),
                f"r2_{count}": float(surrogate.r2[b]),
                "concepts": told,
            }
        )
    return samples, surrogate
