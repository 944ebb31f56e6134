"""The metrics against the papers' definitions, word for word, and their promises."""

import itertools
import math
import pickle

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from interaction_train.callbacks import ExactInteractions
from interaction_train.errors import InputError
from interaction_train.game.masked import MaskedGame
from interaction_train.game.payoffs import log_odds, log_prob, logit
from interaction_train.game.players import GridPlayers
from interaction_train.indices import exact_values, interaction_spectrum, multi_order_interactions
from interaction_train.metrics import (
    COLUMNS,
    Disentanglement,
    InteractionSpectrum,
    InteractionStrength,
    spectrum,
    unique_rows,
)
from interaction_train.metrics.rows import exact_rows, strength
from interaction_train.sampling.pairs import AllPairs, NeighbourPairs, RandomPairs
from tests.metrics.watch import RATIOS, images, metric, network

N = 6
BASELINE = 0.2
SMALL = {
    "players": GridPlayers(2, 3),
    "pairs": AllPairs(),
    "baseline": BASELINE,
    "only_correct": False,
}


def small_network():
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 4)).double()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return net


def small_images():
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(4, 1, 2, 3, generator=generator, dtype=torch.float64) * 2
    return x, torch.tensor([0, 3, 1, 1])


def deltas(payoff):
    """Δv(i,j,S|x) by the definition: x → order → pair → the list over all contexts."""
    net, (x, y) = small_network(), small_images()

    def v(b, present):
        pixels = torch.tensor(
            [float(x[b].flatten()[k]) if k in present else BASELINE for k in range(N)]
        )
        return float(payoff(net(pixels.double()[None]), y[b : b + 1]))

    result = []
    with torch.no_grad():
        for b in range(4):
            by_order = []
            for m in range(N - 1):
                by_pair = []
                for i, j in itertools.combinations(range(N), 2):
                    rest = [k for k in range(N) if k not in (i, j)]
                    by_pair.append([
                        v(b, {*s, i, j}) - v(b, {*s, i}) - v(b, {*s, j}) + v(b, {*s})
                        for s in itertools.combinations(rest, m)
                    ])  # fmt: skip
                by_order.append(by_pair)
            result.append(by_order)
    return result


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def test_spectrum_is_that_of_the_definition():
    table = deltas(log_odds)
    strength = [
        mean(mean(abs(mean(contexts)) for contexts in x[m]) for x in table) for m in range(N - 1)
    ]
    signed = [mean(mean(mean(c) for c in x[m]) for x in table) for m in range(N - 1)]
    measured = InteractionSpectrum(ratios=[0, 0.25, 0.5, 0.75, 1], contexts=600, **SMALL)
    measured.update(small_network(), *small_images())
    result = measured.compute()
    for reading in ("plug_in", "split_sign", "rms"):
        ends = [0, -1] if reading != "rms" else []
        for m in ends:
            assert float(result[reading][m]) == pytest.approx(strength[m], rel=1e-6)
    expected = torch.tensor(strength, dtype=torch.float64)
    for reading in ("plug_in", "split_sign"):
        torch.testing.assert_close(result[reading], expected, rtol=0.05, atol=0)
        torch.testing.assert_close(
            result[f"J_{reading}"], expected / expected.mean(), rtol=0.05, atol=0
        )
    assert float(result["J_plug_in"].mean()) == pytest.approx(1)
    rms = [math.sqrt(mean(mean(mean(c) ** 2 for c in x[m]) for x in table)) for m in range(N - 1)]
    torch.testing.assert_close(result["rms"], torch.tensor(rms).double(), rtol=0.05, atol=0)
    torch.testing.assert_close(result["signed"], torch.tensor(signed).double(), rtol=0.1, atol=0.02)
    assert int(result["samples"]) == 4


def test_disentanglement_is_that_of_the_definition():
    table = deltas(log_prob)
    expected = [
        mean(mean(abs(mean(c)) for c in x[m]) for x in table)
        / mean(mean(mean(map(abs, c)) for c in x[m]) for x in table)
        for m in range(N - 1)
    ]
    measured = Disentanglement(ratios=[0, 0.25, 0.5, 0.75, 1], contexts=600, **SMALL)
    measured.update(small_network(), *small_images())
    result = measured.compute()
    for reading in ("D_plug_in", "D_split_sign"):
        torch.testing.assert_close(
            result[reading], torch.tensor(expected).double(), rtol=0.05, atol=0
        )
        assert result[reading][[0, -1]].tolist() == pytest.approx([1, 1])


