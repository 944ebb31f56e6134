"""Games at a hidden layer: recording, running up to it, and what follows it."""

import warnings

import pytest
import torch
import torchvision
from torch import nn

from interaction_train.errors import InputError
from interaction_train.game.evaluation import logits_of, unwrap
from interaction_train.game.layers import LayerPrefix, LayerSuffix, features, find_layer, record
from interaction_train.game.masked import MaskedGame
from interaction_train.game.players import GridPlayers, UnitPlayers
from interaction_train.models import DigitsNet


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def inputs(batch=3, size=32, channels=3, seed=1):
    return torch.rand(batch, channels, size, size, generator=generator(seed))


def tiny():
    layers = [nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 3)]
    model = nn.Sequential(*layers).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator(2), dtype=p.dtype))
    return model


def tiny_inputs(batch=4, seed=3):
    return torch.randn(batch, 6, generator=generator(seed), dtype=torch.float64)


def slim(build, classifier_inputs):
    """A torchvision network whose huge classifier is never allocated, with sensible weights."""
    with torch.device("meta"):
        model = build()
        model.classifier = nn.Sequential(nn.Dropout(), nn.Linear(classifier_inputs, 10))
    model = model.to_empty(device="cpu")
    with torch.no_grad():
        for p in model.parameters():
            fan = p[0].numel() if p.dim() > 1 else 1
            scale = (2 / fan) ** 0.5 if p.dim() > 1 else 0.1
            p.copy_(torch.randn(p.shape, generator=generator(4)) * scale)
    return model


@pytest.fixture(scope="module")
def alexnet():
    return slim(torchvision.models.alexnet, 256 * 6 * 6)


@pytest.fixture(scope="module")
def vgg():
    return slim(lambda: torchvision.models.vgg11(init_weights=False), 512 * 7 * 7)


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=10)


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return torchvision.models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=10)


class GlobalSkip(nn.Module):
    """The input goes round the body, straight to the logits."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
        self.head = nn.Linear(6, 3)
        self.skip = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.body(x)) + self.skip(x)


class Branches(nn.Module):
    """A module that is never called, one that returns a tuple, and one that drops the batch."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.unused = nn.Linear(6, 6)
        self.gru = nn.GRU(6, 5, batch_first=True)
        self.average = nn.AdaptiveAvgPool1d(1)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        sequence, _ = self.gru(self.first(x)[:, None])
        self.average(x.mean(0, keepdim=True)[None])
        return self.head(sequence[:, 0])


class Dead(nn.Module):
    """Depends on the input by a second way, which a freshly initialised head hides."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(6, 6)
        self.mixer = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)
        nn.init.zeros_(self.head.weight)

    def forward(self, x):
        return self.head(self.mixer(self.body(x) + x))


class Summed(nn.Module):
    """Tokens, of which the positions of the large ones are used once more."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, tokens):
        return self.head((self.embedding(tokens) * (tokens > 2).unsqueeze(-1)).sum(1))


def assert_legal(model, layer, x, zero_head=False):
    """The suffix of a layer, run on features of two other batches, gives the network's logits."""
    plain = unwrap(model)
    modes = {name: m.training for name, m in plain.named_modules()}
    suffix = LayerSuffix(model, layer, x)
    assert {name: m.training for name, m in plain.named_modules()} == modes
    plain.eval()
    try:
        with torch.no_grad():
            for batch, seed in ((1, 7), (4, 8)):
                other = torch.rand(batch, *x.shape[1:], generator=generator(seed)).to(x)
                expected = plain(other)
                got = suffix(features(model, layer, other))
                torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
                varies = (expected[:1] - plain(x[:1])).abs().max() > 1e-4
                assert varies != zero_head  # equal logits mean something where they vary
    finally:
        for name, module in plain.named_modules():
            module.training = modes[name]


def refusal(model, layer, x):
    with pytest.raises(InputError) as error:
        LayerSuffix(model, layer, x)
    message = str(error.value)
    assert message.startswith(f"layer: got {layer!r}, ")
    return message


