import itertools
import math

import pytest
import torch
import torchvision
from torch import Tensor, nn

from interaction_train.errors import InputError
from interaction_train.game.layers import record
from interaction_train.game.players import GridPlayers, UnitPlayers
from interaction_train.losses import BandLoss, InteractionLoss
from interaction_train.models import Normalize


def interaction(*args, **settings) -> InteractionLoss:
    """The loss on the label's logit, with small groups, on the whole batch."""
    plain = {"payoff": "logit", "group_fraction": 0.05, "batch_fraction": 1.0}
    return InteractionLoss(*args, **{**plain, **settings})


class Net(nn.Module):
    """A small network with two legal layers."""

    def __init__(self, classes: int = 3, units: int = 6, norm: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.prefix = nn.Sequential(nn.Linear(4, units), nn.Tanh())
        norms = [nn.BatchNorm1d(units), nn.Dropout(0.3)] if norm else []
        self.suffix = nn.Sequential(*norms, nn.Linear(units, 8), nn.Tanh(), nn.Linear(8, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.suffix(self.prefix(x))


def batch(size: int = 5, classes: int = 3, dtype: torch.dtype = torch.float32) -> tuple:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(size, 4, generator=generator, dtype=dtype)
    return x, torch.arange(size) % classes


class Spy:
    """A suffix that keeps the rows it was given and the logits it gave."""

    def __init__(self, suffix: nn.Module) -> None:
        self.suffix = suffix
        self.calls: list[tuple[Tensor, Tensor]] = []

    def __call__(self, rows: Tensor) -> Tensor:
        self.calls.append((rows.detach(), self.suffix(rows)))
        return self.calls[-1][1]

    def seen(self) -> tuple[Tensor, Tensor]:
        rows, logits = zip(*self.calls, strict=True)
        return torch.cat(rows), torch.cat(logits)


@pytest.mark.parametrize("groups", [2, 3, 5])
@pytest.mark.parametrize(
    ("form", "scope"),
    [
        ("squared", "context"),
        *itertools.product(["squared", "abs_mean", "unbiased_square"], ["sample", "batch"]),
    ],
)
def test_each_form_equals_a_loop_over_the_rows_that_were_evaluated(form, scope, groups):
    model, contexts, n = Net(units=21).double(), 4, 21
    x, y = batch(dtype=torch.float64)
    spy = Spy(model.suffix)
    loss = interaction(
        "prefix", group_fraction=0.1, contexts=contexts, groups=groups, fresh_groups=scope,
        form=form, suffix=spy,
    )  # fmt: skip
    value = loss(model, x, y, step=3)

    rows = 1 + groups + groups * (groups - 1) // 2
    masked, logits = spy.seen()
    masks = (masked != 0).view(len(x), contexts, rows, n)
    logits = logits.view(len(x), contexts, rows, -1)
    pairs = list(itertools.combinations(range(groups), 2))
    delta = torch.zeros(len(x), contexts, len(pairs), dtype=torch.float64)
    drawn = {}
    for b, k in itertools.product(range(len(x)), range(contexts)):
        empty, singles, both = (
            masks[b, k, 0],
            masks[b, k, 1 : 1 + groups],
            masks[b, k, 1 + groups :],
        )
        members = singles & ~empty
        assert (members.sum(-1) == 2).all()
        assert members.sum(0).max() == 1
        assert torch.equal(singles, empty | members)
        for d, (i, j) in enumerate(pairs):
            assert torch.equal(both[d], empty | members[i] | members[j])
            v = logits[b, k, :, y[b]]
            delta[b, k, d] = v[1 + groups + d] - v[1 + i] - v[1 + j] + v[0]
        drawn[b, k] = tuple(members.flatten().tolist())
    expected = {
        "squared": lambda: delta.square().mean(),
        "abs_mean": lambda: delta.mean(1).abs().mean(),
        "unbiased_square": lambda: (delta[:, :2].mean(1) * delta[:, 2:].mean(1)).mean(),
    }[form]()
    torch.testing.assert_close(value, expected)
    assert len(set(drawn.values())) == {"context": len(drawn), "sample": len(x), "batch": 1}[scope]


def test_expectation_equals_enumeration_of_groups_and_contexts():
    """Single-player groups: E Δ² over pairs, with the weights of the Shapley interaction index."""
    model, n = Net(units=5).double(), 5
    x, y = batch(2, dtype=torch.float64)
    features = model.prefix(x).detach()
    exact = torch.zeros(2, dtype=torch.float64)
    for i, j in itertools.permutations(range(n), 2):
        others = [k for k in range(n) if k not in (i, j)]
        for size in range(n - 1):
            weight = math.factorial(size) * math.factorial(n - size - 2) / math.factorial(n - 1)
            for context in itertools.combinations(others, size):
                v = []
                for extra in ([i, j], [i], [j], []):
                    mask = torch.zeros(n, dtype=torch.float64)
                    mask[[*context, *extra]] = 1
                    v.append(model.suffix(features * mask).gather(1, y[:, None])[:, 0])
                exact += weight * (v[0] - v[1] - v[2] + v[3]) ** 2 / (n * (n - 1))
    loss = interaction("prefix", group_fraction=0.1, contexts=20_000)
    with torch.no_grad():
        delta = loss.differences(model, x, y, _empty(), step=0)
    sampled = delta.square().mean((1, 2))
    error = delta.square().std((1, 2)) / 20_000**0.5
    assert ((sampled - exact).abs() < 4 * error).all()
    assert (error < 0.05 * exact).all()


def _empty():
    from interaction_train.game.layers import ForwardRecord

    return ForwardRecord()


class Additive(nn.Module):
    """Logits that are additive over the units of ``prefix``."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.prefix = nn.Sequential(nn.Linear(4, 12), nn.Tanh())
        self.suffix = nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.suffix(self.prefix(x))


@pytest.mark.parametrize(
    ("payoff", "classes"), [("logit", 3), ("all", 3), ("margin", 3), ("log_odds", 2)]
)
@pytest.mark.parametrize("groups", [2, 4])
def test_zero_for_additive_networks(payoff, classes, groups):
    x, y = batch(classes=classes, dtype=torch.float64)
    loss = interaction("prefix", payoff=payoff, groups=groups, contexts=3)
    with pytest.warns(UserWarning, match="additive over the players of layer 'prefix'"):
        assert loss(Additive(classes).double(), x, y) < 1e-28
    assert loss(Additive(classes).double(), x, y) < 1e-28  # said once: warnings are errors here


HALF = {
    "bf16-true": (torch.bfloat16, False), "16-true": (torch.float16, False),
    "bf16-mixed": (torch.float32, True),
}  # fmt: skip


@pytest.mark.parametrize("bias", [0.0, 50.0])
@pytest.mark.parametrize("precision", HALF)
def test_additive_networks_are_told_of_in_half_precision(precision, bias):
    """Their rounding is far above that of float32, also where a bias makes all values large."""
    dtype, mixed = HALF[precision]
    x, y = batch()
    model = Additive(3)
    with torch.no_grad():
        model.suffix.bias += bias
    model, x = model.to(dtype), x.to(dtype)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    band = BandLoss(0.5, 0.25, layer="prefix", n_draws=4)
    for loss in (interaction("prefix", payoff="logit", contexts=4), band):
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            with pytest.warns(UserWarning, match="additive over the players of layer 'prefix'"):
                loss(model, x, y)
            loss(model, x, y)  # said once: warnings are errors here
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.filterwarnings("error:.*additive")
@pytest.mark.parametrize("precision", HALF)
def test_small_interactions_in_half_precision_are_no_additive_payoff(precision):
    """Weaker than the rounding of half precision, and there all the same."""
    dtype, mixed = HALF[precision]
    x, y = batch()
    model = Additive(3)
    model.suffix = nn.Sequential(nn.Linear(12, 3), nn.Tanh())
    with torch.no_grad():
        model.suffix[0].weight *= 0.1
    loss = interaction("prefix", payoff="logit", contexts=4)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        loss(model.to(dtype), x.to(dtype), y)


@pytest.mark.filterwarnings("error:.*additive")
def test_the_logits_as_players_interact_in_the_log_odds():
    """With three classes, groups of one logit z_i: log(e^z_2 + 1) and the like remain."""
    x, y = batch(dtype=torch.float64)
    loss = interaction("suffix", contexts=4, payoff="log_odds")
    assert loss(Additive(3).double(), x, y) > 1e-8


def test_not_zero_for_log_prob_of_an_additive_network():
    x, y = batch(dtype=torch.float64)
    assert interaction("prefix", payoff="log_prob")(Additive(3).double(), x, y) > 1e-8


def test_margin_fixes_the_best_rival_of_the_unmasked_sample():
    model = Net().double()
    x, y = batch(dtype=torch.float64)
    spy = Spy(model.suffix)
    value = interaction("prefix", payoff="margin", suffix=spy)(model, x, y, step=0)
    clean = model(x).scatter(1, y[:, None], -torch.inf)
    rival = clean.argmax(1)
    # The first call is the unmasked sample's.
    v = spy.calls[-1][1].view(len(x), 4, -1)
    v = v[range(5), :, y] - v[range(5), :, rival]
    expected = (v[:, 3] - v[:, 1] - v[:, 2] + v[:, 0]).square().mean()
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("form", ["squared", "abs_mean", "unbiased_square"])
def test_gradcheck(form):
    model = Net().double()
    x, y = batch(2, dtype=torch.float64)
    loss = interaction("prefix", contexts=2, form=form)
    names, values = zip(*model.named_parameters(), strict=True)

    def f(*parameters: Tensor) -> Tensor:
        for name, value in zip(names, parameters, strict=True):
            owner, _, leaf = name.rpartition(".")
            module = model.get_submodule(owner)
            module._parameters.pop(leaf, None)
            setattr(module, leaf, value)
        return loss(model, x, y, step=0)

    assert torch.autograd.gradcheck(f, [v.detach().clone().requires_grad_() for v in values])


def test_chunks_give_the_same_value_and_gradients():
    x, y = batch(6)
    gradients = []
    for chunk_size in (None, 1, 7, 24):
        model = Net()
        value = interaction("prefix", contexts=3, chunk_size=chunk_size)(model, x, y, step=1)
        value.backward()
        gradients.append([value.detach(), *(p.grad for p in model.parameters())])
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0])


def test_record_reuses_the_features_and_counts_prefix_rows():
    model = Net()
    x, y = batch(6)
    rows = []
    model.prefix[0].register_forward_hook(lambda m, inputs, output: rows.append(len(output)))
    interaction("prefix")(model, x, y)  # the check of the layer is made once
    for chunk_size, chunks in ((None, 1), (8, 3)):
        rows.clear()
        loss = interaction("prefix", chunk_size=chunk_size)
        with record(model, loss.layers) as forward:
            forward.logits = model(x)
        value = loss(model, x, y, forward=forward, step=0)
        assert sum(rows) == len(x) + chunks
        torch.testing.assert_close(value, loss(model, x, y, step=0))


def test_does_not_depend_on_order_and_grouping_of_the_batch():
    model = Net().double()
    x, y = batch(6, dtype=torch.float64)
    loss = interaction("prefix", contexts=3)
    whole = loss(model, x, y, step=5)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    parts = [loss(model, x[i], y[i], step=5) for i in order.split(2)]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)
    assert not torch.isclose(loss(model, x, y, step=6), whole)


def test_counts_its_own_calls_without_a_step():
    model = Net()
    x, y = batch()
    loss = interaction("prefix")
    values = [loss(model, x, y).item() for _ in range(3)]
    assert values == [loss(model, x, y, step=step).item() for step in range(3)]
    assert len(set(values)) == 3


def test_batch_fraction_looks_at_the_first_rows():
    model = Net()
    x, y = batch(8)
    part = interaction("prefix", batch_fraction=0.3)(model, x, y, step=0)
    torch.testing.assert_close(part, interaction("prefix")(model, x[:3], y[:3], step=0))


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("chunk_size", [None, 4])
def test_leaves_no_trace(fails, chunk_size):
    model = Net(norm=True).train()
    model.suffix[3].eval()  # a mixture of modes
    for p in model.prefix.parameters():
        p.requires_grad_(False)
    x, y = batch()
    model(x).sum().backward()
    loss = interaction("prefix", chunk_size=chunk_size)
    loss(model, x, y)

    def state():
        modules = {n: (m.training, len(m._forward_hooks)) for n, m in model.named_modules()}
        flags = {n: (p.requires_grad, p.grad) for n, p in model.named_parameters()}
        buffers = {n: b.clone() for n, b in model.named_buffers()}
        return modules, flags, buffers, torch.get_rng_state()

    before = state()
    if fails:
        last = model.suffix[-1]
        forward, last.forward = last.forward, _raise
        with pytest.raises(Interrupted):
            loss(model, x, y)
        last.forward = forward
    else:
        loss(model, x, y)
    after = state()
    assert before[0] == after[0]
    assert {n: f for n, (f, _) in before[1].items()} == {n: f for n, (f, _) in after[1].items()}
    for (_, g), (_, h) in zip(before[1].values(), after[1].values(), strict=True):
        assert g is h
    torch.testing.assert_close(before[2], after[2], rtol=0, atol=0)
    assert torch.equal(before[3], after[3])


def _raise(x: Tensor) -> Tensor:
    raise Interrupted


def test_coalitions_run_in_eval_mode_also_when_a_chunk_runs_again_in_backward():
    model = Net(norm=True).train()
    x, y = batch()
    modes = []
    model.suffix[0].register_forward_hook(lambda m, i, o: modes.append(m.training))
    loss = interaction("prefix", chunk_size=5)
    loss(model, x, y)
    with record(model, loss.layers) as forward:
        forward.logits = model(x)
    modes.clear()
    loss(model, x, y, forward=forward).backward()
    assert len(modes) == 10  # five chunks, forward and again in backward
    assert not any(modes)
    assert model.suffix[0].training


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast(dtype):
    model = Net(units=64)
    x, y = batch()
    loss = interaction("prefix", contexts=50)
    full = loss(model, x, y, step=0)
    with torch.autocast("cpu", dtype):
        with record(model, loss.layers) as forward:
            forward.logits = model(x)
        value = loss(model, x, y, forward=forward, step=0)
    assert forward.features["prefix"].dtype == dtype
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, full, rtol=0.1, atol=1e-4)
    value.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.prefix.parameters())


@pytest.mark.filterwarnings("ignore:.*payoff is additive")
def test_input_cells_as_players():
    torch.manual_seed(0)
    mean = [0.2, 0.5, 0.7]
    linear = nn.Sequential(Normalize(mean, [1.0, 1.0, 1.0]), nn.Flatten(), nn.Linear(3 * 36, 2))
    x, y = torch.rand(3, 3, 6, 6), torch.tensor([0, 1, 0])
    loss = interaction(players=GridPlayers(3, 3), group_fraction=0.2, contexts=4)
    assert loss(linear, x, y) < 1e-10
    curved = nn.Sequential(*linear[:2], nn.Tanh(), linear[2])
    rows = []
    curved[0].register_forward_hook(lambda m, inputs, output: rows.append(inputs[0]))
    curved_loss = loss(curved, x, y)
    assert curved_loss < 1e-10  # additive over pixels still
    absent = rows[-1] == torch.tensor(mean).view(3, 1, 1)
    assert absent.any()
    deep = nn.Sequential(*curved, nn.Tanh())
    assert loss(deep, x, y) > 1e-6


def test_channels_as_players():
    model = torchvision.models.resnet18(num_classes=4)
    x, y = torch.rand(2, 3, 32, 32), torch.tensor([1, 3])
    value = interaction("layer1", UnitPlayers("channel"), groups=3)(model, x, y)
    value.backward()
    assert model.conv1.weight.grad.abs().sum() > 0


def test_without_a_normalize_layer_the_input_needs_a_baseline():
    x, y = torch.rand(2, 1, 4, 4), torch.tensor([0, 1])
    model = nn.Sequential(nn.Flatten(), nn.Tanh(), nn.Linear(16, 2))
    with pytest.raises(InputError, match="baseline: got None"):
        interaction(players=GridPlayers(2, 2), group_fraction=0.3)(model, x, y)
    with pytest.raises(InputError, match=r"baseline: got 2 numbers, expected one per channel"):
        interaction(players=GridPlayers(2, 2), baseline=[0.1, 0.2])(model, x, y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "prefix", "group_fraction": 0.5}, "group_fraction: got 0.5"),
        ({"layer": "prefix", "group_fraction": 0.0}, "group_fraction: got 0.0"),
        ({"layer": "prefix", "groups": 1}, "groups: got 1, expected between 2 and 10"),
        ({"layer": "prefix", "contexts": 0}, "contexts: got 0"),
        ({"layer": "prefix", "form": "cubed"}, "form: got 'cubed'"),
        ({"layer": "prefix", "form": "unbiased_square", "contexts": 3}, "contexts: got 3"),
        ({"layer": "prefix", "form": "abs_mean", "fresh_groups": "context"}, "fresh_groups: got"),
        ({"layer": "prefix", "fresh_groups": "epoch"}, "fresh_groups: got 'epoch'"),
        ({"layer": "prefix", "payoff": "logits"}, "payoff: got 'logits', expected one of logit"),
        ({"layer": "prefix", "batch_fraction": 0}, "batch_fraction: got 0"),
        ({"layer": "prefix", "baseline": 0.5}, "baseline: got 0.5"),
        ({}, "layer: got None"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        InteractionLoss(**arguments)


def test_group_fraction_that_leaves_no_context():
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 3))
    with pytest.raises(InputError, match=r"group_fraction: got 0.05 \(2 groups of 1 players\)"):
        interaction("0")(model, *batch())


def test_layers_at_which_replacement_would_be_wrong_are_refused():
    model = torchvision.models.resnet18(num_classes=3)
    x, y = torch.rand(2, 3, 32, 32), torch.tensor([0, 1])
    with pytest.raises(InputError, match=r"'layer2.0.conv1', after which .* try 'layer2.0'"):
        interaction("layer2.0.conv1")(model, x, y)
    with pytest.raises(InputError, match=r"'layr2.0', expected a submodule .* layer2.0"):
        interaction("layr2.0")(model, x, y)


def test_compiled_model():
    model = Net()
    x, y = batch()
    loss = interaction("prefix")
    compiled = torch.compile(model, backend="eager")
    with record(compiled, loss.layers) as forward:
        forward.logits = compiled(x)
    value = loss(compiled, x, y, forward=forward, step=0)
    torch.testing.assert_close(value, loss(model, x, y, step=0))


def test_defaults_take_a_quarter_of_the_batch_and_of_the_units_and_the_log_odds():
    x, y = batch(8)
    model, loss = Net(), InteractionLoss("prefix")
    assert loss.rows(8) == 8
    assert loss.size(20) == 5
    same = interaction("prefix", payoff="log_odds", group_fraction=0.25)
    torch.testing.assert_close(loss(model, x, y, step=3), same(model, x[:2], y[:2], step=3))
