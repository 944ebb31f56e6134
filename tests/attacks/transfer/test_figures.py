"""The figures of a transfer matrix, by what can be told without eyes."""

import math

import pytest
import torch

from interaction_train.attacks.transfer import report
from interaction_train.attacks.transfer.rates import Proportion, TransferCell
from tests.tracking.looks import check

TARGETS = ("digits_resnet", "digits_cnn", "digits_mlp")
NONE = Proportion(0, 0)


def lines(levels, known=True) -> list[list[TransferCell]]:
    return [
        [
            TransferCell(
                source, attack, level / 255, target, target == source, False, 150,
                Proportion(140, 150), Proportion(3 * level, 150),
                Proportion(2 * level + place, 140) if known else NONE, NONE, NONE, None, 80, 80,
                level / 255,
            )
            for place, target in enumerate(TARGETS)
        ]
        for source in TARGETS[:2]
        for attack in ("FGSM", "PGD", "SIA + masked + MI", "interaction-reduced")
        for level in levels
    ]  # fmt: skip


@pytest.mark.parametrize("levels", [[8], [1, 2, 4, 8, 16, 25, 38], range(1, 33)])
def test_curves_over_epsilon_can_be_read(levels):
    figure = report._epsilon_figure(lines(levels))
    check(figure)
    first, *_ = figure.axes
    shown = [tick.get_text() for tick in first.get_xticklabels()]
    assert f"{max(levels)}/255" in shown
    assert 2 <= len(shown) <= 7
    assert all(text == "0" or text.endswith("/255") for text in shown)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [f"target {t}" for t in TARGETS]
    assert len({(line.get_color(), line.get_linestyle()) for line in first.lines}) == 8
    hollow = [line.get_markerfacecolor() == "white" for line in first.lines]
    assert hollow == [True] * 4 + [False] * 4  # white box


def test_bands_are_wilsons_intervals():
    (axes, *_) = report._epsilon_figure(lines([8, 16])).axes
    band = axes.collections[0].get_paths()[0].vertices
    at = band[abs(band[:, 0] - 8 / 255) < 1e-9][:, 1]
    low, high = Proportion(16, 140).interval
    assert (at.min(), at.max()) == pytest.approx((100 * low, 100 * high))


@pytest.mark.parametrize("known", [True, False])
def test_the_matrix_shows_rates_and_intervals(known):
    figure = report._matrix_figure(lines([8, 16], known))
    check(figure)
    axes = figure.axes[0]
    low, high = Proportion(32, 140).interval
    told = axes.texts[0].get_text()
    assert told == (f"22.9\n{100 * low:.0f}–{100 * high:.0f}" if known else "–")
    assert len(axes.patches) == 8  # frames of white boxes
    assert axes.get_title(loc="left") == "Transfer at ε = 16/255"
    assert math.isnan(NONE.rate)
    if not known:
        assert axes.texts[0].get_color() != "white"  # on a white page


def test_examples_have_whole_captions():
    clean = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    said = ["digits_cnn 7 → 3, digits_mlp 7 → 3"] * 2
    figure = report._examples_figure({"": (clean, ["7", "1"]), "strong on cnn": (1 - clean, said)})
    figure.suptitle("a")
    check(figure)
    captions = [" ".join(axes.get_title().split()) for axes in figure.axes]
    assert captions[0] == "7"
    assert captions[1].startswith("strong on cnn perturbation × ")
    assert captions[2] == said[0]
