import copy
import pickle

import pytest
import torch
from lightning import LightningModule
from torch import nn
from torchvision.models import alexnet, resnet18, vgg13

from interaction_train.data import DigitsDataModule
from interaction_train.errors import InputError
from interaction_train.game.absence import default_baseline
from interaction_train.game.determinism import forward_agrees
from interaction_train.game.layers import LayerSuffix, features
from interaction_train.models import (
    CIFARVGG,
    CIFARAlexNet,
    CIFARResNet,
    DigitsMLP,
    DigitsNet,
    Normalize,
    normalized,
)

CIFAR = (0.4914, 0.4822, 0.4465)
NETWORKS = {
    "DigitsNet": (lambda: DigitsNet(), (1, 8, 8)),
    "DigitsMLP": (lambda: DigitsMLP(), (1, 8, 8)),
    "CIFARAlexNet": (lambda: CIFARAlexNet(), (3, 32, 32)),
    "CIFARVGG": (lambda: CIFARVGG(), (3, 32, 32)),
    "CIFARVGG of depth 7": (lambda: CIFARVGG(7, hidden=64), (3, 32, 32)),
    "CIFARVGG with BatchNorm": (lambda: CIFARVGG(batch_norm=True), (3, 32, 32)),
    "CIFARResNet": (lambda: CIFARResNet(), (3, 32, 32)),
    "normalized": (lambda: normalized(resnet18(num_classes=10), CIFAR, CIFAR), (3, 32, 32)),
}


def build(name, batch=2):
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    return make(), torch.rand(batch, *shape)


def parameters(module):
    return sum(p.numel() for p in module.parameters())


# --- normalisation --------------------------------------------------------------------------------


def test_normalize_is_minus_mean_over_std_per_channel():
    layer = Normalize([0.5, 0.25, 0.0], [0.5, 0.25, 2.0])
    assert layer.mean.shape == layer.std.shape == (3, 1, 1)
    x = torch.tensor([1.0, 0.5, 0.5])[:, None, None].expand(2, 3, 4, 5)
    expected = torch.tensor([1.0, 1.0, 0.25])[:, None, None].expand(2, 3, 4, 5)
    assert torch.equal(layer(x), expected)
    assert torch.equal(layer(x[0]), expected[0])
    assert layer(x.double()).dtype == torch.float64


def test_normalize_is_part_of_the_state_dict_and_has_no_parameters():
    first, second = Normalize([0.5], [0.25]), Normalize([0.0], [1.0])
    second.load_state_dict(first.state_dict())
    assert (second.mean.item(), second.std.item()) == (0.5, 0.25)
    assert not list(first.parameters())


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([], [], r"mean: got \(\), expected one number per channel"),
        ([0.5, 0.5], [1.0], r"std: got \(1.0,\), expected 2 numbers"),
        ([0.5], [0.0], r"std: got \(0.0,\), expected positive"),
        ([0.5, 0.5], [1.0, -1.0], r"std: got \(1.0, -1.0\), expected positive"),
        ([0.5], [float("nan")], r"std: got \(nan,\), expected positive"),
        ([0.5], [float("inf")], r"std: got \(inf,\), expected positive"),
    ],
)
def test_normalize_refuses_bad_numbers(mean, std, message):
    with pytest.raises(InputError, match=message):
        Normalize(mean, std)


@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (2, 4, 4, 3), (3,)])
def test_normalize_does_not_broadcast_over_channels(shape):
    with pytest.raises(InputError, match=r"x: got shape \(.*\), expected \(\.\.\., 3, H, W\)"):
        Normalize(CIFAR, CIFAR)(torch.rand(shape))


def test_default_baseline_is_the_mean_of_the_first_normalize():
    assert torch.equal(default_baseline(CIFARAlexNet()), torch.tensor(CIFAR)[:, None, None])
    assert default_baseline(nn.Sequential(nn.Linear(2, 2))) is None
    module = LightningModule()
    module.model = nn.Sequential(Normalize([0.1], [1.0]), Normalize([0.2], [1.0]))
    assert default_baseline(module).flatten().tolist() == pytest.approx([0.1])


def test_normalized_puts_the_layer_first_in_a_sequential():
    linear = torch.nn.Linear(12, 3)
    relu = torch.nn.ReLU()
    plain = torch.nn.Sequential(torch.nn.Flatten(), relu, linear, relu)  # one layer twice
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.4, 0.2)
    network = normalized(copy.deepcopy(plain), mean, std)
    x = torch.rand(4, 3, 2, 2)
    want = plain((x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1))
    assert torch.equal(network(x), want)
    assert torch.equal(copy.deepcopy(network)(x), want)
    assert set(plain.state_dict()) < set(network.state_dict())


