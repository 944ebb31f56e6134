"""Interaction trees: merges of known games, and by a greedy search written word for word."""

import json
import math

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from interaction_train.concepts.tree_merging import merge_all
from interaction_train.concepts.trees import interaction_tree
from interaction_train.errors import InputError
from interaction_train.game.masked import MaskedGame
from interaction_train.game.players import UnitPlayers
from interaction_train.indices.exact import shapley_values, values_from_dividends
from interaction_train.indices.exact_sets import (
    block_shapley_values,
    multivariate_interaction,
    multivariate_strength,
)
from tests.concepts.games import row

ISSUE = {(0, 1): 2.0, (0, 1, 2): 1.0, (3, 4): -1.5}
PLANTED = {(3, 4): -2.0, (3, 4, 5): 1.0, (8, 9, 10, 11): 1.5, (14, 15): 0.8}


def values(dividends, n):
    return values_from_dividends(row(dividends, n))


def random_values(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1 << n, generator=generator, dtype=torch.float64)


class Counted:
    """A network whose logit is a sum of products of inputs; counts the rows it sees."""

    def __init__(self, dividends):
        self.dividends, self.rows = dividends, 0

    def __call__(self, x):
        self.rows += len(x)
        z = sum(value * x[:, list(who)].prod(1) for who, value in self.dividends.items())
        return torch.stack([z, torch.zeros_like(z)], 1)


def game(dividends, n, batch=1):
    x, labels = torch.ones(batch, n).double(), torch.zeros(batch, dtype=torch.int64)
    return MaskedGame(Counted(dividends), x, 0.0, UnitPlayers(), labels=labels, chunk_size=4096)


def merged(tree):
    return [(node.players, node.psi, node.density) for node in tree.merges]


def greedy(v, n, rule, adjacent):
    """The merges by definition; ties do not occur."""

    def psi(a, b):
        phi = block_shapley_values(v, [*a, *b])
        only_a = (1 << len(a)) - 1
        return float(phi[-1] - phi[only_a] - phi[((1 << len(b)) - 1) << len(a)])

    nodes, found = [(i,) for i in range(n)], []
    while len(nodes) > 1:
        count = len(nodes)
        pairs = [(i, j) for j in range(count) for i in range(j) if j == i + 1 or not adjacent]
        size = {(i, j): abs(psi(nodes[i], nodes[j])) for i, j in pairs}

        def density(pair, size=size):
            return size[pair] / sum(size[p] for p in size if set(p) & set(pair))

        i, j = max(pairs, key=density if rule == "density" else size.get)
        union = tuple(sorted(nodes[i] + nodes[j]))
        found.append((union, psi(nodes[i], nodes[j]), density((i, j))))
        nodes = sorted([node for k, node in enumerate(nodes) if k not in (i, j)] + [union])
    return found


@pytest.mark.parametrize("of", ["values", "values of a batch of one", "float32", "game"])
def test_the_issues_game(of):
    v = values(ISSUE, 5)
    given = {"values": v, "values of a batch of one": v[None], "float32": v.float()}
    tree = interaction_tree(given.get(of, game(ISSUE, 5)))
    expected = [
        ((3, 4), -1.5, 1.0),
        ((0, 1), 2.5, 2.5 / 3),
        ((0, 1, 2), 1.0, 1.0),
        ((0, 1, 2, 3, 4), 0.0, 0.0),
    ]
    for found, wanted in zip(merged(tree), expected, strict=True):
        assert found[0] == wanted[0]
        assert found[1:] == pytest.approx(wanted[1:], abs=1e-6)
    assert [node.tie for node in tree.merges] == [False] * 4
    assert tree.nested(names=False) == (((0, 1), 2), (3, 4))
    assert tree.spans() == tuple(who for who, _, _ in expected)
    assert tree.evaluations == (32 if of == "game" else 0)
    # Before the merges ψ(0,1) = 2.5, ψ(1,2) = ψ(0,2) = .5, ψ(3,4) = −1.5; then without the last;
    # then 0, 1 and 2 only meet as neighbours.
    assert tree.neglected_by_level == pytest.approx((0.5 / 5, 0.5 / 3.5, 0, 0), abs=1e-6)
    assert tree.neglected == pytest.approx(1 / 9.5, abs=1e-6)


