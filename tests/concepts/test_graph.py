"""Graphs of concepts: merging by description length, exports, figures."""

import itertools
import json
import math
import re

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from interaction_train.concepts.graph import concept_graph
from interaction_train.concepts.selection import Surrogate, select_concepts
from interaction_train.errors import InputError
from interaction_train.game.players import GridPlayers
from tests.concepts.games import exact_game, random_game


def surrogate_of(concepts, n: int, constant: float = 0.0) -> Surrogate:
    """A surrogate of (is_or, players, value)."""
    members = torch.tensor(
        [[[i in players for i in range(n)] for _, players, _ in concepts]]
    ).bool()
    number = torch.tensor([constant]).double()
    return Surrogate(
        members=members.reshape(1, len(concepts), n),
        is_or=torch.tensor([[is_or for is_or, _, _ in concepts]], dtype=torch.bool),
        value=torch.tensor([[x for _, _, x in concepts]], dtype=torch.float64),
        constant=number,
        r2=torch.ones(1).double(),
        max_error=torch.zeros(1).double(),
        count=torch.tensor([len(concepts)]),
    )


def ands(*patterns, n: int = 4) -> Surrogate:
    return surrogate_of([(False, *pattern) for pattern in patterns], n)


def coalitions(graph):
    return [(node.is_or, node.players) for node in graph.layer("coalition")]


