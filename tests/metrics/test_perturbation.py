"""Interactions inside a perturbation, against the definition on composite images."""

import itertools
import math

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from interaction_train.errors import InputError
from interaction_train.game.players import GridPlayers
from interaction_train.indices.readings import plug_in
from interaction_train.indices.sampled_pairs import sample_shapley_pairs
from interaction_train.metrics.perturbation import (
    PerturbationInteraction,
    perturbation_game,
    perturbation_interaction,
)
from interaction_train.models import DigitsNet
from interaction_train.sampling.pairs import AllPairs, RandomPairs

CLASSES = 4


def network(rows, cols):
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(rows * cols, 12), nn.Tanh(), nn.Linear(12, CLASSES)
    ).double()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return net


def batch(rows, cols, count=5):
    generator = torch.Generator().manual_seed(1)
    clean, noise = torch.rand(2, count, 1, rows, cols, generator=generator, dtype=torch.float64)
    labels = torch.arange(count) % CLASSES
    return clean, (clean + (noise - 0.5)).clamp(0, 1), labels


@torch.no_grad()
def utility(net, image, label, target, final):
    """The attack's utility, by the formula; ``final`` are the logits of the whole attack."""
    z = net(image[None])[0]
    aim = label if target is None else target
    rival = max((c for c in range(CLASSES) if c != aim), key=lambda c: float(final[c]))
    return float(z[rival] - z[label]) if target is None else float(z[target] - z[rival])


def shapley_interactions(net, clean, adversarial, label, target=None):
    """I^Shap(i,j) of every pair of pixels, over all coalitions (survey, Eq. 5)."""
    n = clean.numel()
    final = net(adversarial[None])[0]

    def v(present):
        image = clean.flatten().clone()
        for i in present:
            image[i] = adversarial.flatten()[i]
        return utility(net, image.view(clean.shape), label, target, final)

    table = {}
    for i, j in itertools.combinations(range(n), 2):
        rest = [k for k in range(n) if k not in (i, j)]
        total = 0.0
        for m in range(n - 1):
            weight = math.factorial(m) * math.factorial(n - m - 2) / math.factorial(n - 1)
            for s in itertools.combinations(rest, m):
                total += weight * (v({*s, i, j}) - v({*s, i}) - v({*s, j}) + v(s))
        table[i, j] = total
    return table


def average(values):
    values = list(values)
    return sum(values) / len(values)


@torch.no_grad()
def brute_force(rows, cols, targets=None):
    net, (clean, adversarial, labels) = network(rows, cols), batch(rows, cols)
    tables = []
    for b in range(len(clean)):
        target = None if targets is None else int(targets[b])
        tables.append(
            shapley_interactions(net, clean[b], adversarial[b], int(labels[b]), target)
        )  # fmt: skip
    return tables


TARGETS = torch.tensor([2, 0, 3, 1, 2])


@pytest.mark.parametrize("targets", [None, TARGETS], ids=["untargeted", "targeted"])
@pytest.mark.parametrize(("rows", "cols"), [(2, 2), (3, 2)])
def test_equals_brute_force(rows, cols, targets):
    tables = brute_force(rows, cols, targets)
    net, data, players = network(rows, cols), batch(rows, cols), GridPlayers(rows, cols)
    found = perturbation_interaction(net, *data, players, targets=targets)
    expected = [average(table.values()) for table in tables]
    assert found.tolist() == pytest.approx(expected, rel=1e-9)
    assert min(map(abs, expected)) > 1e-3
    game = perturbation_game(net, *data, players, targets=targets)
    sampled = sample_shapley_pairs(game, AllPairs(), 1500)
    for b, table in enumerate(tables):
        truth = torch.tensor([table[tuple(pair)] for pair in sampled.pairs[b].tolist()])
        error = (sampled.value[b, 0] - truth).abs()
        assert (error < 5 * sampled.stderr[b, 0] + 1e-9).all()
    sizes = [average(map(abs, table.values())) for table in tables]
    read = sampled.over_pairs(plug_in(sampled)).squeeze(1).tolist()
    assert read == pytest.approx(sizes, rel=0.06, abs=0.01)


def test_metric_equals_brute_force():
    tables = brute_force(2, 2)
    metric = PerturbationInteraction(GridPlayers(2, 2), AllPairs(), contexts=1500)
    net, (clean, adversarial, labels) = network(2, 2), batch(2, 2)
    metric.update(net, clean, adversarial, labels)
    result = metric.compute()
    means = torch.tensor([average(table.values()) for table in tables], dtype=torch.float64)
    assert float(result["mean"]) == pytest.approx(float(means.mean()), rel=1e-9)
    assert float(result["mean_stderr"]) == pytest.approx(float(means.std() / 5**0.5), rel=1e-9)
    size = average(average(map(abs, table.values())) for table in tables)
    for reading in ("plug_in", "split_sign"):
        assert float(result[reading]) == pytest.approx(size, rel=0.05)
    square = average(average(x * x for x in table.values()) for table in tables)
    assert float(result["rms"]) == pytest.approx(square**0.5, rel=0.05)
    finals = net(adversarial).detach()
    gains = [
        utility(net, adversarial[b], int(labels[b]), None, finals[b])
        - utility(net, clean[b], int(labels[b]), None, finals[b])
        for b in range(5)
    ]
    assert float(result["gain"]) == pytest.approx(average(gains), rel=1e-9)
    assert (int(result["samples"]), float(result["contexts"])) == (5, 1500)
    assert all(value.dim() == 0 for value in result.values())


