import warnings

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn

import interaction_train as it
from interaction_train.attributions import infidelity
from interaction_train.baselines import LearnedBaseline, compare_baselines, learn_baseline
from interaction_train.baselines.problem import BaselineProblem
from interaction_train.callbacks import ExactInteractions
from interaction_train.errors import InputError
from tests.baselines.games import Known, ones, smooth_network

FAST = {"steps": 3, "contexts": 2, "batch_size": 4}


def table(count=12):
    generator = torch.Generator().manual_seed(2)
    x = 5 + 3 * torch.randn(count, 4, generator=generator, dtype=torch.float64)
    return x, torch.arange(count) % 3


@pytest.mark.parametrize("start", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("objective", ["low_order_shapley", "low_order_marginal"])
def test_the_true_baseline_is_found(start, objective):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = learn_baseline(
            Known(), ones(), it.UnitPlayers(), objective=objective, start=start, steps=100,
            contexts=10, lr=0.05,
        )  # fmt: skip
    assert abs(float(found.value)) < 0.02
    assert found.after.effect > found.before.effect
    assert found.history.shape == (100,)


def test_dividends_alone_end_at_the_sample_itself():
    with pytest.warns(UserWarning, match="so near to the samples"):
        found = learn_baseline(
            Known(), ones(), it.UnitPlayers(), objective="dividend_l1", start=0.5, steps=150
        )
    assert float(found.value) == pytest.approx(1, abs=0.01)
    assert found.after.strength < 0.01


def test_measures_are_their_definitions():
    network, (x, y) = smooth_network(4), table()
    found = learn_baseline(network, (x, y), it.UnitPlayers(), start="median", **FAST).before
    middle = torch.from_numpy(np.median(x.numpy(), axis=0))
    v = it.exact_values(it.MaskedGame(network, x, middle, it.UnitPlayers(), "log_odds", y))
    size = it.dividends(v)[:, 1:].abs()
    order = size.sort(-1, descending=True).values.cumsum(-1)
    single = size[:, [0, 1, 3, 7]].sum(-1)
    assert found.effect == pytest.approx(float((v[:, -1] - v[:, 0]).abs().mean()))
    assert found.strength == pytest.approx(float(size.sum(-1).mean()))
    assert found.strength_over_effect == pytest.approx(found.strength / found.effect)
    enough = (order >= 0.9 * order[:, -1:]).int().argmax(-1) + 1
    assert found.k90 == pytest.approx(float(enough.float().mean()))
    assert found.first_order == pytest.approx(float(single.sum() / size.sum()))
    assert found.loss_over_effect == pytest.approx(found.loss / found.effect)
    game = it.MaskedGame(network, x, middle, it.UnitPlayers(), "log_odds", y)
    squared = infidelity(game, it.shapley_values(v)).mean()
    assert found.infidelity == pytest.approx(float(squared) ** 0.5)
    assert found.infidelity_over_effect == pytest.approx(found.infidelity / found.effect)


@pytest.mark.parametrize("relative", [False, True])
def test_the_loss_falls_within_its_bound_and_leaves_no_trace(relative):
    network, (x, y) = smooth_network(4).train(), table()
    state = torch.get_rng_state()
    found = learn_baseline(
        network, (x, y), it.UnitPlayers(), steps=60, max_shift=0.5, relative=relative
    )
    key = "loss_over_effect" if relative else "loss"
    assert getattr(found.after, key) < getattr(found.before, key)
    bound = 0.5 * x.std(0, correction=0)
    assert ((found.value - x.mean(0)).abs() <= bound + 1e-12).all()
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training
    assert all(p.grad is None and p.requires_grad for p in network.parameters())


def test_the_gradient_is_that_of_the_ratio_of_means():
    x, y = table(5)
    problem = BaselineProblem(smooth_network(4), it.UnitPlayers())
    b = x.mean(0).requires_grad_()
    loss, _ = problem.loss(x, y, b)
    (found,) = torch.autograd.grad(loss, b)
    step = 1e-5 * torch.eye(4, dtype=b.dtype)
    with torch.no_grad():
        ends = [[problem.loss(x, y, b + sign * one)[1] for sign in (1, -1)] for one in step]
    wanted = torch.stack([(high - low) / 2e-5 for high, low in ends])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-8)


def test_batches_and_tensors_give_the_same():
    network, (x, y) = smooth_network(4), table()
    players = it.UnitPlayers()
    whole = learn_baseline(network, (x, y), players, **FAST)
    parts = learn_baseline(network, zip(x.split(5), y.split(5), strict=True), players, **FAST)
    torch.testing.assert_close(whole.value, parts.value)
    chunked = learn_baseline(network, (x, y), players, chunk_size=7, **FAST)
    torch.testing.assert_close(whole.value, chunked.value)


def test_shapes_of_images_embeddings_and_layers():
    y = torch.arange(5) % 3
    images = torch.rand(5, 2, 4, 4)
    network = nn.Sequential(nn.Flatten(), nn.Linear(32, 6), nn.ReLU(), nn.Linear(6, 3))
    found = learn_baseline(network, (images, y), it.GridPlayers(2, 2), **FAST)
    assert found.value.shape == (2, 1, 1)
    assert found.settings["players"] == "GridPlayers(2, 2)"
    hidden = learn_baseline(network, (images, y), it.UnitPlayers(), layer="2", **FAST)
    assert hidden.value.shape == (6,)
    embedded = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    found = learn_baseline(embedded, (torch.rand(5, 4, 3), y), it.UnitPlayers(), **FAST)
    assert found.value.shape == (3,)


