"""A sentence's interactions as a tree: which words form phrases, and which of these join."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal

from matplotlib.figure import Figure
from torch import Tensor

from interaction_train.concepts.set_values import SetValues, open_game
from interaction_train.concepts.tree_figure import tree_figure
from interaction_train.concepts.tree_merging import merge_all
from interaction_train.concepts.tree_nodes import TreeNode, TreeNodes
from interaction_train.errors import one_of
from interaction_train.game.masked import MaskedGame

RULES = ("density", "strength")
_OF_A_MERGE = ("parts", "psi", "psi_stderr", "density", "tie")


class InteractionTree(TreeNodes):
    """What :func:`interaction_tree` returns: :class:`~.tree_nodes.TreeNodes`."""

    def plot(self, title: str | None = None) -> Figure:
        """A dendrogram over the words; colour is the sign of ψ, width |ψ|, dashes are ties.

        Args:
            title: default: what is shown, and the share that neighbours leave out.
        """
        return tree_figure(self, title)


def interaction_tree(
    v_or_game: Tensor | MaskedGame,
    rule: Literal["density", "strength"] = "density",
    contexts: int | None = None,
    adjacent: bool = True,
    *,
    names: Sequence[str] | None = None,
    measure: bool | None = None,
    seed: int = 0,
) -> InteractionTree:
    """Merge neighbouring players, then nodes, whose interaction stands out most, into a tree.

    ψ(a,b) = φ([a∪b]) − φ([a]) − φ([b]), each in N∖(a∪b) ∪ {[·]}, is what two nodes gain by acting
    together. The next merge has the highest density r = |ψ(a,b)| / (|ψ(a,b)| + |ψ(left,a)| +
    |ψ(b,right)|), or the largest |ψ|. Where scores differ by no more than rounding, the smallest
    union goes first, then the first. Survey, 2.2.2; Zhang et al., "Building interpretable
    interaction trees for deep NLP models", 2021.

    Args:
        v_or_game: exact values ``(2^n,)``, or a game of one sample, which is evaluated on all
            coalitions of up to 16 players and sampled beyond; payoffs are one number.
        rule: what the next merge is chosen by.
        contexts: sample ψ from so many contexts of each pair (even, at least 4), 4 evaluations
            each; default beyond 16 players: 100.
        adjacent: merge only neighbours; or any two nodes, and r is then among all pairs that touch
            a or b.
        names: of the players; default: what the game calls them, or their numbers.
        measure: give B, T and φ of every node, and the share of Σ|ψ| that neighbours leave out;
            default: where values are exact, for there they cost no evaluation (T of sets of 10
            players or more some tenths of a second; without it only the share is given).
        seed: seed of the draws.

    Raises:
        InputError: fewer than two players, several games, names of another number, contexts out of
            range or for exact values, or a payoff that is not finite.

    Examples:
        >>> import torch
        >>> from interaction_train.indices import all_coalitions
        >>> who = all_coalitions(4).double()
        >>> v = who[:, 0] - 2 * who[:, 1] * who[:, 2] + who[:, 1:].prod(1)
        >>> tree = interaction_tree(v, names=["quite", "not", "good", "enough"])
        >>> tree.nested()
        ('quite', (('not', 'good'), 'enough'))
        >>> tree.merges[0].psi
        -1.5
    """
    one_of("rule", rule, RULES)
    source = open_game(v_or_game, contexts, names, seed)
    measure = source.exact if measure is None else measure
    found, merges = merge_all(
        source.n,
        source.between,
        source.noise,
        by_density=rule == "density",
        adjacent=adjacent,
        far=measure or source.exact,
    )
    inside = [asdict(source.within(who) if measure else SetValues()) for who in found]
    leaves = [TreeNode(players=(i,), **inside[i]) for i in range(source.n)]
    joins = [{name: getattr(merge, name) for name in _OF_A_MERGE} for merge in merges]
    inner = [
        TreeNode(players=who, **join, **values)
        for who, join, values in zip(found[source.n :], joins, inside[source.n :], strict=True)
    ]
    near, total = ([getattr(merge, name) for merge in merges] for name in ("near", "total"))
    return InteractionTree(
        nodes=(*leaves, *inner),
        names=source.names,
        rule=rule,
        neglected=_left_out(sum(near), sum(total)),
        neglected_by_level=tuple(map(_left_out, near, total)),
        evaluations=source.evaluations,
    )


def _left_out(near: float, total: float) -> float:
    """The part of a total that is not near; 0 of nothing."""
    if math.isnan(total):
        return total
    return max(0.0, 1 - near / total) if total else 0.0
