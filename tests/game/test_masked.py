"""v(S) against a slow loop, and the promise that coalitions leave no trace."""

import itertools

import pytest
import torch
from torch import nn

from interaction_train.errors import InputError
from interaction_train.game import chunks
from interaction_train.game.absence import input_baseline
from interaction_train.game.layers import LayerSuffix, features
from interaction_train.game.masked import MaskedGame
from interaction_train.game.payoffs import get_payoff
from interaction_train.game.players import GridPlayers, UnitPlayers
from interaction_train.indices.exact import all_coalitions

PLAYERS = GridPlayers(2, 3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(batch=3, seed=1, dtype=torch.float64):
    return torch.rand(batch, 2, 4, 5, generator=generator(seed), dtype=dtype)


def coalitions_of(*shape, seed=2):
    return torch.rand(*shape, generator=generator(seed)) < 0.5


def fill(model, seed=3):
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator(seed), dtype=p.dtype) * 0.4)
    return model


def smooth_network():
    conv, linear = nn.Conv2d(2, 3, 3, padding=1), nn.Linear(3 * 20, 4)
    return fill(nn.Sequential(conv, nn.Tanh(), nn.Flatten(), linear).double())


class Awkward(nn.Module):
    """BatchNorm in training, a frozen BatchNorm, two kinds of dropout, a user's hook."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout2d(0.5)
        self.frozen = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4 * 20, 4))
        self.calls = 0
        self.broken = False

    def forward(self, x):
        x = self.frozen(self.drop(self.norm(self.conv(x))))
        if self.broken:
            raise ArithmeticError("broken on purpose")
        return self.head(self.relu(x))


def awkward():
    model = fill(Awkward().double())
    for norm in (model.norm, model.frozen):
        norm.running_mean.fill_(0.1)
        norm.running_var.fill_(1.7)
    model.train()
    model.frozen.eval()
    model.head[0].eval()
    model.frozen.weight.requires_grad_(False)
    model.conv.weight.grad = torch.ones_like(model.conv.weight)

    def count(*_):
        model.calls += 1

    model.register_forward_pre_hook(count)
    return model


def trace(model):
    """Everything that a game must leave as it was."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "modes": {name: m.training for name, m in model.named_modules()},
        "state": {name: t.clone() for name, t in model.state_dict().items()},
        "grads": {
            name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()
        },
        "requires": {name: p.requires_grad for name, p in model.named_parameters()},
        "hooks": {
            name: [list(getattr(m, kind)) for kind in hooks] for name, m in model.named_modules()
        },
        "rng": torch.get_rng_state(),
    }


def assert_same_trace(model, before):
    after = trace(model)
    for what in ("modes", "requires", "hooks"):
        assert after[what] == before[what], what
    for what in ("state", "grads"):
        assert after[what].keys() == before[what].keys()
        for name, value in before[what].items():
            new = after[what][name]
            assert (new is None and value is None) or torch.equal(new, value), (what, name)
    assert torch.equal(after["rng"], before["rng"])


def slow_rows(x, absent, coalitions):
    """Masked inputs ``(B, K, ...)``, pixel by pixel; ``coalitions`` is ``(B, K, n)``."""
    cells = PLAYERS.cells(x.shape[-2:]).tolist()
    rows = torch.empty(*coalitions.shape[:2], *x.shape[1:], dtype=x.dtype)
    absent = torch.as_tensor(absent, dtype=x.dtype).expand_as(x)
    for b, k in itertools.product(*map(range, coalitions.shape[:2])):
        for h, w in itertools.product(*map(range, x.shape[-2:])):
            source = x if coalitions[b, k, cells[h][w]] else absent
            rows[b, k, :, h, w] = source[b, :, h, w]
    return rows