@pytest.mark.parametrize("adjacent", [True, False])
@pytest.mark.parametrize("rule", ["density", "strength"])
def test_merges_by_definition(rule, adjacent):
    for seed in range(3):
        v = random_values(6, seed)
        tree = interaction_tree(v, rule, adjacent=adjacent, measure=False)
        for found, wanted in zip(merged(tree), greedy(v, 6, rule, adjacent), strict=True):
            assert found[0] == wanted[0]
            assert found[1:] == pytest.approx(wanted[1:], abs=1e-9)


def test_without_interactions_the_tree_is_balanced():
    v = 3 + values({(i,): 0.1 * i + 0.3 for i in range(8)}, 8)  # sums that are rounded
    for given in (v, v.float(), game({(i,): 0.1 * i + 0.3 for i in range(8)}, 8)):
        tree = interaction_tree(given)
        assert tree.nested(names=False) == (((0, 1), (2, 3)), ((4, 5), (6, 7)))
        assert [(node.psi, node.density) for node in tree.merges] == [(0, 0)] * 7
        assert [node.tie for node in tree.merges] == [True] * 6 + [False]
        assert tree.neglected == 0
    sampled = interaction_tree(game({(i,): 0.1 * i + 0.3 for i in range(8)}, 8), contexts=4)
    assert sampled.nested() == tree.nested()
    assert [(node.psi, node.psi_stderr) for node in sampled.merges] == [(0, 0)] * 7


def test_rules_differ():
    v = values({(0, 1): 3.0, (1, 2): 2.9, (3, 4): 1.0}, 5)
    assert interaction_tree(v, "density").spans()[0] == (3, 4)
    assert interaction_tree(v, "strength").spans()[0] == (0, 1)


@pytest.mark.parametrize(
    ("names", "shown"),
    [(["w" * 100, "good"], "w" * 58), (["w" * 50, "g" * 20], "w" * 50)],
    ids=["a long word", "two"],
)
def test_long_words_are_shortened(names, shown):
    first = str(interaction_tree(values({(0, 1): 1.0}, 2), names=names)).splitlines()[0]
    assert first == f"+1  {shown} …"


def test_nodes_that_are_no_neighbours():
    v = values({(0, 3): 1.0, (1, 2): 0.3}, 4)
    far = interaction_tree(v, "strength", adjacent=False)
    assert far.spans() == ((0, 3), (1, 2), (0, 1, 2, 3))
    assert far.nested(names=False) == ((0, 3), (1, 2))
    assert "0 … 3" in str(far)
    near = interaction_tree(v)
    assert near.spans() == ((1, 2), (0, 1, 2), (0, 1, 2, 3))
    # ψ(0,3) = 1 is no neighbours' before the first two merges, and is after them.
    assert near.neglected_by_level == pytest.approx((1 / 1.3, 1, 0))
    assert near.neglected == pytest.approx(2 / 3.3)


def test_what_nodes_tell_of_their_sets():
    v = random_values(5)
    tree = interaction_tree(v)
    shapley = shapley_values(v)
    assert len(tree.nodes) == 9
    for node in tree.nodes:
        who = list(node.players)
        assert node.multivariate == pytest.approx(float(multivariate_interaction(v, who)))
        assert node.strength == pytest.approx(float(multivariate_strength(v, who)))
        assert node.shapley == pytest.approx(float(block_shapley_values(v, who)[-1]))
        assert node.multivariate_stderr == node.strength_stderr == node.shapley_stderr == 0
    assert [node.shapley for node in tree.nodes[:5]] == pytest.approx(shapley.tolist())
    assert tree.nodes[-1].shapley == pytest.approx(float(v[-1] - v[0]))


def test_more_than_twelve_players_have_no_strength():
    tree = interaction_tree(values({(0, 1): 1.0, tuple(range(13)): 1.0}, 13), "strength")
    assert math.isnan(tree.nodes[-1].strength)
    assert tree.nodes[-1].multivariate == pytest.approx(2)
    assert tree.nodes[13].strength == pytest.approx(1 + 1 / 12)