@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_rounding_does_not_decide_what_is_merged(scale):
    """Strengths whose sums are rounded; words all of whose users take the coalition vanish."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        values = (scale * torch.rand(5, generator=generator, dtype=torch.float64)).tolist()
        patterns = [((0, 1, 2), values[0]), ((0, 1, 2, 3), values[1]), ((0, 1, 4), values[2])]
        patterns += [((0, 1, 3, 5), values[3]), ((0, 1, 4, 5), values[4])]
        graph = concept_graph(ands(*patterns, n=6), merges=1)
        whole = tuple(value for _, value in patterns)
        words = [sum(v for who, v in patterns if i in who) for i in range(2, 6)]
        strengths = [*words, sum(whole)]  # 0 and 1 are one word
        total = sum(strengths)
        entropy = -sum(s / total * math.log(s / total) for s in strengths)
        assert coalitions(graph)[0] == (False, (0, 1))
        assert graph.description_length[1] == pytest.approx(entropy * (total + 10), rel=1e-9)


def test_two_patterns_share_a_coalition():
    """Words 0, 1: 2, 2, 3: 1 of 6, then 01: 2, 2, 3: 1 of 4."""
    graph = concept_graph(ands(((0, 1, 2), 1.0), ((0, 1, 3), 1.0)))
    assert coalitions(graph) == [(False, (0, 1))]
    before = (4 * math.log(3) + 2 * math.log(6)) * (1 + 10 / 6)
    after = (2 * math.log(2) + 2 * math.log(4)) * (1 + 10 / 4)
    assert graph.description_length == pytest.approx((before, after), abs=1e-9)
    assert graph.description_length == pytest.approx((21.275, 14.556), abs=5e-4)
    assert set(graph.edges) == {
        ("player0", "coalition0"),
        ("player1", "coalition0"),
        ("coalition0", "concept0"),
        ("player2", "concept0"),
        ("coalition0", "concept1"),
        ("player3", "concept1"),
        ("concept0", "sum"),
        ("concept1", "sum"),
    }


def test_signs_do_not_matter_but_strengths_do():
    """Words 0, 1, 2: 5, 3: 4 of 19; 012: 5, 3: 4 of 9, better per player than any two of them."""
    graph = concept_graph(ands(((0, 1, 2), 1.0), ((0, 1, 2, 3), -4.0)))
    assert coalitions(graph) == [(False, (0, 1, 2))]
    before = (15 * math.log(19 / 5) + 4 * math.log(19 / 4)) * (1 + 10 / 19)
    after = (5 * math.log(9 / 5) + 4 * math.log(9 / 4)) * (1 + 10 / 9)
    assert graph.description_length == pytest.approx((before, after), abs=1e-9)


def length(words: dict, strengths) -> float:
    """L + 10 E of word → concepts that use it."""
    s = [sum(strengths[k] for k in users) for users in words.values() if users]
    total = sum(s)
    return sum(x * math.log(total / x) for x in s) * (1 + 10 / total)


def slow_merges(patterns, merges: int):
    """C4 with frozensets, all sets of words tried: coalitions and the final length."""
    strengths = [abs(x) for _, x in patterns]
    uses = [{frozenset([i]) for i in players} for players, _ in patterns]
    found = []

    def words_of(uses):
        every = set().union(*uses)
        return {word: [k for k, used in enumerate(uses) if word in used] for word in every}

    for _ in range(merges):
        now, best = length(words_of(uses), strengths), (0.0, None)
        every = sorted(set().union(*uses), key=sorted)
        for size in range(2, len(every) + 1):
            for part in map(set, itertools.combinations(every, size)):
                if sum(part <= used for used in uses) >= 2:
                    whole = frozenset().union(*part)
                    tried = [u - part | {whole} if part <= u else u for u in uses]
                    gain = (now - length(words_of(tried), strengths)) / len(whole)
                    best = max(best, (gain, (whole, tried)), key=lambda b: b[0])
        if best[1] is None:
            break
        whole, uses = best[1]
        found.append(tuple(sorted(whole)))
    return found, length(words_of(uses), strengths)


@pytest.mark.parametrize("seed", range(6))
def test_merging_is_that_of_trying_all(seed):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(8, 6, generator=generator) < 0.55
    rows[:, seed] = True
    values = torch.randn(8, generator=generator).tolist()
    players = [tuple(row.nonzero().flatten().tolist()) for row in rows]
    patterns = list(zip(players, values, strict=True))
    graph = concept_graph(ands(*patterns, n=6))
    found, after = slow_merges(patterns, 5)
    assert [players for _, players in coalitions(graph)] == found
    assert len(found) > 1
    assert graph.description_length[1] == pytest.approx(after)


def test_a_merge_may_be_part_of_the_next():
    patterns = [((0, 1, 2), 3.0), ((0, 1, 2, 3), 3.0), ((0, 1), 5.0), ((0, 1, 4), 5.0)]
    graph = concept_graph(ands(*patterns, n=5))
    assert coalitions(graph) == [(False, (0, 1)), (False, (0, 1, 2))]
    assert ("coalition0", "coalition1") in graph.edges
    strengths = {node.id: node.value for node in graph.nodes}
    assert (strengths["coalition0"], strengths["coalition1"]) == (16, 6)
    assert strengths["player0"] == 16
    assert strengths["player3"] == 3


def test_ands_share_with_ands_and_ors_with_ors():
    both = [(False, (0, 1, 2), 1.0), (True, (0, 1, 3), 1.0)]
    graph = concept_graph(surrogate_of(both, 4))
    assert coalitions(graph) == []
    assert graph.description_length[0] == graph.description_length[1]
    ors = [
        (is_or, (0, 1, i), x) for is_or, i, x in ((True, 2, 1.0), (True, 3, 1.0), (False, 2, 0.1))
    ]
    assert coalitions(concept_graph(surrogate_of(ors, 4))) == [(True, (0, 1))]


def test_ties_go_to_ands_then_to_the_lowest_index():
    pairs = [(True, (0, 1), 1.0), (True, (0, 1), 1.0), (False, (2, 3), 1.0), (False, (2, 3), 1.0)]
    found = coalitions(concept_graph(surrogate_of(pairs, 4)))
    assert found == [(False, (2, 3)), (True, (0, 1))]
    pairs = [(False, p, 1.0) for p in ((1, 3), (1, 3), (0, 2), (0, 2))]
    found = coalitions(concept_graph(surrogate_of(pairs, 4), merges=1))
    assert found == [(False, (0, 2))]  # index 5 before 10


def test_no_more_merges_than_asked():
    surrogate = select_concepts(*random_game(5, batch=1), count=20)
    lengths = []
    for merges in range(4):
        graph = concept_graph(surrogate, merges=merges)
        assert len(graph.layer("coalition")) <= merges
        lengths.append(graph.description_length[1])
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] == graph.description_length[0]


def test_what_two_share_in_many_words_is_merged_as_a_whole():
    everyone = tuple(range(13))
    graph = concept_graph(ands(((*everyone, 13), 1.0), ((*everyone, 14), 1.0), n=15))
    assert coalitions(graph) == [(False, everyone)]


def active(graph, coalition) -> float:
    """What the graph computes on a set of players, walking its edges."""
    nodes = {node.id: node for node in graph.nodes}
    inputs = {node: [a for a, b in graph.edges if b == node] for node in nodes}

    def on(name: str) -> bool:
        node = nodes[name]
        if node.kind == "player":
            return node.players[0] in coalition
        return (any if node.is_or else all)(map(on, inputs[name]))

    return graph.constant + sum(nodes[c].value for c in inputs["sum"] if on(c))


def test_a_walk_through_the_graph_gives_the_surrogates_values():
    surrogate = select_concepts(*random_game(5), count=16)[1]
    graph = concept_graph(surrogate)
    assert graph.layer("coalition")
    kinds = {node.is_or for node in graph.layer("coalition")}
    assert kinds == {False, True}
    for row in torch.rand(12, 5) < 0.5:
        walked = active(graph, row.nonzero().flatten().tolist())
        assert walked == pytest.approx(float(surrogate(row[None])))
    everyone = torch.ones(1, 5, dtype=torch.bool)
    assert graph.layer("sum")[0].value == pytest.approx(float(surrogate(everyone)))


def test_exports_parse():
    names = ['a "b"', "back\\slash", "new\nline", *"cdefg"]
    graph = concept_graph(select_concepts(*exact_game(), count=5), names=names)
    content = json.loads(graph.to_json())
    assert content["players"] == names
    assert [node["id"] for node in content["nodes"]] == [node.id for node in graph.nodes]
    assert list(map(tuple, content["edges"])) == list(graph.edges)
    assert content["r2"] == pytest.approx(1)
    strongest = next(node for node in content["nodes"] if node["kind"] == "concept")
    assert strongest["label"] == " ∧ ".join(names[:3])
    assert strongest["value"] == pytest.approx(2)
    dot = graph.to_dot()
    assert len(re.findall(r"^  \w+ -> \w+;$", dot, re.MULTILINE)) == len(graph.edges)
    assert len(re.findall(r'^  \w+ \[label="', dot, re.MULTILINE)) == len(graph.nodes)
    assert dot.startswith("digraph")
    assert dot.count("{") == dot.count("}")
    assert r'"a \"b\"",' in dot
    assert r'"back\\slash",' in dot
    assert r'"new\nline",' in dot


def test_a_graph_is_the_same_every_time():
    surrogate = select_concepts(*random_game(6), count=20)[2]
    assert concept_graph(surrogate).to_json() == concept_graph(surrogate).to_json()


def test_no_concepts_are_a_graph_too():
    graph = concept_graph(surrogate_of([], 3, constant=2.0))
    assert [node.kind for node in graph.nodes] == ["sum"]
    assert graph.description_length == (0, 0)
    assert json.loads(graph.to_json())["constant"] == 2
    figure = graph.plot()
    FigureCanvasAgg(figure).draw()
    # v(∅) it is not: within the noise, the constant may differ from it.
    assert any("constant = 2" in text.get_text() for text in figure.axes[0].texts)


@pytest.mark.parametrize("with_image", [False, True])
def test_figure_shows_all_nodes_without_overlap(with_image):
    names = [f"cell {i}" for i in range(9)]
    surrogate = select_concepts(*random_game(9, batch=1, strong=10), count=20)
    graph = concept_graph(surrogate, names)
    cells = GridPlayers(3, 3).cells((1, 9, 9))
    image = torch.rand(1, 9, 9)
    figure = graph.plot(image, cells) if with_image else graph.plot()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    axes, renderer = figure.axes[0], canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in axes.texts]
    assert len(boxes) == len(graph.nodes)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    shown = {text.get_text() for text in axes.texts}
    assert {node.label for node in graph.layer("player")} <= shown
    if with_image:
        nodes = [node for node in graph.nodes if node.kind != "sum"]
        assert len(axes.images) == len(nodes)
        for node, picture in zip(nodes, axes.images, strict=True):
            pixels, mine = np.asarray(picture.get_array()), np.isin(cells, node.players)
            original = image[0].numpy()[..., None].repeat(3, -1)
            np.testing.assert_allclose(pixels[mine], original[mine])
            assert np.ptp(pixels[~mine]) < 0.3 if (~mine).any() else True


def test_bad_input_is_refused():
    concepts, v = random_game(4)
    surrogate = select_concepts(concepts, v, count=3)
    with pytest.raises(InputError, match=r"surrogate: got 3 samples, expected .*surrogate\[0\]"):
        concept_graph(surrogate)
    with pytest.raises(InputError, match="names: got 2 names, expected 4"):
        concept_graph(surrogate[0], ["a", "b"])
    with pytest.raises(InputError, match="merges: got -1"):
        concept_graph(surrogate[0], merges=-1)
    graph = concept_graph(surrogate[0])
    image, cells = torch.rand(1, 4, 4), GridPlayers(2, 2).cells((1, 4, 4))
    bad = [
        (image, None, "cells: got None"),
        (None, cells, "image: got None"),
        (image[0], cells, r"image: got torch.float\d+ \("),
        (image.expand(2, -1, -1), cells, "image: got torch.float"),
        ((255 * image).byte(), cells, "image: got torch.uint8"),
        (image, cells[:3], "cells: got"),
        (image, cells.float(), "cells: got"),
    ]
    for picture, players, message in bad:
        with pytest.raises(InputError, match=message):
            graph.plot(picture, players)