class TestValues:
    labels = torch.tensor([0, 3, 1])
    rivals = torch.tensor([2, 0, 0])

    @pytest.mark.parametrize("payoff", ["logit", "log_prob", "log_odds", "margin", "all", "rivals"])
    @pytest.mark.parametrize("per_sample", [False, True])
    def test_against_a_slow_loop(self, payoff, per_sample):
        model, x = smooth_network(), images()
        coalitions = coalitions_of(3, 7, 6) if per_sample else coalitions_of(7, 6)
        options = {"payoff": payoff, "labels": self.labels}
        if payoff == "rivals":
            options |= {"payoff": "margin", "rivals": self.rivals}
        got = MaskedGame(model, x, 0.3, PLAYERS, **options)(coalitions)
        rows = slow_rows(x, 0.3, coalitions.expand(3, -1, -1))
        read = get_payoff(options["payoff"])
        for b, k in itertools.product(range(3), range(7)):
            with torch.no_grad():
                logits = model(rows[b, k : k + 1])[0]
            extra = (self.rivals[b],) if payoff == "rivals" else ()
            expected = read(logits, self.labels[b], *extra)
            torch.testing.assert_close(got[b, k], expected, rtol=0, atol=1e-12)
        assert got.shape == ((3, 7, 4) if payoff == "all" else (3, 7))

    @pytest.mark.parametrize("shape", [(), (2, 1, 1), (1, 2, 4, 5), (3, 2, 4, 5)])
    def test_absent_broadcasts(self, shape):
        absent = torch.rand(shape, generator=generator(4), dtype=torch.float64)
        model, x, coalitions = smooth_network(), images(), coalitions_of(3, 5, 6)
        game = MaskedGame(model, x, absent, PLAYERS, "all")
        got = game(coalitions)
        assert torch.equal(game.absent, absent.expand_as(x))
        rows = slow_rows(x, absent, coalitions)
        with torch.no_grad():
            expected = model(rows.flatten(0, 1)).view(3, 5, 4)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)

    def test_whole_and_empty(self):
        model, x = smooth_network(), images()
        ends = torch.tensor([[False] * 6, [True] * 6])
        got = MaskedGame(model, x, 0.3, PLAYERS, "all")(ends)
        with torch.no_grad():
            torch.testing.assert_close(got[:, 1], model(x), rtol=0, atol=1e-12)
            plain = model(torch.full_like(x, 0.3))
        torch.testing.assert_close(got[:, 0], plain, rtol=0, atol=1e-12)

    def test_where_is_exact_in_half_precision(self):
        # present * mask + absent * (1 - mask) or absent + mask * (present - absent) would round.
        x = torch.rand(2, 50, generator=generator()).bfloat16()
        absent = torch.rand(2, 50, generator=generator(1)).bfloat16()
        coalitions = coalitions_of(9, 50)
        got = MaskedGame(nn.Identity(), x, absent, UnitPlayers(), "all")(coalitions)
        expected = torch.where(coalitions, x[:, None], absent[:, None])
        assert got.dtype == torch.float32
        assert torch.equal(got, expected.float())

    def test_a_callable_payoff_and_a_function_as_model(self):
        def payoff(logits, labels):
            return logits.sum(-1) * labels

        x = torch.rand(2, 5, generator=generator())
        labels = torch.tensor([1, 3])
        game = MaskedGame(lambda z: z * 2, x, 0.0, UnitPlayers(), payoff, labels)
        coalitions = coalitions_of(6, 5)
        expected = (x[:, None] * coalitions).sum(-1) * 2 * labels[:, None]
        torch.testing.assert_close(game(coalitions), expected)
        assert game.owner is None

    @pytest.mark.parametrize("chunk_size", [1, 2, 3, 4, 5, 7, 20, 21, 22, 1000])
    @pytest.mark.parametrize("grad", [False, True])
    def test_chunk_sizes_agree_and_bound_the_rows(self, chunk_size, grad):
        model, x = smooth_network(), images()
        coalitions = coalitions_of(3, 7, 6)
        expected = MaskedGame(model, x, 0.3, PLAYERS, "all", chunk_size=100)(coalitions)
        rows = []
        model.register_forward_hook(lambda m, inputs, output: rows.append(len(output)))
        game = MaskedGame(model, x, 0.3, PLAYERS, "margin", self.labels, chunk_size=chunk_size)
        expected = get_payoff("margin")(expected, self.labels[:, None])
        torch.testing.assert_close(game(coalitions, grad=grad), expected, rtol=0, atol=1e-12)
        assert max(rows) <= chunk_size
        assert sum(rows) == 21

    def test_no_gradient_unless_asked(self):
        game = MaskedGame(smooth_network(), images().requires_grad_(), 0.3, PLAYERS, "all")
        assert not game(coalitions_of(4, 6)).requires_grad
        assert game(coalitions_of(4, 6), grad=True).requires_grad
        with torch.no_grad():
            assert not game(coalitions_of(4, 6), grad=True).requires_grad