class Quadratic(nn.Module):
    """h_c = xᵀ Q_c x + w_c · x, whose interactions inside δ are 2 δ_i (Q_r − Q_y)_ij δ_j."""

    def __init__(self, strength):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        q = torch.randn(CLASSES, 6, 6, generator=generator, dtype=torch.float64)
        self.q = strength * (q + q.mT) / 2
        self.w = torch.randn(CLASSES, 6, generator=generator, dtype=torch.float64)

    def forward(self, x):
        x = x.flatten(1)
        return torch.einsum("bi,cij,bj->bc", x, self.q, x) + x @ self.w.T


def quadratic_truth(net, clean, adversarial, ours, theirs):
    delta = (adversarial - clean).flatten(1)
    q = net.q[ours] - net.q[theirs]
    return 2 * delta[:, :, None] * q * delta[:, None, :]


@pytest.mark.parametrize("targeted", [False, True])
def test_sign_and_value_for_a_quadratic_network(targeted):
    net, (clean, adversarial, labels) = Quadratic(1.0), batch(3, 2)
    targets = TARGETS if targeted else None
    aim = labels if targets is None else targets
    others = net(adversarial).scatter(1, aim[:, None], -torch.inf).argmax(1)
    ours, theirs = (others, labels) if targets is None else (targets, others)
    table = quadratic_truth(net, clean, adversarial, ours, theirs)
    off = ~torch.eye(6, dtype=torch.bool)
    players = GridPlayers(3, 2)
    found = perturbation_interaction(net, clean, adversarial, labels, players, targets=targets)
    torch.testing.assert_close(found, table[:, off].mean(1))
    assert float(found.abs().min()) > 1e-4
    # Every difference is the same, so few contexts are exact.
    metric = PerturbationInteraction(players, AllPairs(), contexts=2)
    metric.update(net, clean, adversarial, labels, targets)
    result = metric.compute()
    size = float(table[:, off].abs().mean())
    assert float(result["plug_in"]) == pytest.approx(size)
    assert float(result["split_sign"]) == pytest.approx(size)
    assert float(result["rms"]) == pytest.approx(float(table[:, off].square().mean().sqrt()))


def test_nothing_interacts_in_a_linear_network():
    net, (clean, adversarial, labels) = Quadratic(0.0), batch(3, 2)
    metric = PerturbationInteraction(GridPlayers(3, 2), AllPairs(), contexts=4)
    metric.update(net, clean, adversarial, labels)
    result = metric.compute()
    assert abs(float(result["mean"])) < 1e-12
    assert float(result["plug_in"]) < 1e-12
    assert abs(float(result["gain"])) > 0.01


def test_cells_of_a_grid_change_together():
    """A 4 × 4 image in 2 × 2 cells, against the same game on the four cells' own utilities."""
    generator = torch.Generator().manual_seed(3)
    clean, adversarial = torch.rand(2, 1, 2, 4, 4, generator=generator, dtype=torch.float64)
    net = nn.Sequential(nn.Flatten(), nn.Linear(32, 8), nn.Tanh(), nn.Linear(8, CLASSES)).double()
    labels = torch.tensor([1])
    final = net(adversarial)[0].detach()

    def v(cells):
        image = clean.clone()
        for r, c in cells:
            part = (..., slice(2 * r, 2 * r + 2), slice(2 * c, 2 * c + 2))
            image[part] = adversarial[part]
        return utility(net, image[0], 1, None, final)

    cells = [(0, 0), (0, 1), (1, 0), (1, 1)]
    terms = [v(cells) - v([c for c in cells if c != i]) - v([i]) + v([]) for i in cells]
    found = perturbation_interaction(net, clean, adversarial, labels, GridPlayers(2, 2))
    assert float(found) == pytest.approx(average(terms) / 3)
    game = perturbation_game(net, clean, adversarial, labels, GridPlayers(2, 2))
    ends = game(torch.tensor([[False] * 4, [True] * 4]))
    assert ends[0].tolist() == pytest.approx([v([]), v(cells)])


# On a small convolutional network, in float32.

PLAYERS = GridPlayers(4, 4)


def digits():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DigitsNet(width=4)


