"""Payoffs against plain formulas, and against exact arithmetic where plain formulas break."""

import math
from decimal import Decimal, localcontext

import pytest
import torch

from interaction_train.errors import InputError
from interaction_train.game.masked import MaskedGame
from interaction_train.game.payoffs import (
    PAYOFFS,
    all_logits,
    best_rival,
    get_payoff,
    log_odds,
    log_prob,
    logit,
    margin,
)
from interaction_train.game.players import UnitPlayers
from interaction_train.losses import InteractionLoss, OrderLoss


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


LOGITS = normal(4, 3, 5) * 2
LABELS = torch.tensor([0, 4, 2, 1])[:, None]  # broadcasts over the middle axis


def each(function):
    return torch.tensor(
        [[function(LOGITS[b, k].tolist(), int(LABELS[b, 0])) for k in range(3)] for b in range(4)],
        dtype=torch.float64,
    )


def others(z, y):
    return [value for c, value in enumerate(z) if c != y]


class TestValues:
    def compare(self, payoff, function):
        got = payoff(LOGITS, LABELS)
        assert got.shape == (4, 3)
        torch.testing.assert_close(got, each(function), rtol=0, atol=1e-12)

    def test_logit(self):
        self.compare(logit, lambda z, y: z[y])

    def test_log_prob(self):
        self.compare(log_prob, lambda z, y: math.log(math.exp(z[y]) / sum(map(math.exp, z))))

    def test_log_odds(self):
        def odds(z, y):
            p = torch.tensor(z, dtype=torch.float64).softmax(0)[y]
            return float((p / (1 - p)).log())

        self.compare(log_odds, odds)

    def test_margin(self):
        self.compare(margin, lambda z, y: z[y] - max(others(z, y)))

    def test_margin_with_rivals(self):
        rivals = torch.tensor([3, 0, 1, 2])[:, None]
        got = margin(LOGITS, LABELS, rivals)
        expected = [
            [float(LOGITS[b, k, LABELS[b, 0]] - LOGITS[b, k, rivals[b, 0]]) for k in range(3)]
            for b in range(4)
        ]
        assert got.tolist() == expected
        assert not torch.allclose(got, margin(LOGITS, LABELS))

    def test_best_rival_freezes_the_margin(self):
        rivals = best_rival(LOGITS, LABELS)
        assert rivals.shape == (4, 3)
        assert (rivals != LABELS).all()
        assert torch.equal(margin(LOGITS, LABELS, rivals), margin(LOGITS, LABELS))

    def test_all(self):
        assert torch.equal(all_logits(LOGITS), LOGITS)
        assert torch.equal(all_logits(LOGITS, LABELS), LOGITS)

    @pytest.mark.parametrize("payoff", [log_odds, margin])
    def test_two_classes_are_a_difference_of_logits(self, payoff):
        z = normal(6, 2) * 50
        y = torch.tensor([0, 1] * 3)
        rows = torch.arange(6)
        torch.testing.assert_close(payoff(z, y), z[rows, y] - z[rows, 1 - y], rtol=1e-15, atol=0)

    @pytest.mark.parametrize("name", PAYOFFS)
    def test_logits_are_not_changed(self, name):
        z = LOGITS.clone()
        PAYOFFS[name](z, LABELS)
        assert torch.equal(z, LOGITS)

    @pytest.mark.parametrize("name", ["logit", "log_prob", "log_odds", "margin"])
    def test_shapes_of_labels(self, name):
        payoff = PAYOFFS[name]
        one = payoff(LOGITS[0, 0], LABELS[0, 0])
        assert one.shape == ()
        assert torch.equal(one, payoff(LOGITS, LABELS)[0, 0])
        full = payoff(LOGITS, LABELS.expand(4, 3))
        assert torch.equal(full, payoff(LOGITS, LABELS))


# Rows whose softmax rounds to 0 or 1; each is exact in all four dtypes.
SATURATED = [
    [60.0, 0.0, 0.0, -8.0],
    [-240.0, 0.0, 0.5, 2.0],
    [0.0, 240.0, 240.0, -240.0],
    [30720.0, 1.0, 2.0, 3.0],
    [-30720.0, -30720.0, 30720.0, 30720.0],
]


def exact(name, z, y):
    """The payoff of one row in 60-digit arithmetic."""
    with localcontext() as context:
        context.prec = 60
        z = [Decimal(value) for value in z]
        whole = z if name == "log_prob" else others(z, y)
        top = max(whole)
        return float(z[y] - top - sum((value - top).exp() for value in whole).ln())