def test_strength_is_that_of_the_definition():
    table = deltas(logit)
    net, (x, y) = small_network(), small_images()
    # I^Shap is the mean of the orders.
    top = mean(
        mean(abs(mean(mean(row[m][p]) for m in range(N - 1))) for p in range(15)) for row in table
    )
    logits = net(x).detach()
    rest = [(logits[b].sum() - logits[b, y[b]]) / 3 for b in range(4)]
    scale = mean(abs(float(logits[b, y[b]] - rest[b])) for b in range(4))
    measured = InteractionStrength(contexts=600, **SMALL)
    measured.update(net, x, y)
    result = measured.compute()
    assert float(result["scale"]) == pytest.approx(scale)
    for reading in ("strength_plug_in", "strength_split_sign"):
        assert float(result[reading]) == pytest.approx(top / scale, rel=0.05)
    assert result["strength_rms"].dim() == 0


def close(one, other):
    assert one.keys() == other.keys()
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=1e-4, atol=1e-6, equal_nan=True)


def measure(parts, **changes):
    measured = metric(**changes)
    x, y = images()
    for part in parts:
        measured.update(network(), x[part], y[part])
    return measured


WHOLE = [list(range(9))]


def test_same_for_any_batch_chunk_order_and_repetition():
    result = measure(WHOLE).compute()
    assert result["samples"] == 9
    close(measure([[3, 1], [0, 8, 7], [2, 4, 5, 6]]).compute(), result)
    close(measure(WHOLE, chunk_size=5).compute(), result)
    close(measure([*WHOLE, [0, 1]]).compute(), result)  # padding by repetition
    other = measure(WHOLE, seed=1).compute()
    assert not torch.allclose(other["plug_in"], result["plug_in"], rtol=1e-3)


def test_merges_and_is_saved():
    result = measure(WHOLE).compute()
    first, second = measure([[0, 1, 2, 3]]), measure([[3, 4, 5, 6, 7, 8]])
    first.merge_state(second)
    close(first.compute(), result)
    saved = measure(WHOLE)
    close(pickle.loads(pickle.dumps(saved)).compute(), result)
    saved.persistent(True)
    state = saved.state_dict()
    again = metric()
    again.persistent(True)
    again.load_state_dict(state)
    close(again.compute(), result)


def test_only_correct_leaves_others_out():
    net, (x, _) = network(), images()
    right = net(x).argmax(-1)
    labels = torch.where(torch.arange(9) < 4, right, (right + 1) % 10)
    measured = metric(only_correct=True)
    measured.update(net, x, labels)
    few = metric()
    few.update(net, x[:4], right[:4])
    close(measured.compute(), few.compute())
    none = metric(only_correct=True)
    none.update(net, x[4:], labels[4:])
    with pytest.warns(UserWarning, match="InteractionSpectrum has no sample.*none was classified"):
        result = none.compute()
    assert result["samples"] == 0
    assert result["J_plug_in"].shape == (3,)
    assert result["J_plug_in"].isnan().all()


def test_modes_and_gradients_stay():
    net = network().train()
    with torch.inference_mode():
        metric().update(net, *images())
    assert net.training
    assert all(p.grad is None for p in net.parameters())


def test_standard_errors_over_samples():
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(4000, len(COLUMNS), 3, generator=generator, dtype=torch.float64) + 0.2
    claimed = {k: v for k, v in spectrum(draws[:40]).items() if k.endswith("_stderr")}
    runs = [spectrum(part) for part in draws.split(40)]
    for key in claimed:
        values = torch.stack([run[key.removesuffix("_stderr")] for run in runs])
        errors = torch.stack([run[key] for run in runs]).mean(0)
        torch.testing.assert_close(errors, values.std(0), rtol=0.3, atol=0)


def test_unique_rows():
    rows = torch.arange(8.0).view(4, 2, 1)
    content = torch.tensor([5, -3, 5, 7])
    rows[2] = rows[0]
    assert unique_rows(content, rows).flatten(1).tolist() == [[2, 3], [0, 1], [6, 7]]