class TestFindLayer:
    def test_by_dotted_name(self, resnet):
        assert find_layer(resnet, "layer2.0.conv1") is resnet.layer2[0].conv1

    def test_near_names(self, resnet):
        with pytest.raises(InputError, match=r"layer: got 'layer2\.conv1'.*layer2\.0\.conv1"):
            find_layer(resnet, "layer2.conv1")

    def test_no_near_name_lists_some(self):
        with pytest.raises(InputError, match="such as 0, 1, 2, 3, 4"):
            find_layer(tiny(), "encoder")

    def test_the_network_itself_is_no_layer(self):
        with pytest.raises(InputError, match="layer: got ''"):
            find_layer(tiny(), "")

    def test_under_wrappers(self):
        model = tiny()
        assert find_layer(nn.DataParallel(model), "2") is model[2]

    @pytest.mark.parametrize("use", [features, LayerSuffix])
    def test_all_uses_check_the_name(self, use):
        model, x = tiny(), tiny_inputs()
        with pytest.raises(InputError, match="layer: got '5'"):
            use(model, "5", x)


class TestRecord:
    def test_outputs_and_graph(self):
        model, x = tiny(), tiny_inputs()
        with record(model, ["0", "2"]) as forward:
            logits = model(x)
        assert list(forward.features) == ["0", "2"]
        first, second = forward.features["0"], forward.features["2"]
        torch.testing.assert_close(second, model[2](model[1](model[0](x))))
        (gradient,) = torch.autograd.grad(second.sum(), model[0].weight, retain_graph=True)
        assert gradient.abs().max() > 0
        assert forward.logits is None  # is the caller's to fill in
        assert torch.equal(logits, model(x))
        assert first.requires_grad

    def test_an_in_place_operation_after_the_layer(self):
        model, x = tiny(), tiny_inputs()
        with record(model, ["0"]) as forward:
            model(x)
        expected = x @ model[0].weight.T + model[0].bias
        assert (expected < 0).any()
        torch.testing.assert_close(forward.features["0"], expected)

    def test_hooks_are_removed(self):
        model = tiny()
        with record(model, ["0", "0", "2"]) as forward:
            assert len(model[0]._forward_hooks) == 1
            model(tiny_inputs())
        kept = forward.features["0"].clone()
        model(tiny_inputs(seed=9))
        assert torch.equal(forward.features["0"], kept)
        with pytest.raises(ArithmeticError), record(model, ["0"]):
            raise ArithmeticError
        assert not any(m._forward_hooks for m in model.modules())

    def test_hooks_are_removed_when_a_later_name_is_wrong(self):
        model = tiny()
        with pytest.raises(InputError, match="layer: got 'wrong'"), record(model, ["0", "wrong"]):
            pass
        assert not any(m._forward_hooks for m in model.modules())

    def test_last_of_several_forwards_counts(self):
        model = tiny()
        with record(model, ["2"]) as forward:
            model(tiny_inputs())
            model(tiny_inputs(seed=9))
        expected = features(model, "2", tiny_inputs(seed=9))
        torch.testing.assert_close(forward.features["2"], expected)

    def test_outputs_that_are_no_tensors_are_left_out(self):
        model = Branches()
        with record(model, ["gru", "first"]) as forward:
            model(tiny_inputs().float())
        assert list(forward.features) == ["first"]

    def test_no_layers(self):
        with record(tiny(), []) as forward:
            assert forward.features == {}

    def test_data_parallel(self):
        model = tiny()
        wrapped = nn.DataParallel(model)
        with record(wrapped, ["2"]) as forward:
            wrapped(tiny_inputs())
        assert forward.features["2"].shape == (4, 5)