class TestGradients:
    labels = torch.tensor([0, 3])

    @pytest.mark.parametrize("chunk_size", [None, 3])
    @pytest.mark.parametrize("payoff", ["logit", "log_odds", "all"])
    def test_gradcheck(self, payoff, chunk_size):
        model, coalitions = smooth_network(), coalitions_of(2, 3, 6)
        absent = torch.full((2, 1, 1), 0.4, dtype=torch.float64)

        def value(x, absent, weight):
            def network(rows):
                changed = {"3.weight": weight}
                return torch.func.functional_call(model, changed, (rows,))

            game = MaskedGame(
                network, x, absent, PLAYERS, payoff, self.labels, chunk_size=chunk_size
            )
            return game(coalitions, grad=True)

        weight = model[3].weight.detach().clone()
        inputs = [t.requires_grad_() for t in (images(2), absent, weight)]
        assert torch.autograd.gradcheck(value, inputs, fast_mode=chunk_size is not None)

    def gradients(self, model, chunk_size, forward=None):
        x = images().requires_grad_()
        absent = torch.full((1,), 0.3, dtype=torch.float64, requires_grad=True)
        coalitions = coalitions_of(3, 7, 6)
        if forward is None:
            game = MaskedGame(model, x, absent, PLAYERS, "all", chunk_size=chunk_size)
            values = game(coalitions, grad=True)
        else:
            rows = slow_rows(x, absent, coalitions)
            values = forward(rows.flatten(0, 1)).unflatten(0, (3, 7))
        weights = torch.linspace(-1, 2, values.numel(), dtype=values.dtype).view_as(values)
        wanted = [x, absent, *(p for p in model.parameters() if p.requires_grad)]
        return torch.autograd.grad((values * weights).sum(), wanted)

    @pytest.mark.parametrize("chunk_size", [None, 1, 2, 5, 9, 1000])
    def test_chunked_and_checkpointed_gradients(self, chunk_size):
        # The network trains: a chunk that runs again in the backward pass must be in eval again.
        model = awkward()
        plain = awkward().eval()
        expected = self.gradients(plain, None, forward=plain)
        got = self.gradients(model, chunk_size)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-11)

    def test_checkpointing_runs_each_chunk_once_more(self):
        model = awkward()
        for chunk_size, calls in ((None, 1), (21, 1), (6, 2 * 6)):
            model.calls = 0
            self.gradients(model, chunk_size)
            assert model.calls == calls

    @pytest.mark.parametrize("chunk_size", [None, 4])
    def test_backward_leaves_no_other_trace(self, chunk_size):
        model = awkward()
        before = trace(model)
        self.gradients(model, chunk_size)
        assert_same_trace(model, before)

    @pytest.mark.parametrize("chunk_size", [None, 5])
    def test_gradients_under_autocast(self, chunk_size):
        model, x = smooth_network().float(), images(dtype=torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            game = MaskedGame(model, x, 0.3, PLAYERS, "all", chunk_size=chunk_size)
            values = game(coalitions_of(7, 6), grad=True)
        assert values.dtype == torch.float32
        values.sum().backward()
        got = model[0].weight.grad
        model.zero_grad()
        MaskedGame(model, x, 0.3, PLAYERS, "all")(coalitions_of(7, 6), grad=True).sum().backward()
        expected = model[0].weight.grad
        assert (got - expected).abs().max() < 0.05 * expected.abs().max()


class TestNoTrace:
    @pytest.mark.parametrize("chunk_size", [None, 4])
    @pytest.mark.parametrize("grad", [False, True])
    def test_model_is_left_as_it_was(self, chunk_size, grad):
        model, x = awkward(), images()
        before = trace(model)
        game = MaskedGame(model, x, 0.3, PLAYERS, "all", chunk_size=chunk_size)
        got = game(coalitions_of(5, 6), grad=grad)
        assert_same_trace(model, before)
        # And coalitions did run in eval, all of it.
        rows = slow_rows(x, 0.3, coalitions_of(5, 6).expand(3, -1, -1))
        with torch.no_grad():
            expected = awkward().eval()(rows.flatten(0, 1)).unflatten(0, (3, 5))
        torch.testing.assert_close(got.detach(), expected, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("grad", [False, True])
    def test_also_when_the_model_raises(self, grad):
        model = awkward()
        model.broken = True
        before = trace(model)
        game = MaskedGame(model, images(), 0.3, PLAYERS, "all", chunk_size=4)
        with pytest.raises(ArithmeticError, match="on purpose"):
            game(coalitions_of(5, 6), grad=grad)
        assert_same_trace(model, before)

    def test_inputs_are_left_alone(self):
        x, absent = images(), torch.rand(3, 2, 4, 5, dtype=torch.float64, generator=generator())
        copies = x.clone(), absent.clone()
        model = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten())  # writes into its input
        MaskedGame(model, x, absent, PLAYERS, "all")(coalitions_of(5, 6))
        assert torch.equal(x, copies[0])
        assert torch.equal(absent, copies[1])

    def test_an_owner_that_the_network_hides(self):
        model = awkward()
        before = trace(model)
        game = MaskedGame(lambda z: model(z), images(), 0.3, PLAYERS, "all", owner=model)
        first = game(coalitions_of(5, 6))
        assert torch.equal(game(coalitions_of(5, 6)), first)  # no dropout
        assert_same_trace(model, before)

    @pytest.mark.parametrize("owner", ["given", "found"])
    def test_a_suffix_at_a_layer(self, owner):
        model, x = awkward(), images()
        hidden = features(model, "drop", x).detach()
        before = trace(model)
        suffix = LayerSuffix(model, "drop", x)
        options = {"owner": model} if owner == "given" else {}
        game = MaskedGame(suffix, hidden, 0.0, UnitPlayers("channel"), "all", **options)
        got = game(all_coalitions(4))
        assert_same_trace(model, before)
        plain = awkward().eval()
        rows = hidden[:, None] * all_coalitions(4)[:, :, None, None]
        with torch.no_grad():
            expected = plain.head(plain.relu(plain.frozen(rows.flatten(0, 1))))
        torch.testing.assert_close(got.flatten(0, 1), expected, rtol=0, atol=1e-12)


class TestAutocast:
    def test_evaluation_before_training_keeps_the_weights_gradient(self):
        # Autocast keeps bfloat16 copies of weights; one made without gradient must not be reused,
        # as older torch versions do.
        model, x = smooth_network().float(), images(dtype=torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            values = MaskedGame(model, x, 0.3, PLAYERS, "all")(coalitions_of(5, 6))
            loss = model(x).sum()
        loss.backward()
        assert values.dtype == torch.float32
        for name, p in model.named_parameters():
            assert p.grad is not None, name
            assert p.grad.abs().max() > 0, name


class TestAutomaticChunks:
    def timed_game(self, batch=3, count=2000):
        model = fill(nn.Sequential(nn.Flatten(), nn.Linear(40, 4)).double())
        model.rows = []
        model.register_forward_hook(lambda m, inputs, output: m.rows.append(len(output)))
        return model, MaskedGame(model, images(batch), 0.3, PLAYERS, "all"), coalitions_of(count, 6)

    def test_large_jobs_are_timed_once(self):
        model, game, coalitions = self.timed_game()
        values = game(coalitions)
        chosen = list(chunks._chosen[model].values())
        assert len(chosen) == 1
        assert chosen[0] in chunks.CANDIDATES
        timing = sum(model.rows) - 6000
        assert timing > 0  # the candidates were tried
        model.rows.clear()
        again = game(coalitions)
        assert sum(model.rows) == 6000  # and are not tried again
        assert max(model.rows) <= chosen[0]
        assert torch.equal(again, values)
        fixed = MaskedGame(model, game.present, 0.3, PLAYERS, "all", chunk_size=6000)
        torch.testing.assert_close(values, fixed(coalitions), rtol=0, atol=1e-12)

    def test_small_jobs_are_not_timed(self):
        model, game, coalitions = self.timed_game(count=100)
        game(coalitions)
        assert model not in chunks._chosen
        assert sum(model.rows) == 300
        assert max(model.rows) <= 64

    def test_timing_leaves_no_trace(self):
        model = awkward()
        before = trace(model)
        MaskedGame(model, images(), 0.3, PLAYERS, "all")(coalitions_of(1400, 6))
        assert model in chunks._chosen
        assert_same_trace(model, before)

    def test_autocast_and_shape_are_timed_apart(self):
        model, game, coalitions = self.timed_game()
        model.float()
        game.present = game.present.float()
        game.absent = game.absent.float()
        game(coalitions)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            game(coalitions)
        assert len(chunks._chosen[model]) == 2

    def test_stops_where_memory_ends(self, monkeypatch):
        model, game, coalitions = self.timed_game()
        seconds = chunks._seconds

        def limited(network, batch):
            if len(batch) > 64:
                raise torch.OutOfMemoryError("no more")
            return seconds(network, batch)

        monkeypatch.setattr(chunks, "_seconds", limited)
        game(coalitions)
        assert max(model.rows) <= 64

    def test_takes_the_fastest(self, monkeypatch):
        costs = {16: 1.0, 32: 0.9, 64: 0.5, 128: 0.6, 256: 2.0, 512: 0.1}
        monkeypatch.setattr(chunks, "_seconds", lambda _, batch: costs[len(batch)] * len(batch))
        model, game, coalitions = self.timed_game()
        game(coalitions)
        # 256 is so slow that 512 is not tried.
        assert list(chunks._chosen[model].values()) == [64]

    def test_differentiable_calls_on_a_processor_send_middling_chunks(self):
        model, game, coalitions = self.timed_game()
        game(coalitions, grad=True)
        assert sum(model.rows) == 6000
        assert max(model.rows) == 64


class TestRefusals:
    def game(self, **changes):
        options = {
            "model": smooth_network(),
            "present": images(),
            "absent": 0.0,
            "players": PLAYERS,
            "payoff": "logit",
            "labels": torch.tensor([0, 1, 2]),
        }
        return MaskedGame(**{**options, **changes})

    def test_the_game_that_the_others_change_is_fine(self):
        assert self.game()(coalitions_of(2, 6)).shape == (3, 2)

    def test_empty_batch(self):
        with pytest.raises(InputError, match=r"present: .* expected at least one sample"):
            self.game(present=images(0), labels=torch.zeros(0, dtype=torch.int64))

    def test_missing_labels(self):
        with pytest.raises(InputError, match="labels: got None"):
            self.game(labels=None)

    @pytest.mark.parametrize(
        "labels", [torch.zeros(3), torch.tensor([0, 1]), torch.tensor(0), torch.zeros(3, 1).long()]
    )
    def test_labels(self, labels):
        with pytest.raises(InputError, match=r"labels: got .* expected int64 \(3,\)"):
            self.game(labels=labels)

    def test_rivals(self):
        rivals = torch.tensor([1, 2, 3])
        with pytest.raises(InputError, match=r"rivals: .* for payoffs other than 'margin'"):
            self.game(rivals=rivals)
        with pytest.raises(InputError, match=r"rivals: got .* expected int64 \(3,\)"):
            self.game(payoff="margin", rivals=rivals[:2])

    def test_payoff(self):
        with pytest.raises(InputError, match="payoff: got 'entropy'"):
            self.game(payoff="entropy")

    @pytest.mark.parametrize("chunk_size", [0, -4])
    def test_chunk_size(self, chunk_size):
        with pytest.raises(InputError, match=f"chunk_size: got {chunk_size}"):
            self.game(chunk_size=chunk_size)

    @pytest.mark.parametrize("shape", [(5, 5), (3,), (2, 2, 4, 5), (1, 3, 2, 4, 5)])
    def test_absent(self, shape):
        with pytest.raises(InputError, match="absent: got shape"):
            self.game(absent=torch.zeros(shape))

    def test_players(self):
        with pytest.raises(InputError, match="no more cells than the 4 x 5 pixels"):
            self.game(players=GridPlayers(5, 5))

    @pytest.mark.parametrize("shape", [(6,), (4, 5), (2, 4, 6), (1, 3, 4, 6), (0, 6), (3, 0, 6)])
    def test_shape_of_coalitions(self, shape):
        with pytest.raises(InputError, match=r"coalitions: .* bool \(K, 6\) or \(3, K, 6\)"):
            self.game()(torch.ones(shape, dtype=torch.bool))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8])
    def test_dtype_of_coalitions(self, dtype):
        with pytest.raises(InputError, match="coalitions: got torch"):
            self.game()(torch.ones(2, 6, dtype=dtype))

    @pytest.mark.parametrize(
        ("model", "got"),
        [
            (lambda z: z, r"\(6, 2, 4, 5\)"),
            (lambda z: z.sum(), r"\(\)"),
            (lambda z: z.flatten(1)[:1], r"\(1, 40\)"),
            (lambda z: (z, z), "tuple"),
        ],
    )
    def test_output_of_the_model(self, model, got):
        with pytest.raises(InputError, match=rf"model: got an output of {got}"):
            self.game(model=model)(coalitions_of(2, 6))


@pytest.mark.parametrize("baseline", [float("inf"), float("nan"), [0.0, float("-inf")]])
def test_a_baseline_that_is_not_finite_is_refused(baseline):
    with pytest.raises(InputError, match=r"baseline: got .* expected finite numbers"):
        input_baseline(nn.Identity(), baseline, images(2))