def test_a_saved_baseline_stands_where_a_number_does(tmp_path):
    network, (x, y) = smooth_network(4), table()
    found = learn_baseline(network, (x, y), it.UnitPlayers(), **FAST)
    path = tmp_path / "b.safetensors"
    found.save(path)
    again = LearnedBaseline.load(path)
    assert repr(again) == repr(found)
    assert torch.equal(it.input_baseline(network, str(path), x), found.value)
    assert again.table().loc["after", "k90"] == found.after.k90
    term = it.InteractionLoss(players=it.UnitPlayers(), baseline=str(path))
    number = it.InteractionLoss(players=it.UnitPlayers(), baseline=found.value.tolist())
    torch.testing.assert_close(term(network, x, y, step=0), number(network, x, y, step=0))
    goes_on = learn_baseline(network, (x, y), it.UnitPlayers(), start=path, **FAST)
    assert goes_on.before == found.after


@pytest.mark.parametrize(
    ("given", "read"),
    [("0.5", 0.5), ("[0.5, 1]", [0.5, 1.0]), ("a/b.safetensors", "a/b.safetensors")],
)
def test_configurations_have_numbers_or_a_path(given, read):
    parser = ArgumentParser()
    parser.add_class_arguments(ExactInteractions, "callback")
    assert parser.parse_args([f"--callback.baseline={given}"]).callback.baseline == read


@pytest.mark.parametrize("bad", ["missing", "foreign", "shape"])
def test_a_file_that_does_not_fit_is_named(bad, tmp_path):
    path = tmp_path / "b.safetensors"
    if bad == "foreign":
        path.write_bytes(b"no tensors")
    if bad == "shape":
        network = smooth_network(4)
        learn_baseline(network, table(), it.UnitPlayers(), **FAST).save(path)
    with pytest.raises(InputError, match=r"^baseline: got"):
        it.input_baseline(smooth_network(5), str(path), torch.rand(2, 5))
    if bad != "shape":
        with pytest.raises(InputError, match=r"^baseline: got"):
            it.InteractionLoss(players=it.UnitPlayers(), baseline=str(path))


def test_a_comparison_has_a_row_per_baseline(tmp_path):
    network, (x, y) = smooth_network(4), table()
    found = compare_baselines(network, (x, y), it.UnitPlayers(), **FAST)
    assert list(found.index) == ["mean", "median", "zero", "learned"]
    own = compare_baselines(network, (x, y), it.UnitPlayers(), {"mine": x.mean(0), "none": 0.0})
    assert own.loc["mine", "strength"] == pytest.approx(found.loc["mean", "strength"])
    assert own.loc["none", "effect"] == pytest.approx(found.loc["zero", "effect"])
    images = torch.rand(3, 1, 6, 6), torch.tensor([0, 1, 2])
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    blurred = compare_baselines(net, images, it.GridPlayers(2, 2), {"blur", "zero"})
    assert list(blurred.index) == ["zero", "blur"]
    with pytest.raises(InputError, match="baselines: got 'blur'"):
        compare_baselines(network, (x, y), it.UnitPlayers(), ["blur"])


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("start", {"start": "mode"}),
        ("start", {"start": [1.0, 2.0]}),
        ("start", {"start": torch.zeros(7)}),
        ("start", {"start": float("nan")}),
        ("objective", {"objective": "shapley"}),
        ("max_shift", {"max_shift": 0.0}),
        ("lr", {"lr": 0.0}),
        ("steps", {"steps": 0}),
    ],
)
def test_bad_arguments_are_named(argument, options):
    with pytest.raises(InputError, match=f"^{argument}"):
        learn_baseline(smooth_network(4), table(), it.UnitPlayers(), **options)


def test_bad_data_are_named():
    x, y = table()
    for bad, match in (((x, y + 2), "3 classes and labels from 2 to 4"), ((x.long(), y), "int64")):
        for call in (learn_baseline, compare_baselines):
            with pytest.raises(InputError, match=f"^data.*{match}"):
                call(smooth_network(4), bad, it.UnitPlayers())
    network = smooth_network(4)
    for bad in (torch.zeros(4), learn_baseline(network, (x, y), it.UnitPlayers(), **FAST)):
        loss = it.InteractionLoss(players=it.UnitPlayers(), baseline=bad)
        with pytest.raises(InputError, match=r"^baseline: .* or the .safetensors file"):
            loss(network, x, y)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_learns_where_gradients_are_off(mode):
    network = smooth_network(4)
    with mode():
        found = learn_baseline(network, table(), it.UnitPlayers(), **FAST)
    expected = learn_baseline(network, table(), it.UnitPlayers(), **FAST)
    assert torch.equal(found.value, expected.value)


def test_a_start_at_the_sample_is_refused():
    with pytest.raises(InputError, match=r"start.*differs from the samples"):
        learn_baseline(Known(), ones(), it.UnitPlayers(), start="mean", steps=1)