def test_normalized_gives_any_network_a_first_layer_and_keeps_its_names():
    torch.manual_seed(0)
    plain = resnet18(num_classes=10).eval()
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    network = normalized(copy.deepcopy(plain), mean, std)
    x = torch.rand(2, 3, 32, 32)
    shifted = (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    expected = plain(shifted)
    assert torch.equal(network(x), expected)
    assert set(network.state_dict()) - set(plain.state_dict()) == {
        "normalize.mean",
        "normalize.std",
    }
    assert set(plain.state_dict()) < set(network.state_dict())
    assert torch.equal(default_baseline(network).flatten(), torch.tensor(mean))
    for copied in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(copied(x), expected)
        copied.normalize.mean.zero_()  # a copy has its own layer
        assert not torch.equal(copied(x), expected)
    assert torch.equal(network(x), expected)
    with pytest.raises(InputError, match="network: got one with a 'normalize'"):
        normalized(network, mean, std)


def test_default_statistics_are_those_of_the_data():
    module = DigitsDataModule()
    module.setup()
    pixels = module.parts["train"].source.tensors[0]
    normalize = DigitsNet().normalize
    assert normalize.mean.item() == pytest.approx(pixels.mean().item(), abs=1e-4)
    assert normalize.std.item() == pytest.approx(pixels.std().item(), abs=1e-4)


# --- networks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_and_gradients(name):
    network, x = build(name)
    x.requires_grad_()
    logits = network(x)
    assert logits.shape == (2, 10)
    logits.square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_normalisation_comes_first(name):
    network, x = build(name)
    network.eval()
    expected = network(x)
    network.normalize.mean.fill_(0)
    network.normalize.std.fill_(1)
    make, _ = NETWORKS[name]
    mean, std = make().normalize.mean, make().normalize.std
    assert not torch.allclose(network(x), expected)
    torch.testing.assert_close(network((x - mean) / std), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_state_dicts_and_copies_give_the_same_logits(name):
    network, x = build(name)
    other = NETWORKS[name][0]()
    other.load_state_dict(network.state_dict())
    expected = network.eval()(x)
    assert torch.equal(other.eval()(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(network))(x), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_only_batch_norm_and_dropout_make_train_and_eval_differ(name):
    network, _ = build(name)
    batch_norm = name in ("CIFARVGG with BatchNorm", "CIFARResNet", "normalized")
    assert forward_agrees(network.train()) is not batch_norm


@pytest.mark.parametrize("make", [DigitsNet, CIFARAlexNet, CIFARVGG])
def test_dropout_is_active_in_training_and_changes_no_name(make):
    torch.manual_seed(0)
    plain, dropping = make(), make(dropout=0.5)
    assert list(plain.state_dict()) == list(dropping.state_dict())
    assert [n for n, _ in plain.named_modules()] == [n for n, _ in dropping.named_modules()]
    assert not any(isinstance(m, nn.Dropout) for m in plain.modules())
    assert not forward_agrees(dropping.train())
    x = torch.rand(4, *((1, 8, 8) if make is DigitsNet else (3, 32, 32)))
    assert not torch.equal(dropping(x), dropping(x))
    assert torch.equal(dropping.eval()(x), dropping(x))


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("DigitsNet", ["normalize", "features.2", "features.5", "classifier.1"]),
        ("CIFARAlexNet", ["features.0", "features.2", "features.5", "features.12", "classifier.3"]),
        ("CIFARVGG", ["features.2", "features.5", "features", "classifier.2"]),
        ("CIFARVGG with BatchNorm", ["features.3", "features"]),
        ("CIFARResNet", ["conv1", "layer1.0", "layer1", "layer2.1", "avgpool"]),
        ("normalized", ["conv1", "maxpool", "layer1.0", "layer4"]),
    ],
)
def test_layers_where_a_loss_may_act(name, layers):
    network, x = build(name)
    network.eval()
    expected = network(x)
    for layer in layers:
        suffix = LayerSuffix(network, layer, x)
        torch.testing.assert_close(suffix(features(network, layer, x)), expected)


def test_alexnet_keeps_the_layer_indices_of_torchvision():
    ours, theirs = CIFARAlexNet(), alexnet(num_classes=10)
    kinds = [type(layer) for layer in ours.features]
    assert kinds == [type(layer) for layer in theirs.features]
    convolutions = [i for i, kind in enumerate(kinds) if kind is nn.Conv2d]
    for i in convolutions[1:]:
        assert ours.features[i].weight.shape == theirs.features[i].weight.shape
    assert ours.features[0].weight.shape == (64, 3, 3, 3)
    x = torch.rand(2, 3, 32, 32)
    assert features(ours, "features.5", x).shape == (2, 192, 8, 8)
    assert features(ours, "features.12", x).shape == (2, 256, 4, 4)
    assert [tuple(p.shape) for p in ours.classifier.parameters() if p.dim() == 2] == [
        (1024, 4096),
        (1024, 1024),
        (10, 1024),
    ]


@pytest.mark.parametrize(("depth", "convolutions"), [(11, 8), (13, 10), (16, 13)])
def test_vgg_depths(depth, convolutions):
    network = CIFARVGG(depth, num_classes=7)
    assert sum(isinstance(m, nn.Conv2d) for m in network.features) == convolutions
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    normal = CIFARVGG(depth, batch_norm=True)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in normal.features) == convolutions
    assert parameters(network.classifier) == 512 * 512 + 512 + 512 * 7 + 7
    x = torch.rand(2, 3, 32, 32)
    assert features(network, "features", x).shape == (2, 512, 1, 1)
    assert network(x).shape == (2, 7)