class TestFeatures:
    def test_values_and_gradient(self):
        model, x = tiny(), tiny_inputs().requires_grad_()
        got = features(model, "2", x)
        torch.testing.assert_close(got, model[2](torch.relu(model[0](x))))
        got.sum().backward()
        assert x.grad.abs().max() > 0

    def test_no_further_than_the_layer(self):
        model, calls = tiny(), []
        for k, module in enumerate(model):
            module.register_forward_pre_hook(lambda *_, k=k: calls.append(k))
        features(model, "2", tiny_inputs())
        assert calls == [0, 1, 2]

    def test_in_eval_and_without_trace(self):
        norm = nn.BatchNorm1d(6)
        norm.running_mean.fill_(2.0)
        model = nn.Sequential(norm, nn.Dropout(0.5), nn.Linear(6, 2))
        model[1].eval()
        x = tiny_inputs().float()
        random = torch.get_rng_state()
        expected = (x - 2) / (1 + norm.eps) ** 0.5
        torch.testing.assert_close(features(model, "1", x), expected)
        assert [m.training for m in model] == [True, False, True]
        assert model.training
        assert (norm.running_mean == 2).all()
        assert norm.num_batches_tracked == 0
        assert torch.equal(torch.get_rng_state(), random)
        assert not any(m._forward_hooks for m in model.modules())

    def test_hook_is_removed_when_the_network_raises(self):
        model = tiny()
        with pytest.raises(RuntimeError, match="shapes"):
            features(model, "2", torch.zeros(2, 5, dtype=torch.float64))
        assert not any(m._forward_hooks for m in model.modules())
        assert model.training

    def test_a_layer_that_is_never_called(self):
        with pytest.raises(InputError, match=r"'unused', expected a layer that the network's"):
            features(Branches(), "unused", tiny_inputs().float())


class Shifted(nn.Linear):
    """Takes a further input, as an attention mask is one."""

    def forward(self, x, shift):
        return super().forward(x) + shift


class TestPrefix:
    @pytest.mark.parametrize("chunk_size", [None, 3])
    def test_game_of_a_feature(self, chunk_size):
        model, calls = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Dropout(), nn.Flatten()), []
        model.append(nn.Linear(48, 2)).register_forward_hook(lambda *_: calls.append("whole"))
        model[3].register_forward_hook(lambda *_: calls.append("further"))
        x, prefix = inputs(2, 6, 1), LayerPrefix(model, "1")
        game = MaskedGame(prefix, x, 0.5, GridPlayers(1, 2), "all", chunk_size=chunk_size)
        coalitions = torch.tensor([[True, False], [True, True], [False, False]])
        values = game(coalitions)
        half = torch.full_like(x, 0.5)
        half[..., :3] = x[..., :3]
        expected = [model[0](some).flatten(1) for some in (half, x, torch.full_like(x, 0.5))]
        torch.testing.assert_close(values, torch.stack(expected, 1))
        assert calls == []
        assert all(m.training and len(m._forward_hooks) == (m is model or m is model[3])
                   for m in model.modules())  # fmt: skip
        x.requires_grad_()
        torch.autograd.grad(game(coalitions, grad=True).sum(), x)
        assert all(p.grad is None for p in model.parameters())

    def test_half_precision_is_read_in_float32(self):
        model, x = tiny().to(torch.bfloat16), tiny_inputs().to(torch.bfloat16)
        game = MaskedGame(LayerPrefix(model, "2"), x, 0.0, UnitPlayers(), "all")
        values = game(torch.ones(1, 6, dtype=torch.bool))
        assert values.dtype == torch.float32
        assert torch.equal(values[:, 0], model[:3](x).float())

    def test_further_inputs(self):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body, self.head = Shifted(6, 3), nn.Linear(3, 2)

            def forward(self, x, shift):
                return self.head(self.body(x, shift))

        net, x = Net(), tiny_inputs().float()
        shift = torch.arange(4.0)[:, None]
        prefix = LayerPrefix(nn.DataParallel(net), "body")
        game = MaskedGame(prefix, x, 0.0, UnitPlayers(), "all", extra={"shift": shift})
        values = game(torch.zeros(1, 6, dtype=torch.bool))
        torch.testing.assert_close(values[:, 0], net.body.bias + shift)

    @pytest.mark.parametrize(
        ("layer", "message"),
        [
            ("gru", r"'gru', whose output is tuple, expected a layer with a tensor \(4, \.\.\.\)"),
            ("average", r"'average', whose output is \(1, 1, 1\)"),
            ("unused", "'unused', expected a layer that the network's forward pass calls"),
        ],
    )
    def test_layers_that_are_no_feature(self, layer, message):
        prefix = LayerPrefix(Branches(), layer)
        with pytest.raises(InputError, match=f"layer: got {message}"):
            prefix(tiny_inputs().float())

    def test_one_number_and_unknown_names(self):
        with pytest.raises(InputError, match=r"layer: got '1', whose output is \(4, 1\)"):
            LayerPrefix(nn.Sequential(nn.Identity(), nn.Linear(6, 1)), "1")(tiny_inputs().float())
        with pytest.raises(InputError, match="layer: got '5'"):
            LayerPrefix(tiny(), "5")
        with pytest.raises(InputError, match="model: got function"):
            LayerPrefix(lambda x: x, "5")

    def test_a_network_compiled_in_place(self):
        model, x = tiny(), tiny_inputs()
        expected = LayerPrefix(model, "2")(x)
        model.compile(backend="eager")
        model.eval()(x)  # the graph is there before the hook
        torch.testing.assert_close(LayerPrefix(model, "2")(x), expected)


