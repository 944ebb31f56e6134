"""Spans of trees over words: those of a given parse, of controls, and how many two trees share.

A span is the words of a node, numbers from 0 in their order.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable, Sequence

from interaction_train.errors import InputError, at_least, one_of

Spans = tuple[tuple[int, ...], ...]
CONTROLS = ("left", "right", "balanced", "random")


def tree_spans(parents: Sequence[int]) -> Spans:
    """The spans of a tree's inner nodes, its root included, in the order of their numbers.

    Args:
        parents: of every node its parent, numbered from 1; 0 for the root. Nodes that are nobody's
            parent are the L words and come first, as in the Stanford Sentiment Treebank.

    Raises:
        InputError: numbers that are no tree, or words that do not come first.

    Examples:
        >>> tree_spans([4, 4, 5, 5, 0])  # ((0 1) 2)
        ((0, 1), (0, 1, 2))
    """
    count = len(parents)
    words = count - len(set(parents) - {0})
    if list(parents).count(0) != 1 or not all(0 <= p <= count for p in parents):
        raise InputError("parents", list(parents), f"one 0 and numbers from 1 to {count}")
    if any(p <= words for p in parents if p):
        raise InputError("parents", list(parents), f"the {words} words without children first")
    inside: dict[int, list[int]] = {node: [] for node in range(words + 1, count + 1)}
    for word in range(words):
        node, steps = parents[word], 0
        while node:
            inside[node].append(word)
            node, steps = parents[node - 1], steps + 1
            if steps > count:
                raise InputError("parents", list(parents), "a tree; these run in a circle")
    return tuple(tuple(players) for players in inside.values())


def control_spans(n: int, kind: str, seed: int = 0) -> Spans:
    """The inner spans of a binary tree over n words that knows nothing of them.

    Args:
        n: number of words, at least 2.
        kind: ``"left"`` branching (((0 1) 2) 3), ``"right"`` branching (0 (1 (2 3))),
            ``"balanced"`` by halves, or ``"random"``: neighbours merge, any two as likely.
        seed: of the random tree.

    Raises:
        InputError: fewer than two words, or another kind.
    """
    at_least("n", n, 2)
    one_of("kind", kind, CONTROLS)
    if kind == "left":
        return tuple(tuple(range(stop)) for stop in range(2, n + 1))
    if kind == "right":
        return tuple(tuple(range(start, n)) for start in range(n - 2, -1, -1))
    if kind == "balanced":
        return tuple(tuple(range(*span)) for span in _halves(0, n))
    chance = random.Random(seed)  # its own generator: the global one is left alone
    nodes: list[tuple[int, ...]] = [(i,) for i in range(n)]
    found = []
    while len(nodes) > 1:
        at = chance.randrange(len(nodes) - 1)
        nodes[at : at + 2] = [nodes[at] + nodes[at + 1]]
        found.append(nodes[at])
    return tuple(found)


def span_agreement(
    spans: Iterable[Sequence[int]],
    constituents: Iterable[Sequence[int]],
    ignore: Collection[int] = (),
) -> float:
    """The share of a tree's spans that are constituents; NaN where there are none to compare.

    Single words and the whole sentence, which are spans of every tree, do not count.

    Args:
        spans: of a tree, such as :meth:`~.tree_nodes.TreeNodes.spans`.
        constituents: of the parse, such as :func:`tree_spans`.
        ignore: words that are struck from both trees, such as punctuation: a full stop, which
            parses attach to the whole sentence, is in every span of a tree that branches right.

    Examples:
        >>> span_agreement(control_spans(4, "left"), tree_spans([5, 5, 6, 6, 7, 7, 0]))
        0.5
    """
    own, known = (
        {frozenset(span).difference(ignore) for span in some} for some in (spans, constituents)
    )
    whole = max(map(len, own | known), default=0)
    inner = [span for span in own if 1 < len(span) < whole]
    return sum(span in known for span in inner) / len(inner) if inner else math.nan


def _halves(start: int, stop: int) -> list[tuple[int, int]]:
    if stop - start < 2:
        return []
    middle = (start + stop) // 2
    return [*_halves(start, middle), *_halves(middle, stop), (start, stop)]
