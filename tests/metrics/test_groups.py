"""Groups of samples: exact parts of the whole, each as if measured alone."""

import pickle

import pytest
import torch
from torch import nn

from interaction_train.errors import InputError
from interaction_train.game.players import GridPlayers
from interaction_train.indices import multi_order_interactions
from interaction_train.indices.exact import all_coalitions, values_from_dividends
from interaction_train.metrics import COLUMNS, Disentanglement, InteractionStrength, flexibility
from interaction_train.metrics.rows import exact_rows
from interaction_train.sampling.pairs import RandomPairs
from tests.metrics.watch import RATIOS, images, metric, network

GIVEN = torch.tensor([2, 2, -1, 2, -1, 5, 5, -1, 2])


def bright(x, y, logits):
    return x.mean((1, 2, 3)) > 0.5


def measured(parts=(slice(None),), group=None, **changes):
    found = metric(**changes)
    x, y = images()
    for part in parts:
        found.update(network(), x[part], y[part], None if group is None else group[part])
    return found


@pytest.mark.parametrize("groups", ["label", "correct", "given", bright])
def test_groups_are_exact_parts_of_the_whole(groups):
    group = GIVEN if groups == "given" else None
    result = measured(groups=groups, group=group).compute()
    x, y = images()
    logits = network()(x)
    ids = {"label": y, "given": GIVEN, "correct": logits.argmax(-1).eq(y).long()}.get(
        groups, bright(x, y, logits).long()
    )
    assert result["groups"].tolist() == ids.unique().tolist()
    assert result["group_samples"].tolist() == ids.unique(return_counts=True)[1].tolist()
    weights = result["group_samples"].double()[:, None] / len(x)
    for key in ("plug_in", "split_sign", "signed"):
        whole = (weights * result[f"group_{key}"]).sum(0)
        torch.testing.assert_close(whole, result[key], rtol=1e-12, atol=1e-14)
    for place, one in enumerate(ids.unique()):  # as if it were all that is measured
        alone = metric()
        alone.update(network(), x[ids == one], y[ids == one])
        for key, value in alone.compute().items():
            torch.testing.assert_close(
                result[f"group_{key}"][place], value, rtol=1e-4, atol=1e-5, equal_nan=True
            )


def test_any_batches_order_repetition_and_merging():
    result = measured(groups="given", group=GIVEN).compute()
    others = [
        measured([[3, 1], [0, 8, 7], [2, 4, 5, 6]], groups="given", group=GIVEN),
        measured([slice(None), [0, 2]], groups="given", group=GIVEN),
        pickle.loads(pickle.dumps(measured(groups="given", group=GIVEN))),
        measured([[0, 1, 2, 3]], groups="given", group=GIVEN),
    ]
    others[-1].merge_state(measured([[3, 4, 5, 6, 7, 8]], groups="given", group=GIVEN))
    for other in others:
        found = other.compute()
        assert found.keys() == result.keys()
        for key in result:
            torch.testing.assert_close(
                found[key], result[key], rtol=1e-4, atol=1e-5, equal_nan=True
            )


def test_only_correct_samples_keep_their_groups():
    x, _ = images()
    y = network()(x).argmax(-1)
    wrong = torch.where(torch.arange(9) < 4, (y + 1) % 10, y)
    found = metric(only_correct=True, groups="given")
    found.update(network(), x, wrong, GIVEN)
    result = found.compute()
    assert dict(zip(result["groups"].tolist(), result["group_samples"].tolist(), strict=True)) == {
        -1: 2, 2: 1, 5: 2
    }  # fmt: skip
    both = metric(only_correct=None, groups="correct")
    both.update(network(), x, wrong)
    assert both.compute()["group_samples"].tolist() == [4, 5]


def test_no_sample_is_no_group():
    fewer = metric(groups="label")
    fewer.ratios = RATIOS[:1]  # as fast_dev_run has it; a process may have no sample
    with pytest.warns(UserWarning, match="none came"):
        assert fewer.compute()["group_plug_in"].shape == (0, 1)
    with pytest.warns(UserWarning, match="none came"):
        result = metric(groups="label").compute()
    assert result["groups"].tolist() == []
    assert result["group_J_plug_in"].shape == (0, 3)
    assert result["group_flexibility"].shape == (0,)


@pytest.mark.parametrize("kind", [Disentanglement, InteractionStrength])
def test_the_other_metrics_have_groups_too(kind):
    options = {} if kind is InteractionStrength else {"ratios": [0.5]}
    found = kind(
        GridPlayers(4, 4), pairs=RandomPairs(1, 4), contexts=3, groups="label", only_correct=False,
        **options,
    )  # fmt: skip
    found.update(network(), *images(3))
    result = found.compute()
    key = "strength_plug_in" if kind is InteractionStrength else "D_plug_in"
    assert len(result[f"group_{key}"]) == 3
    found.plot()


def test_the_figure_has_a_curve_of_each_group():
    _, axes = measured(groups="given", group=GIVEN).plot()
    assert axes.get_legend_handles_labels()[1] == ["plug-in", "group -1", "group 2", "group 5"]