def test_more_players_than_can_be_enumerated():
    """20 players: the planted spans are found, each after its parts, in few evaluations."""
    planted = game(PLANTED, 20)
    tree = interaction_tree(planted, contexts=60)
    spans = tree.spans()
    assert {(3, 4), (3, 4, 5), (8, 9, 10, 11), (14, 15)} <= set(spans)
    pair = spans.index((14, 15))
    assert tree.merges[pair].psi == pytest.approx(0.8)
    assert tree.merges[pair].psi_stderr == 0
    first = tree.merges[spans.index((3, 4))]
    assert first.psi == pytest.approx(-1.5)  # half of the contexts hold player 5
    # Every pair once: 19 neighbours and at most two after each merge; the last has one context.
    assert tree.evaluations == planted.model.rows
    assert tree.evaluations <= 2 + 4 * 60 * (19 + 2 * 17) + 16
    assert math.isnan(tree.neglected)
    assert math.isnan(tree.nodes[0].shapley)


def test_sampled_as_exact():
    """A small game of both kinds: the same merges, ψ, B, T and φ within errors."""
    dividends = {(0, 1): 2.0, (0, 1, 2, 5): 1.0, (3, 4): -1.5, (1, 2, 3, 4): 0.5, (6,): 1.0}
    exact = interaction_tree(game(dividends, 7))
    sampled = interaction_tree(game(dividends, 7), contexts=400, measure=True)
    assert sampled.spans() == exact.spans()
    for mine, truth in zip(sampled.nodes, exact.nodes, strict=True):
        assert abs(mine.psi - truth.psi) <= 4 * mine.psi_stderr + 1e-9
        assert mine.density == pytest.approx(truth.density, abs=0.05)
        for name in ("multivariate", "shapley"):
            error = getattr(mine, f"{name}_stderr")
            assert abs(getattr(mine, name) - getattr(truth, name)) <= 4 * error + 1e-9
        assert mine.strength <= truth.strength + 4 * mine.strength_stderr + 1e-9
        assert mine.strength >= 0.9 * truth.strength - 1e-9
    assert sampled.neglected == pytest.approx(exact.neglected, abs=0.03)
    again = interaction_tree(game(dividends, 7), contexts=400, measure=True)
    assert again.to_json() == sampled.to_json()
    other = interaction_tree(game(dividends, 7), contexts=400, measure=True, seed=1)
    assert other.to_json() != sampled.to_json()


def test_ties_within_two_errors_are_flagged():
    """Two pairs of equal ψ, in contexts that differ: few contexts leave it open which is first."""
    noise = {(0, 1, 6, 7): 4.0, (3, 4, 6, 7): 4.0}
    equal = {(0, 1): 1.0, (3, 4): 1.0, **noise}
    apart = {(0, 1): 9.0, (3, 4): 1.0, **noise}
    for seed in range(5):
        few = interaction_tree(game(equal, 8), "strength", contexts=20, seed=seed)
        assert few.merges[0].tie
        assert few.merges[0].psi_stderr > 0.05
        assert (
            not interaction_tree(game(apart, 8), "strength", contexts=20, seed=seed).merges[0].tie
        )
    assert "~" in str(few)
    assert "--" in {line.get_linestyle() for line in few.plot().axes[0].lines}


@pytest.mark.parametrize(("error", "tie"), [(0.02, False), (0.03, True)])
def test_errors_of_densities_count_all_their_interactions(error, tie):
    """r(0,1) = 1/2 and r(1,2) = 1/2.05 differ by .0122; ψ(2,3) ± e moves the latter by e/2.05²."""
    psi = {(0, 1): (1.0, 0.0), (1, 2): (-1.0, 0.0), (2, 3): (0.05, error)}

    def measure(a, b):
        found = [psi.get((i[-1], j[0]), (0.0, 0.0)) for i, j in zip(a, b, strict=True)]
        return torch.tensor(found, dtype=torch.float64).unbind(1)

    _, merges = merge_all(4, measure, 1e-12, by_density=True, adjacent=True, far=False)
    assert merges[0].parts == (0, 1)
    assert merges[0].tie == tie