def perturbed(count=7):
    generator = torch.Generator().manual_seed(2)
    clean, noise = torch.rand(2, count, 1, 8, 8, generator=generator)
    return clean, (clean + 0.4 * (noise - 0.5)).clamp(0, 1), torch.arange(count) % 10


def metric(**options):
    return PerturbationInteraction(PLAYERS, RandomPairs(1, 5), contexts=6, **options)


def measure(parts, data=None, **options):
    measured = metric(**options)
    for part in parts:
        measured.update(digits(), *(value[part] for value in data or perturbed()))
    return measured


def close(one, other):
    assert one.keys() == other.keys()
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=1e-4, atol=1e-6, equal_nan=True)


WHOLE = [list(range(7))]


def test_same_for_any_batch_chunk_order_and_repetition():
    result = measure(WHOLE).compute()
    assert result["samples"] == 7
    close(measure([[3, 1], [0], [2, 4, 5, 6], []]).compute(), result)
    close(measure(WHOLE, chunk_size=5).compute(), result)
    close(measure([*WHOLE, [0, 1]]).compute(), result)
    assert not torch.allclose(measure(WHOLE, seed=1).compute()["plug_in"], result["plug_in"])
    whole = perturbation_interaction(digits(), *perturbed(), PLAYERS)
    chunked = perturbation_interaction(digits(), *perturbed(), PLAYERS, chunk_size=3)
    single = [perturbation_interaction(digits(), *(v[b : b + 1] for v in perturbed()), PLAYERS)
              for b in range(7)]  # fmt: skip
    torch.testing.assert_close(chunked, whole, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(torch.cat(single), whole, rtol=1e-4, atol=1e-6)


def test_two_attacks_on_one_image_count_twice():
    clean, adversarial, labels = perturbed()
    both = measure(WHOLE)
    both.update(digits(), clean, (clean + 0.1).clamp(0, 1), labels)
    both.update(digits(), clean, adversarial, labels, (labels + 1) % 10)
    assert both.compute()["samples"] == 21


@pytest.mark.parametrize(
    ("mine", "others"),
    [([0, 2, 4, 6], [1, 3, 5, 0, 2]), (list(range(7)), []), ([], list(range(7)))],
)
def test_gathered_from_two_processes(mine, others):
    """What another process sends; real processes test the base class with the spectrum."""
    other = measure([others])
    other._never_empty()
    states = {state.dtype: state for state in (other.content[0], other.rows[0])}

    def gather(state, group):
        assert state.dim() == states[state.dtype].dim()
        return [state, states[state.dtype]]

    measured = measure([mine], dist_sync_fn=gather, distributed_available_fn=lambda: True)
    close(measured.compute(), measure(WHOLE).compute())


def test_leaves_no_trace():
    net = digits().train()
    state = torch.get_rng_state()
    with torch.inference_mode():
        metric().update(net, *perturbed())
    assert net.training
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_empty_and_plot():
    measured = metric()
    measured.update(digits(), *perturbed(0))
    with pytest.warns(UserWarning, match="PerturbationInteraction has no sample"):
        assert measured.compute()["mean"].isnan()
    measured = measure(WHOLE)
    figure, axes = measured.plot()
    assert isinstance(figure, Figure)
    heights = [bar.get_height() for bar in axes.patches]
    assert heights[0] == pytest.approx(float(measured.compute()["mean"]))
    assert measured.plot(measured.compute(), axes) == (figure, axes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adversarial": torch.rand(7, 1, 8, 9)}, "adversarial: got"),
        ({"adversarial": torch.rand(7, 1, 8, 8).double()}, "adversarial: got"),
        ({"labels": torch.zeros(7)}, "labels: got torch.float32"),
        ({"labels": torch.zeros(6).long()}, r"labels: got torch.int64 \(6,\)"),
        ({"labels": torch.full((7,), 10)}, "labels: got 10, expected classes 0 … 9"),
        ({"targets": torch.full((7,), -1)}, "targets: got -1"),
        ({"model": nn.Identity()}, r"model: got an output of \(7, 1, 8, 8\)"),
        ({"players": GridPlayers(9, 9)}, "players: got a grid of 9 x 9"),
        ({"players": GridPlayers(1, 1)}, "game: got 1 player"),
        ({"adversarial": torch.full((7, 1, 8, 8), torch.nan)}, "not finite for sample 0"),
        (dict(zip(("clean", "adversarial", "labels"), perturbed(0), strict=True)), "clean: got"),
    ],
)
def test_refusals(change, message):
    clean, adversarial, labels = perturbed()
    given = {"model": digits(), "clean": clean, "adversarial": adversarial, "labels": labels}
    with pytest.raises(InputError, match=message):
        perturbation_interaction(**{**given, "players": PLAYERS, **change})


def test_refused_contexts():
    with pytest.raises(InputError, match="contexts: got 1"):
        PerturbationInteraction(contexts=1)