class TestSuffix:
    @pytest.mark.parametrize("layer", ["0", "1", "2", "3"])
    def test_is_the_true_suffix(self, layer):
        model, x = tiny(), tiny_inputs()
        suffix = LayerSuffix(model, layer, x)
        hidden = features(model, layer, tiny_inputs(7, seed=5)).detach()
        expected = hidden.clone()
        for module in model[int(layer) + 1 :]:
            expected = module(expected)
        torch.testing.assert_close(suffix(hidden), expected, rtol=0, atol=1e-12)

    def test_any_replacement(self):
        model, x = tiny(), tiny_inputs()
        anything = torch.randn(9, 5, generator=generator(6), dtype=torch.float64)
        got = LayerSuffix(model, "2", x)(anything)
        torch.testing.assert_close(got, model[4](torch.tanh(anything)), rtol=0, atol=1e-12)

    def test_gradients_reach_the_replacement_and_the_later_weights(self):
        model, x = tiny(), tiny_inputs()
        suffix = LayerSuffix(model, "2", x)
        hidden = torch.randn(3, 5, generator=generator(6), dtype=torch.float64).requires_grad_()
        assert torch.autograd.gradcheck(suffix, (hidden,))
        wanted = [hidden, model[4].weight, model[0].weight]
        got = torch.autograd.grad(suffix(hidden).sum(), wanted, allow_unused=True)
        direct = model[4](torch.tanh(hidden)).sum()
        for a, b in zip(got[:2], torch.autograd.grad(direct, wanted[:2]), strict=True):
            torch.testing.assert_close(a, b)
        assert got[2] is None  # the token does not train the prefix

    def test_an_in_place_operation_leaves_the_replacement_alone(self):
        model, x = tiny(), tiny_inputs()
        hidden = features(model, "0", x).detach()
        before = hidden.clone()
        assert (before < 0).any()
        first = LayerSuffix(model, "0", x)(hidden)
        assert torch.equal(hidden, before)
        assert torch.equal(LayerSuffix(model, "0", x)(hidden), first)
        leaf = hidden.clone().requires_grad_()  # in place, a leaf would even raise
        LayerSuffix(model, "0", x)(leaf).sum().backward()
        assert leaf.grad.abs().max() > 0

    def test_prefix_runs_one_row_a_call(self):
        model, x, rows = tiny(), tiny_inputs(), []
        model[0].register_forward_hook(lambda m, inputs, output: rows.append(len(output)))
        suffix = LayerSuffix(model, "2", x)
        rows.clear()
        for batch in (1, 5, 100):
            assert len(suffix(torch.zeros(batch, 5, dtype=torch.float64))) == batch
        assert rows == [1, 1, 1]

    def test_layer_is_checked_once(self):
        model, x, rows = tiny(), tiny_inputs(), []
        model[0].register_forward_hook(lambda m, inputs, output: rows.append(len(output)))
        LayerSuffix(model, "2", x)
        assert rows
        rows.clear()
        LayerSuffix(model, "2", x)
        assert rows == []
        LayerSuffix(model, "3", x)
        assert rows
        again = []
        other = tiny()
        other[0].register_forward_hook(lambda m, inputs, output: again.append(len(output)))
        LayerSuffix(other, "2", x)
        assert again

    def test_leaves_no_trace(self):
        model = nn.Sequential(
            nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.ReLU(), nn.Linear(6, 2)
        )
        model[2].eval()
        before = {name: t.clone() for name, t in model.state_dict().items()}
        random = torch.get_rng_state()
        LayerSuffix(model, "1", tiny_inputs().float())
        assert [m.training for m in model] == [True, True, False, True, True]
        for name, value in model.state_dict().items():
            assert torch.equal(value, before[name]), name
        assert torch.equal(torch.get_rng_state(), random)
        assert not any(m._forward_hooks for m in model.modules())
        assert all(p.grad is None for p in model.parameters())

    def test_hooks_are_removed_when_the_suffix_raises(self):
        model, x = tiny(), tiny_inputs()
        suffix = LayerSuffix(model, "2", x)
        with pytest.raises(RuntimeError, match="shapes"):
            suffix(torch.zeros(2, 4, dtype=torch.float64))
        assert not any(m._forward_hooks for m in model.modules())

    @pytest.mark.parametrize("batch", [1, 2, 5])
    def test_few_or_equal_samples_suffice(self, batch):
        x = tiny_inputs(1).expand(batch, -1)
        assert_legal(tiny(), "2", x)
        assert "another way" in refusal(GlobalSkip(), "body", x.float())
        assert "another way" in refusal(Dead(), "body", x.float())

    @pytest.mark.parametrize("batch", [1, 3])
    def test_integer_inputs(self, batch):
        tokens = torch.tensor([[3, 1, 4, 1, 5, 9]]).expand(batch, -1)
        plain = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(24, 3))
        suffix = LayerSuffix(plain, "0", tokens)
        other = torch.tensor([[2, 7, 1, 8, 2, 8], [0, 0, 0, 0, 0, 1]])
        torch.testing.assert_close(suffix(features(plain, "0", other)), plain(other))
        assert "another way" in refusal(Summed(), "embedding", tokens)

    def test_under_autocast(self):
        model, x = tiny().float(), tiny_inputs().float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            suffix = LayerSuffix(model, "2", x)
            with pytest.raises(InputError, match="another way"):
                LayerSuffix(GlobalSkip(), "body", x)
        hidden = features(model, "2", x)
        torch.testing.assert_close(suffix(hidden), model(x))