class TestStability:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    @pytest.mark.parametrize("name", ["log_prob", "log_odds"])
    def test_saturated_logits(self, name, dtype):
        z = torch.tensor(SATURATED, dtype=dtype)
        assert z.double().tolist() == SATURATED
        tolerance = 1e-14 if dtype == torch.float64 else 3e-7
        for y in range(4):
            got = PAYOFFS[name](z, torch.full((5,), y))
            assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
            for value, row in zip(got.double().tolist(), SATURATED, strict=True):
                # float32 itself cannot hold the small rest beside the largest logit.
                size = max(abs(exact(name, row, y)), max(map(abs, row)) * (name == "log_prob"))
                assert abs(value - exact(name, row, y)) <= tolerance * max(size, 1)

    def test_the_plain_formula_does_break_there(self):
        # The rows above are worth testing: p rounds to 1 or 0, and the odds to infinity.
        p = torch.tensor(SATURATED).softmax(-1)
        assert (p / (1 - p)).log().isinf().any(-1).all()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("name", PAYOFFS)
    def test_half_precision_is_read_in_float32(self, name, dtype):
        z = (LOGITS * 7).to(dtype)
        got = PAYOFFS[name](z, LABELS)
        assert got.dtype == torch.float32
        assert torch.equal(got, PAYOFFS[name](z.float(), LABELS))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    @pytest.mark.parametrize("name", PAYOFFS)
    def test_gradients_are_finite(self, name, dtype):
        for y in range(4):
            z = torch.tensor(SATURATED, dtype=dtype, requires_grad=True)
            PAYOFFS[name](z, torch.full((5,), y)).sum().backward()
            assert z.grad is not None
            assert z.grad.isfinite().all()
            assert z.grad.dtype == dtype
            if name != "log_prob":  # whose gradient vanishes where p is 1
                assert (z.grad[:, y] == 1).all()

    @pytest.mark.parametrize("name", PAYOFFS)
    def test_gradcheck(self, name):
        z = LOGITS.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda z: PAYOFFS[name](z, LABELS), (z,))

    def test_log_odds_of_a_certain_class_still_moves_the_others(self):
        z = torch.tensor([100.0, 1.0, 1.0], requires_grad=True)
        log_odds(z, torch.tensor(0)).backward()
        torch.testing.assert_close(z.grad, torch.tensor([1.0, -0.5, -0.5]))


class TestLookUp:
    @pytest.mark.parametrize("name", PAYOFFS)
    def test_by_name(self, name):
        assert get_payoff(name) is PAYOFFS[name]

    def test_callables_pass_through(self):
        def payoff(logits, labels):
            return logits.sum(-1)

        assert get_payoff(payoff) is payoff

    def test_refuses_a_name_and_lists_the_known_ones(self):
        with pytest.raises(InputError, match="payoff: got 'logodds'") as error:
            get_payoff("logodds")
        assert all(name in str(error.value) for name in PAYOFFS)


class TestOneLogit:
    """A head with one logit for two classes is no head of a single class."""

    @pytest.mark.parametrize("payoff", [*PAYOFFS.values(), best_rival])
    def test_payoffs_refuse_it(self, payoff):
        with pytest.raises(InputError, match="one logit, expected a head with a logit per class"):
            payoff(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64))

    @pytest.mark.parametrize("payoff", PAYOFFS)
    def test_games_refuse_it(self, payoff):
        network = torch.nn.Linear(4, 1)
        labels = torch.zeros(3, dtype=torch.int64)
        game = MaskedGame(network, torch.rand(3, 4), 0.0, UnitPlayers(), payoff, labels)
        with pytest.raises(InputError, match=r"model: got one logit, .*: 0 and z"):
            game(torch.ones(1, 4, dtype=torch.bool))

    def test_a_payoff_of_ones_own_may_read_it(self):
        network, x = torch.nn.Linear(4, 1), torch.rand(3, 4)
        labels = torch.tensor([0, 1, 1])

        def signed(logits, labels):
            return logits[..., 0] * (2 * labels - 1)

        game = MaskedGame(network, x, 0.0, UnitPlayers(), signed, labels)
        value = game(torch.ones(1, 4, dtype=torch.bool))
        expected = network(x) * torch.tensor([[-1], [1], [1]])
        torch.testing.assert_close(value, expected.detach())

    @pytest.mark.parametrize(
        "loss", [InteractionLoss("0", group_fraction=0.2), OrderLoss(0, 0.5, layer="0")]
    )
    def test_losses_refuse_it(self, loss):
        network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        with pytest.raises(InputError, match="one logit"):
            loss(network, torch.rand(3, 4), torch.zeros(3, dtype=torch.int64))