def test_vgg_has_the_convolutions_of_torchvision():
    assert parameters(CIFARVGG(13).features) == parameters(vgg13(num_classes=10).features)


@pytest.mark.parametrize("make", [CIFARAlexNet, CIFARVGG, lambda: CIFARVGG(16)])
def test_networks_without_batch_norm_start_with_a_signal(make):
    torch.manual_seed(0)
    logits = make()(torch.randn(16, 3, 8, 8).repeat_interleave(4, 2).repeat_interleave(4, 3))
    assert 0.05 < (logits - logits.mean(0)).square().mean().sqrt() < 5


def test_resnet_is_torchvisions_with_a_small_stem():
    ours, theirs = CIFARResNet(18), resnet18(num_classes=10)
    assert parameters(theirs) - parameters(ours) == 64 * 3 * (49 - 9)
    assert set(dict(theirs.named_parameters())) == set(dict(ours.named_parameters()))
    x = torch.rand(2, 3, 32, 32)
    assert features(ours, "conv1", x).shape == (2, 64, 32, 32)
    assert features(ours, "layer1", x).shape == (2, 64, 32, 32)
    assert features(ours, "layer4", x).shape == (2, 512, 4, 4)
    assert ours(torch.rand(2, 3, 28, 40)).shape == (2, 10)


def test_resnet_34_has_sixteen_blocks():
    network = CIFARResNet(34, num_classes=5)
    assert [len(getattr(network, f"layer{i}")) for i in range(1, 5)] == [3, 4, 6, 3]
    assert network.fc.out_features == 5


@pytest.mark.parametrize("size", [8, 11, 28])
def test_digits_net_takes_other_sizes_channels_and_classes(size):
    network = DigitsNet(7, in_channels=3, width=4, image_size=size, mean=CIFAR, std=CIFAR)
    assert network(torch.rand(2, 3, size, size)).shape == (2, 7)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (DigitsNet, {"num_classes": 0}, "num_classes: got 0, expected at least 1"),
        (DigitsMLP, {"hidden": ()}, r"hidden: got \(\), expected one size per hidden layer"),
        (DigitsMLP, {"mean": CIFAR}, "mean: got .*, expected in_channels = 1 numbers"),
        (DigitsNet, {"width": 0}, "width: got 0, expected at least 1"),
        (DigitsNet, {"image_size": 7}, "image_size: got 7, expected at least 8"),
        (DigitsNet, {"dropout": 1.0}, r"dropout: got 1\.0, expected a probability"),
        (DigitsNet, {"in_channels": 3}, r"mean: got \(0\.3053,\), expected in_channels = 3"),
        (CIFARAlexNet, {"num_classes": 0}, "num_classes: got 0"),
        (CIFARAlexNet, {"dropout": -0.1}, r"dropout: got -0\.1"),
        (CIFARAlexNet, {"hidden": 0}, "hidden: got 0"),
        (CIFARVGG, {"depth": 12}, "depth: got 12, expected one of 7, 11, 13, 16"),
        (CIFARVGG, {"num_classes": 0}, "num_classes: got 0"),
        (CIFARVGG, {"hidden": 0}, "hidden: got 0"),
        (CIFARVGG, {"dropout": 2}, "dropout: got 2"),
        (CIFARResNet, {"depth": 50}, "depth: got 50, expected one of 18, 34"),
        (CIFARResNet, {"num_classes": 0}, "num_classes: got 0"),
    ],
)
def test_arguments_out_of_range(make, arguments, message):
    with pytest.raises(InputError, match=f"^{message}"):
        make(**arguments)


@pytest.mark.parametrize("name", ["DigitsNet", "CIFARAlexNet", "CIFARVGG"])
def test_inputs_of_another_size_are_refused(name):
    network, x = build(name)
    bigger = nn.functional.pad(x, [0, 1, 0, 1])
    size = x.shape[-1]
    with pytest.raises(InputError, match=rf"x: got shape .*{size + 1}\).*\(B, C, {size}, {size}\)"):
        network(bigger)


def test_networks_have_class_names_of_their_own():
    # YAML names them without a module path.
    names = [cls.__name__ for cls in _subclasses(nn.Module)]
    assert "ResNet" in names
    for network in (DigitsNet, CIFARAlexNet, CIFARVGG, CIFARResNet):
        assert names.count(network.__name__) == 1


def _subclasses(cls):
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def test_digits_net_learns_the_digits():
    torch.manual_seed(0)
    module, network = DigitsDataModule(), DigitsNet()
    loader = module.train_dataloader()
    epochs = 25
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, epochs * len(loader))
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
            optimizer.step()
            schedule.step()
    correct = torch.cat([network(x).argmax(1) == y for x, y in module.test_dataloader()])
    assert correct.float().mean() >= 0.975