class TestLegalLayers:
    @pytest.mark.parametrize("layer", ["features.0", "features.5", "features.12", "avgpool"])
    def test_alexnet(self, alexnet, layer):
        assert_legal(alexnet, layer, inputs(size=64))

    @pytest.mark.parametrize("layer", ["features.3", "features", "classifier.0"])
    def test_vgg(self, vgg, layer):
        assert_legal(vgg, layer, inputs())

    @pytest.mark.parametrize("layer", ["conv1", "relu", "layer1", "layer2.0", "layer4", "avgpool"])
    def test_resnet(self, resnet, layer):
        assert_legal(resnet, layer, inputs())

    @pytest.mark.parametrize(
        "layer", ["encoder.dropout", "encoder.layers.encoder_layer_0", "encoder"]
    )
    def test_vit(self, vit, layer):
        assert_legal(vit, layer, inputs(), zero_head=True)
        model = torchvision.models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=10)
        nn.init.normal_(model.heads.head.weight)
        assert_legal(model, layer, inputs())


class TestRefusedLayers:
    @pytest.mark.parametrize("layer", ["layer2.0.conv1", "layer2.0.bn2", "layer3.1.conv2"])
    def test_residual_branch(self, resnet, layer):
        message = refusal(resnet, layer, inputs())
        assert "still depends on the input by another way" in message
        block = layer.rpartition(".")[0]
        assert message.endswith(f"try {block!r}")
        assert_legal(resnet, block, inputs())

    @pytest.mark.parametrize("layer", ["layer2.0.downsample", "layer2.0.downsample.0"])
    def test_shortcut(self, resnet, layer):
        message = refusal(resnet, layer, inputs())  # an in-place sum of two batch sizes fails
        assert "another way" in message or "batch size" in message
        assert message.endswith("try 'layer2.0'")

    @pytest.mark.parametrize("layer", ["body", "body.0"])
    def test_global_skip(self, layer):
        message = refusal(GlobalSkip(), layer, tiny_inputs().float())
        assert "another way" in message
        assert message.endswith("or give suffix=")  # no layer is legal here

    def test_dependence_behind_a_zero_head(self):
        model, x = Dead(), tiny_inputs().float()
        assert (model(x) == model(x[:1])).all()  # the logits alone would not show it
        assert "another way" in refusal(model, "body", x)
        assert_legal(model, "mixer", x, zero_head=True)

    @pytest.mark.parametrize("part", ["mlp", "self_attention.out_proj", "ln_1", "ln_2", "dropout"])
    @pytest.mark.parametrize("head", ["zero", "random"])
    def test_inside_a_vit_block(self, vit, part, head):
        model = vit
        assert (model.heads.head.weight == 0).all()
        if head == "random":
            model = torchvision.models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=10)
            nn.init.normal_(model.heads.head.weight)
        refusal(model, f"encoder.layers.encoder_layer_0.{part}", inputs())

    def test_vit_mlp_says_why(self, vit):
        message = refusal(vit, "encoder.layers.encoder_layer_0.mlp", inputs())
        assert "another way" in message
        assert "try 'encoder.layers.encoder_layer_0'" in message

    def test_view_by_the_batch_size(self, vit):
        assert "uses the input's batch size" in refusal(vit, "conv_proj", inputs())

    def test_reused_layer(self, resnet):
        assert "calls 2 times" in refusal(resnet, "layer1.0.relu", inputs())

    def test_unused_layer(self):
        assert "calls 0 times" in refusal(Branches(), "unused", tiny_inputs().float())

    @pytest.mark.parametrize("layer", ["gru", "average"])
    def test_output_that_cannot_be_replaced(self, layer):
        message = refusal(Branches(), layer, tiny_inputs().float())
        assert "no tensor (B, ...)" in message

    def test_a_refusal_is_not_remembered_as_legal(self, resnet):
        refusal(resnet, "layer2.0.conv1", inputs())
        refusal(resnet, "layer2.0.conv1", inputs())

    def test_leaves_no_trace(self, resnet):
        resnet.train()
        resnet.layer3.eval()
        before = {name: t.clone() for name, t in resnet.state_dict().items()}
        modes = [m.training for m in resnet.modules()]
        refusal(resnet, "layer2.0.conv1", inputs())
        assert [m.training for m in resnet.modules()] == modes
        assert all(torch.equal(t, before[name]) for name, t in resnet.state_dict().items())
        assert not any(m._forward_hooks for m in resnet.modules())


