import pytest
import torch

from interaction_train.errors import InputError
from interaction_train.losses import (
    BandLoss,
    InteractionLoss,
    OrderLoss,
    order_weights,
    order_weights_figure,
)
from tests.losses.games import Game, all_draws, curve, grid, images, mean_interactions, values


def test_weights_of_any_combination_of_sizes():
    n = 6
    model, (x, _) = Game(n).double(), images(2, n)
    v = values(model, x, 0.25)
    f, orders = curve(v, n), mean_interactions(v, n)
    mean_main = f[1] - f[0]
    for combination in ({4: 1.0, 2: -2.0}, {6: 0.5, 0: 1.0, 3: -1.0}, {1: 1.0}):
        weights = order_weights(n, combination)
        said = weights.empty * f[0] + weights.main * mean_main
        said = said + sum(w * o for w, o in zip(weights.orders, orders, strict=True))
        expected = sum(coefficient * f[size] for size, coefficient in combination.items())
        torch.testing.assert_close(said, expected)


@pytest.mark.parametrize("groups", [2, 3])
def test_interaction_loss(groups):
    """The keep rate is uniform, so that all sizes of a context are equally likely."""
    n = 7
    weights = InteractionLoss(players=grid(n), group_fraction=0.15, groups=groups).order_weights(n)
    free = n - groups
    expected = torch.zeros(n - 1, dtype=torch.float64)
    expected[: free + 1] = 1 / (free + 1)
    torch.testing.assert_close(weights.orders, expected)
    assert (weights.main, weights.empty) == pytest.approx((0, 0), abs=1e-12)


def test_text_names_what_takes_part():
    text = str(BandLoss(0.5, 0.25, players=grid(16)).order_weights(16))
    assert "orders 4…10 of 0…14" in text
    assert "most at m = 7 (0.50 of n−2)" in text
    assert "main effect" not in text
    assert "v(∅)" not in text
    text = str(OrderLoss(0, 0.5, players=grid(16)).order_weights(16))
    assert "orders 0…6 of 0…14" in text
    assert "8 × the mean main effect" in text
    text = str(OrderLoss(0.5, 1, players=grid(16)).order_weights(16))
    assert "-1 × v(∅)" in text
    assert str(order_weights(4, {1: 1.0})).startswith("no interaction")
    assert "of 0…0" in str(order_weights(2, {2: 1.0}))


def test_bars_follow_the_weights():
    text = str(order_weights(6, {5: 1.0, 0: -1.0}))  # 4, 3, 2, 1, 0
    assert text.startswith("|█▆▄▂ |")


def test_middle_half_of_the_weight():
    weights = order_weights(12, {8: 1.0, 6: -2.0, 4: 1.0})  # 1, 2, 1 at orders 4, 5, 6
    assert weights.interval(0.5) == (5, 5)
    assert weights.interval(0.6) == (4, 6)
    assert weights.interval(1.0) == (4, 6)


def test_figure_shows_the_weights():
    settings = {
        "band": BandLoss(0.5, 0.25, players=grid(16)).order_weights(16),
        "low": OrderLoss(0, 0.5, players=grid(25)).order_weights(25),
    }
    figure = order_weights_figure(settings)
    (axes,) = figure.axes
    band, low = axes.lines
    assert len(band.get_xdata()) == 15
    assert list(band.get_xdata())[-1] == 1
    assert torch.tensor(band.get_ydata()).argmax() == 7
    assert max(low.get_ydata()) == 1
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "band",
        "low (and main effects)",
    ]


def test_bad_arguments():
    with pytest.raises(InputError, match="n: got 1"):
        order_weights(1, {})
    with pytest.raises(InputError, match="curve"):
        order_weights(3, {4: 1.0})


def test_all_draws_covers_every_permutation():
    assert len(all_draws(4, 1)[0].unique(dim=0)) == 24