def test_names_text_and_json():
    names = ["it", "'s", "not", "good", "enough"]
    tree = interaction_tree(values(ISSUE, 5), names=names)
    assert tree.nested() == ((("it", "'s"), "not"), ("good", "enough"))
    lines = [
        "0  it 's not good enough",
        "├─ +1  it 's not",
        "│  ├─ +2.5  it 's",
        "│  │  ├─ it",
        "│  │  └─ 's",
        "│  └─ not",
        "└─ -1.5  good enough",
        "   ├─ good",
        "   └─ enough",
    ]
    assert str(tree) == tree.text() == "\n".join(lines)
    told = json.loads(interaction_tree(game(PLANTED, 17), names=range(17)).to_json())
    assert told["nodes"][0]["strength"] is None
    told = json.loads(tree.to_json())
    assert told["names"] == names
    assert told["nodes"][5]["players"] == [3, 4]
    assert told["nodes"][5]["parts"] == [3, 4]
    assert told["nodes"][5]["psi"] == -1.5
    assert interaction_tree(game(ISSUE, 5)).names == UnitPlayers().names((5,))


def boxes(figure):
    """The extents of all texts of the chart, in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [text for text in figure.axes[0].texts if text.get_text()]
    return [text.get_window_extent(canvas.get_renderer()) for text in texts], figure.bbox


@pytest.mark.parametrize("n", [2, 12, 20, 45])
def test_texts_of_the_figure_have_room(n):
    words = ["a", "b", "antidisestablishmentarianism, of course", "word", "II"]
    names = [words[i % 5] for i in range(n)]
    tree = interaction_tree(game(PLANTED if n > 15 else {(0, 1): -1.0}, n), contexts=4, names=names)
    figure = tree.plot()
    found, page = boxes(figure)
    assert len(found) == 2 * n - 1
    assert not any(a.overlaps(b) for k, a in enumerate(found) for b in found[:k])
    assert all(page.x0 <= box.x0 and box.x1 <= page.x1 for box in found)
    assert all(page.y0 <= box.y0 and box.y1 <= page.y1 for box in found)


def test_figure_shows_sign_and_strength():
    lines = interaction_tree(values(ISSUE, 5)).plot("a title").axes[0].lines
    width = {line.get_color(): line.get_linewidth() for line in lines}
    assert len(lines) == 4
    assert len(width) == 3  # positive, negative, nothing
    assert sorted(line.get_linewidth() for line in lines) == pytest.approx(
        [0.8, 0.8 + 4 * 1 / 2.5, 0.8 + 4 * 1.5 / 2.5, 4.8]
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: interaction_tree(torch.zeros(2)), "v_or_game: .* with n at least 2"),
        (lambda: interaction_tree(game({(0,): 1.0}, 1)), "game: got 1 player, expected at least 2"),
        (
            lambda: interaction_tree(torch.zeros(2, 8)),
            r"v_or_game: got shape \(2, 8\), expected one",
        ),
        (lambda: interaction_tree(game(ISSUE, 5, 2)), "v_or_game: got a game of 2 samples"),
        (lambda: interaction_tree(torch.zeros(7)), "v_or_game: got torch.float32"),
        (lambda: interaction_tree(torch.full((8,), torch.nan)), "not finite"),
        (lambda: interaction_tree(torch.zeros(8), names="ab"), "names: got 2 names, expected 3"),
        (lambda: interaction_tree(torch.zeros(8), "size"), "rule: got 'size', expected one of"),
        (lambda: interaction_tree(torch.zeros(8), contexts=8), "contexts: got 8, expected None"),
        (lambda: interaction_tree(game(ISSUE, 5), contexts=3), "contexts: got 3"),
        (lambda: interaction_tree(game(ISSUE, 5), contexts=0), "contexts: got 0"),
        (lambda: interaction_tree(game({(0, 1): 1.0}, 2), contexts=3), "contexts: got 3"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(InputError, match=message):
        call()