@pytest.mark.parametrize(
    ("options", "group", "message"),
    [
        ({"groups": "labels"}, None, "groups: got 'labels'"),
        ({"groups": "correct", "only_correct": True}, None, "only_correct: got True"),
        ({"groups": "given"}, None, "group: got none"),
        ({"groups": "label"}, GIVEN, "group: got ids of groups, which are by 'label'"),
        ({}, GIVEN, "group: got ids"),
        ({"groups": "given"}, GIVEN.float(), r"group: got torch.float32 \(9,\)"),
        ({"groups": lambda x, y, z: y[:3]}, None, r"groups: got torch.int64 \(3,\)"),
        ({"groups": lambda x, y, z: y + 1j}, None, r"groups: got torch.complex64 \(9,\)"),
    ],
)
def test_refusals(options, group, message):
    with pytest.raises(InputError, match=message):
        measured(group=group, **options)


def test_a_sample_in_two_groups_is_refused():
    found = measured(groups="given", group=GIVEN)
    x, y = images()
    found.update(network(), x[:1], y[:1], torch.tensor([7]))
    with pytest.raises(InputError, match="a sample in the groups 2 and 7"):
        found.compute()


def rows_of(whole, first=None, second=None):
    """Rows of samples with strengths ``(B, M)``, and with those from halves of the contexts."""
    rows = torch.ones(len(whole), len(COLUMNS), whole.shape[1], dtype=torch.float64)
    first = whole if first is None else first
    second = first if second is None else second
    for name, values in {"plug_in": whole, "first": first, "second": second}.items():
        rows[:, COLUMNS.index(name)] = values
    return rows


def test_flexibility_is_that_of_the_definition():
    # Shapes (1, 0), (0, 1) and (1/2, 1/2): mean (1/2, 1/2), distances 1/2, 1/2 and 0.
    strengths = torch.tensor([[4.0, 0.0], [0.0, 1.0], [3.0, 3.0], [0.0, 0.0]]).double()
    # Other halves: (1, 0), (0, 1) and (0, 1): mean (1/3, 2/3), distances 2/3, 1/3 and 1/3.
    halves = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0], [0.0, 0.0]]).double()
    found = flexibility(rows_of(strengths, strengths, halves))
    noise = (0 + 0 + 0.5) / 3 / 2**0.5
    assert float(found["flexibility"]) == pytest.approx(1 / 3)
    assert float(found["flexibility_noise"]) == pytest.approx(noise)
    corrected = (((1 / 3 + 4 / 9) / 2) ** 2 - noise**2) ** 0.5
    assert float(found["flexibility_corrected"]) == pytest.approx(corrected)
    assert flexibility(rows_of(strengths[:1]))["flexibility"].isnan()
    alike = flexibility(rows_of(strengths[[0, 0]], strengths[[0, 0]], halves[[2, 2]]))
    assert float(alike["flexibility"]) == float(alike["flexibility_corrected"]) == 0


def test_flexibility_of_games_with_one_interaction_each():
    """ANDs of two, three and four of four players, which have one order each."""
    members = all_coalitions(4)
    sets = [[0, 1], [0, 1, 2], [0, 1, 2, 3]]
    games = torch.stack([
        values_from_dividends((members.sum(1) == len(s)).double() * members[:, s].all(1))
        for s in sets
    ])  # fmt: skip
    orders = multi_order_interactions(games)
    # Order m of the AND of k players: C(2, m) contexts, of which those that hold the others count.
    expected = torch.tensor([[1, 1, 1], [0, 0.5, 1], [0, 0, 1]]).double() * torch.tensor(
        [[1 / 6], [3 / 6], [1]]
    )
    shapes = expected / expected.sum(-1, keepdim=True)
    away = (shapes - shapes.mean(0)).abs().sum(-1).mean() / 2
    found = flexibility(exact_rows(orders, torch.ones(3)))
    assert float(found["flexibility"]) == pytest.approx(float(away))
    assert float(found["flexibility_noise"]) == 0


def test_its_standard_error_is_that_of_the_jackknife():
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(60, 4, generator=generator, dtype=torch.float64).square()
    rows = rows_of(draws, draws, 0.9 * draws + 0.1 * draws.flip(0))
    found = flexibility(rows)
    for key in ("flexibility", "flexibility_corrected"):
        left = torch.stack([
            flexibility(torch.cat([rows[:k], rows[k + 1 :]]))[key] for k in range(60)
        ])  # fmt: skip
        jackknife = ((left - left.mean()).square().sum() * 59 / 60).sqrt()
        torch.testing.assert_close(found[f"{key}_stderr"], jackknife, rtol=0.05, atol=0)


def test_equal_samples_are_flexible_by_noise_alone():
    """Permuted copies of an image and a network that sees no place: one spectrum, other draws."""

    class Symmetric(nn.Module):
        def forward(self, x):
            total = x.flatten(1).sum(1) * 3
            return torch.stack([total.sin() + (2 * total).cos(), 0 * total], 1)

    x = torch.tensor([0.1, 0.9] * 8)
    generator = torch.Generator().manual_seed(3)
    x = torch.stack([x[torch.randperm(16, generator=generator)] for _ in range(40)])
    x = x.view(-1, 1, 4, 4)
    found = metric(
        groups="label", pairs=RandomPairs(1, 16), contexts=8, baseline=0.0, payoff="logit",
        ratios=[0.25, 0.5, 0.75],
    )  # fmt: skip
    found.update(Symmetric(), x, torch.zeros(40, dtype=torch.int64))
    result = {key: float(value) for key, value in found.compute().items() if "flex" in key}
    assert result["group_flexibility"] > 0.08
    assert result["group_flexibility_corrected"] < 0.4 * result["group_flexibility"], result