class TestCompiled:
    @pytest.fixture
    def compiled(self):
        model = tiny()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield model, torch.compile(model, backend="eager")
            torch.compiler.reset()

    def test_the_plain_module_does_the_work(self, compiled):
        model, wrapped = compiled
        assert unwrap(wrapped) is model
        assert find_layer(wrapped, "2") is model[2]
        torch.testing.assert_close(
            features(wrapped, "2", tiny_inputs())[:2], features(model, "2", tiny_inputs()[:2])
        )
        assert_legal(wrapped, "2", tiny_inputs())

    def test_nothing_is_recorded_and_the_compiled_forward_is_right(self, compiled):
        model, wrapped = compiled
        x = tiny_inputs()
        expected = model(x)
        with record(wrapped, ["2"]) as forward:
            torch.testing.assert_close(wrapped(x), expected)
        assert forward.features == {}
        # A suffix made after compilation works, and the compiled forward is still right.
        suffix = LayerSuffix(wrapped, "2", x)
        torch.testing.assert_close(suffix(features(wrapped, "2", x)), expected)
        torch.testing.assert_close(wrapped(x), expected)


class MaskedMean(nn.Module):
    """Tokens in, zeros as padding: the lengths go round the layers."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Linear(4, 6)
        self.mixer = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        there = (x != 0).any(-1, keepdim=True)
        h = self.mixer(self.embedding(x).tanh()).tanh()
        return self.head((h * there).sum(1) / there.sum(1))


class Sideways(nn.Module):
    """b(a(x)) + side(x), with a side branch given as a function of the network and the input."""

    def __init__(self, side):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.side = nn.Linear(6, 5), nn.Linear(5, 4), side
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return self.b(self.a(x).relu()) + self.side(self, x)


SIDES = {
    "dead units": lambda net, x: (x[:, :4] - 2).relu(),
    "zero gate": lambda net, x: net.gate * x[:, :4],
    "sign": lambda net, x: (x[:, :4] > 5).float(),
    "argmax": lambda net, x: torch.nn.functional.one_hot(x[:, :4].argmax(1), 4).float() * 0,
    "written in place": lambda net, x: torch.zeros(len(x), 4).copy_(x[:, :4]) * 0,
    "view of a buffer": lambda net, x: filled(x) * net.gate,
    "host": lambda net, x: 1.0 if x.max().item() > 100 else 0.0,
    "list": lambda net, x: float(sum(x[:, 0].tolist()) > 100),
    "numpy": lambda net, x: torch.from_numpy(x.detach().numpy())[:, :4] * 0,
    "length of a selection": lambda net, x: float(len(x[x > 100])),
    "batch size": lambda net, x: float(len(x)),
}  # fmt: skip


def filled(x):
    buffer = torch.zeros(len(x), 6)
    buffer[:, :4] = x[:, :4]
    return buffer[:, :4]


class TestOtherWays:
    """What values at one moment do not show."""

    @pytest.mark.parametrize("layer", ["embedding", "mixer"])
    @pytest.mark.parametrize("lengths", [[3, 3, 5], [5, 3, 3], [5, 5, 5]])
    def test_masked_mean(self, layer, lengths):
        x = torch.rand(3, 5, 4, generator=generator(1))
        for row, length in zip(x, lengths, strict=True):
            row[length:] = 0
        assert "another way" in refusal(MaskedMean(), layer, x)

    @pytest.mark.parametrize("layer", ["a", "b"])
    @pytest.mark.parametrize("side", SIDES)
    def test_side_branches(self, side, layer):
        message = refusal(Sideways(SIDES[side]), layer, tiny_inputs().float())
        assert any(words in message for words in ("another way", "reads numbers", "batch size"))
        assert message.endswith("or give suffix=")

    @pytest.mark.parametrize("layer", ["a", "b"])
    def test_what_reads_shapes_alone_is_legal(self, layer):
        model = Sideways(lambda net, x: x.new_ones(1, 4) + torch.zeros_like(x[:1, :4]))
        assert_legal(model, layer, tiny_inputs().float())

    def test_a_gate_that_the_host_reads_is_checked_again(self):
        def side(net, x):
            return net.gate * x[:, :4] if float(net.gate) else 0.0

        model, x = Sideways(side), tiny_inputs().float()
        assert_legal(model, "a", x)
        nn.init.ones_(model.gate)
        assert "another way" in refusal(model, "a", x)

    @pytest.mark.parametrize("value", [-torch.inf, torch.nan])
    def test_infinite_and_missing_numbers_mislead_nobody(self, value):
        class Masking(nn.Module):
            def forward(self, z):
                return z.masked_fill(z < 0, value)

        model = nn.Sequential(nn.Linear(6, 5), Masking(), nn.Softmax(1), nn.Linear(5, 3))
        LayerSuffix(model, "0", tiny_inputs().float())
        model = GlobalSkip()
        nn.init.constant_(model.head.weight, torch.nan)
        assert "another way" in refusal(model, "body", tiny_inputs().float())

    def test_nested_tensors(self):
        class Nesting(nn.Module):
            def forward(self, x):
                return torch.nested.nested_tensor([x[0], x[1]])

        class Padding(nn.Module):
            def forward(self, x):
                return x.to_padded_tensor(0.0)

        model = nn.Sequential(nn.Linear(6, 5), Nesting(), Padding(), nn.Linear(5, 3))
        assert "no tensor (B, ...)" in refusal(model, "1", tiny_inputs(2)[:, None].float())

    def test_a_layer_that_a_mode_skips(self):
        model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
        suffix = LayerSuffix(model, "1", tiny_inputs().float())
        model.forward = lambda x: model[2](model[0](x))
        with pytest.raises(InputError, match="calls 0 times"):
            suffix(torch.rand(2, 5))

    @pytest.mark.parametrize("name", ["features.2", "model.features.2"])
    def test_networks_that_return_more_than_logits(self, name):
        class Both(DigitsNet):
            def forward(self, x):
                return {"logits": super().forward(x), "input": x}

        model = logits_of(Both())
        x = torch.rand(3, 1, 8, 8, generator=generator())
        suffix = LayerSuffix(model, name, x)
        torch.testing.assert_close(suffix(features(model, name, x)), model(x))

    def test_a_module_instead_of_its_name(self):
        model = tiny()
        with pytest.raises(InputError, match="layer: got Linear, expected the layer's dotted"):
            find_layer(model, model[0])