@pytest.mark.parametrize("kind", [InteractionSpectrum, Disentanglement, InteractionStrength])
def test_plots(kind):
    options = {} if kind is InteractionStrength else {"ratios": RATIOS}
    measured = kind(
        GridPlayers(4, 4), contexts=2, pairs=NeighbourPairs(1), only_correct=False, **options
    )
    measured.update(network(), *images())
    figure, axes = measured.plot()
    assert isinstance(figure, Figure)
    again, same = measured.plot(measured.compute(), axes)
    assert (again, same) == (figure, axes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contexts": 0}, "contexts: got 0"),
        ({"contexts": 2.5}, "contexts: got 2.5, expected a whole number"),
        ({"contexts": "8"}, "contexts: got '8', expected a whole number"),
        ({"ratios": [0.5, 0.5]}, "ratios: got"),
        ({"ratios": [0, 2]}, "ratios: got"),
        ({"ratios": []}, "ratios: got"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(InputError, match=message):
        metric(**options)


def test_labels_that_do_not_fit():
    x, y = images()
    with pytest.raises(InputError, match=r"y: got torch.float32 \(9,\), expected int64 \(9,\)"):
        metric().update(network(), x, y.float())
    with pytest.raises(InputError, match="y: got 10 classes and labels from 1 to 10"):
        metric(only_correct=True).update(network(), x[1:3], torch.tensor([1, 10]))
    one = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    with pytest.raises(InputError, match="model: got one logit"):  # right of no label 1
        metric(only_correct=True, baseline=0.5).update(one, x, torch.ones_like(y))
    with pytest.raises(InputError, match="reading: got 'abs'"):
        measure(WHOLE).plot(reading="abs")


def test_an_additive_network_has_no_spectrum():
    """NaN, not rounding noise; exact and sampled."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    x, y = torch.rand(6, 1, 8, 8), torch.arange(6)
    options = {"payoff": "logit", "only_correct": False, "baseline": 0.5, "chunk_size": 64}
    players = GridPlayers(3, 3)
    for kind in (InteractionSpectrum, Disentanglement):
        measured = kind(players, ratios=[0, 0.5, 1], pairs=RandomPairs(2, 2), contexts=8, **options)
        measured.update(net, x, y)
        result = measured.compute()
        shown = {k: v for k, v in result.items() if k[:2] in ("J_", "D_") and "stderr" not in k}
        assert shown
        assert all(value.isnan().all() for value in shown.values())
    values = exact_values(MaskedGame(net, x, 0.5, players, "logit", y))
    assert interaction_spectrum(multi_order_interactions(values)).isnan().all()
    two = nn.Sequential(net[0], nn.Linear(64, 2))  # their log-odds are additive too
    found = ExactInteractions(3, 3, baseline=0.5).evaluate(two, x, y % 2)
    assert torch.tensor(found["J"]["value"]).isnan().all()


def test_errors_of_exact_ratios_are_those_of_a_bootstrap():
    torch.manual_seed(0)
    base = 1 + 4 * torch.rand(400, 1, 1, 1, dtype=torch.float64)  # images differ in scale
    orders = base * (torch.rand(400, 5, 4, 4, dtype=torch.float64) + 1)
    orders = orders + orders.transpose(-1, -2)
    rows = exact_rows(orders, base.flatten() * (1 + torch.rand(400)))
    generator = torch.Generator().manual_seed(1)
    again = [rows[torch.randint(400, (400,), generator=generator)] for _ in range(400)]
    claimed = spectrum(rows)["J_plug_in_stderr"]
    spread = torch.stack([spectrum(part)["J_plug_in"] for part in again]).std(0)
    torch.testing.assert_close(claimed, spread, rtol=0.15, atol=0)
    claimed = strength(rows[:, :, :1])["strength_plug_in_stderr"]
    spread = torch.stack([strength(part[:, :, :1])["strength_plug_in"] for part in again]).std()
    torch.testing.assert_close(claimed, spread, rtol=0.15, atol=0)
    assert claimed < 0.7 * strength(rows[:, :, :1])["plug_in_stderr"] / rows[:, -1].mean()
