"""The skip gradient method against hand-computed gradients and against γF + (1 − γ)·stopgrad(F)."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models

from interaction_train.attacks.ensemble import Ensemble
from interaction_train.attacks.parts.skip import residual_branches, skip_gradient
from interaction_train.errors import InputError
from interaction_train.models import CIFARVGG, CIFARResNet, CIFARThinResNet

GAMMA = 0.3


def damped(branch, gamma=GAMMA):
    """The definition of the method."""
    return gamma * branch + (1 - gamma) * branch.detach()


def hooks(network):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


def prepared(network, seed=0):
    """In float64 and eval, with statistics that are not those of a fresh network, frozen."""
    generator = torch.Generator().manual_seed(seed)
    network = network.double().eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            shape = module.weight.shape
            module.weight.copy_(0.5 + torch.rand(shape, generator=generator, dtype=torch.float64))
            module.bias.copy_(0.2 * torch.randn(shape, generator=generator, dtype=torch.float64))
    return network


def image(size, batch=2, channels=3):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(batch, channels, size, size, generator=generator, dtype=torch.float64)
    return x.requires_grad_()


def gradient(network, x):
    logits = network(x)
    weights = torch.arange(1.0, logits.shape[1] + 1, dtype=logits.dtype).cos()
    return logits, torch.autograd.grad((logits * weights).sum(), x)[0]


class LinearBlock(nn.Module):
    """x + W₂ W₁ x, recognised by the names of its children; identities stand for the norms."""

    def __init__(self, first, second):
        super().__init__()
        self.conv1, self.bn1 = nn.Linear(3, 3, bias=False), nn.Identity()
        self.conv2, self.bn2 = nn.Linear(3, 3, bias=False), nn.Identity()
        self.conv1.weight, self.conv2.weight = nn.Parameter(first), nn.Parameter(second)

    def forward(self, x):
        out = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        out += x
        return out


def test_closed_form_of_linear_branches():
    generator = torch.Generator().manual_seed(0)
    a, b, c, d = torch.randn(4, 3, 3, generator=generator, dtype=torch.float64)
    network = nn.Sequential(LinearBlock(a, b), LinearBlock(c, d))
    assert residual_branches(network) == ["0.bn2", "1.bn2"]
    x = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64, requires_grad=True)
    with skip_gradient(network, GAMMA):
        found = torch.autograd.functional.jacobian(network, x).squeeze()
    one = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(found, (one + GAMMA * d @ c) @ (one + GAMMA * b @ a))
    plain = torch.autograd.functional.jacobian(network, x).squeeze()
    torch.testing.assert_close(plain, (one + d @ c) @ (one + b @ a))


def basic(block, x):
    h = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x)))))
    return F.relu(damped(h) + (x if block.downsample is None else block.downsample(x)))


def bottleneck(block, x):
    h = F.relu(block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x))))))
    h = block.bn3(block.conv3(h))
    return F.relu(damped(h) + (x if block.downsample is None else block.downsample(x)))


def torchvision_resnet(block_forward, normalize=False):
    def forward(network, x):
        h = network.normalize(x) if normalize else x
        h = network.maxpool(F.relu(network.bn1(network.conv1(h))))
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
            for block in stage:
                h = block_forward(block, h)
        return network.fc(h.mean((-2, -1)))

    return forward


def thin_resnet(network, x):
    h = F.relu(network.bn1(network.conv1(network.normalize(x))))
    for stage in (network.layer1, network.layer2, network.layer3):
        for block in stage:
            h = basic(block, h)
    return network.linear(h.mean((-2, -1)))


def vit(network, x):
    h = network._process_input(x)
    h = torch.cat([network.class_token.expand(len(x), -1, -1), h], 1)
    h = h + network.encoder.pos_embedding
    for block in network.encoder.layers:
        normed = block.ln_1(h)
        h = h + damped(block.self_attention(normed, normed, normed, need_weights=False)[0])
        h = h + damped(block.mlp(block.ln_2(h)))
    return network.heads(network.encoder.ln(h)[:, 0])


def swin(network, x):
    h = x
    for part in network.features:
        if isinstance(part, nn.Sequential) and hasattr(part[0], "attn"):
            for block in part:
                h = h + damped(block.attn(block.norm1(h)))
                h = h + damped(block.mlp(block.norm2(h)))
        else:
            h = part(h)
    return network.head(network.permute(network.norm(h)).mean((-2, -1)))


def swin_v2(network, x):
    h = x
    for part in network.features:
        if isinstance(part, nn.Sequential) and hasattr(part[0], "attn"):
            for block in part:
                h = h + damped(block.norm1(block.attn(h)))
                h = h + damped(block.norm2(block.mlp(h)))
        else:
            h = part(h)
    return network.head(network.permute(network.norm(h)).mean((-2, -1)))


def convnext(network, x):
    h = x
    for part in network.features:
        if hasattr(part[0], "layer_scale"):
            for block in part:
                h = h + damped(block.layer_scale * block.block(h))
        else:
            h = part(h)
    return network.classifier(network.avgpool(h))


def tiny_vit():
    network = models.VisionTransformer(16, 8, 2, 2, 12, 24, num_classes=5)
    nn.init.normal_(network.heads[0].weight)  # torchvision starts it at zero
    return network


def tiny_swin(**options):
    return models.SwinTransformer([2, 2], 8, [2, 1], [2, 2], [2, 2], num_classes=5, **options)


def tiny_convnext():
    setting = models.convnext.CNBlockConfig
    network = models.ConvNeXt([setting(8, 12, 2), setting(12, None, 1)], num_classes=5)
    for module in network.modules():
        if hasattr(module, "layer_scale"):
            nn.init.uniform_(module.layer_scale, 5, 15)
    return network


def seeded(build):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return prepared(build())


def tiny_swin_v2():
    return tiny_swin(
        block=models.swin_transformer.SwinTransformerBlockV2,
        downsample_layer=models.swin_transformer.PatchMergingV2,
    )


NETWORKS = {  # builder, reference, image size, branches
    "resnet18": (lambda: models.resnet18(num_classes=5), torchvision_resnet(basic), 32, 8),
    "resnet50": (lambda: models.resnet50(num_classes=5), torchvision_resnet(bottleneck), 32, 16),
    "CIFARResNet": (lambda: CIFARResNet(18), torchvision_resnet(basic, normalize=True), 8, 8),
    "thin20": (lambda: CIFARThinResNet(20), thin_resnet, 12, 9),
    "thin32": (lambda: CIFARThinResNet(32), thin_resnet, 12, 15),
    "vit": (tiny_vit, vit, 16, 4),
    "swin": (tiny_swin, swin, 16, 6),
    "swin_v2": (tiny_swin_v2, swin_v2, 16, 6),
    "convnext": (tiny_convnext, convnext, 16, 3),
}


@pytest.mark.parametrize(
    ("build", "reference", "size", "branches"), NETWORKS.values(), ids=NETWORKS.keys()
)
def test_equals_the_definition(build, reference, size, branches):
    network, x = seeded(build), image(size)
    assert len(residual_branches(network)) == branches
    plain, full = gradient(network, x)
    with skip_gradient(network, GAMMA):
        logits, found = gradient(network, x)
    assert torch.equal(logits, plain)
    expected, wanted = gradient(lambda value: reference(network, value), x)
    torch.testing.assert_close(expected, plain)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10 * float(wanted.abs().max()))
    assert (found - full).norm() > 0.05 * full.norm()
    assert hooks(network) == hooks(seeded(build))


@pytest.mark.parametrize(
    ("build", "count", "deep"),
    [
        (lambda: CIFARThinResNet(110), 54, "layer3.17.bn2"),
        (lambda: models.resnet101(), 33, "layer3.20.bn3"),
        (lambda: models.wide_resnet50_2(), 16, "layer3.5.bn3"),
    ],
)
def test_every_block_of_deep_networks(build, count, deep):
    with torch.device("meta"):
        names = residual_branches(build())
    assert len(set(names)) == count
    assert deep in names


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("resnet18", {}, 8),
        ("resnet50", {}, 16),
        ("seresnet50", {}, 16),
        ("res2net50_26w_4s", {}, 16),
        ("resnetv2_50", {}, 16),
        ("convnext_atto", {}, 12),
        ("vit_tiny_patch16_224", {"img_size": 64}, 24),
        ("swin_tiny_patch4_window7_224", {"img_size": 64, "window_size": 2}, 24),
    ],
)
def test_timm(name, options, count):
    timm = pytest.importorskip("timm")
    network = seeded(lambda: timm.create_model(name, num_classes=5, **options))
    branches = residual_branches(network)
    assert len(branches) == count
    x = image(64, batch=1)
    plain, _ = gradient(network, x)
    with skip_gradient(network, GAMMA):
        logits, found = gradient(network, x)
    assert torch.equal(logits, plain)

    # The definition, at the last module that the branch passes before it meets the skip connection.
    handles = []
    for branch in branches:
        block, _, part = branch.rpartition(".")
        last = {"attn": "drop_path1", "mlp": "drop_path2"}.get(part, "")
        places = [getattr(network.get_submodule(block), k, None) for k in (last, "drop_path", "se")]
        end = next((p for p in places if isinstance(p, nn.Module)), network.get_submodule(branch))
        handles.append(end.register_forward_hook(lambda module, inputs, output: damped(output)))
    _, wanted = gradient(network, x)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10 * float(wanted.abs().max()))


class InPlace(nn.Module):
    """A block that is unkind in every place: views and operations in place."""

    def __init__(self, view):
        super().__init__()
        views = [nn.Unflatten(1, (4, 1)), nn.Flatten()] if view else []
        self.body = nn.Sequential(nn.Linear(4, 4), *views)

    def forward(self, x):
        out = self.body(x)
        out *= 2
        out += x
        return F.relu_(out)


@pytest.mark.parametrize("view", [False, True])
def test_in_place_operations_after_the_branch(view):
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(InPlace(view), InPlace(view), nn.Linear(4, 3)).double()
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
    x = torch.randn(5, 4, generator=generator, dtype=torch.float64).requires_grad_()
    h = x
    for block in network[:2]:
        h = F.relu(2 * damped(block.body(h)) + h)
    wanted = torch.autograd.grad(network[2](h).sum(), x)[0]
    with skip_gradient(network, GAMMA, branches=["0.body", "1.body"]):
        found = torch.autograd.grad(network(x).sum(), x)[0]
    torch.testing.assert_close(found, wanted)


class PostNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(4), nn.LayerNorm(4)
        self.attn, self.mlp = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        x = self.norm1(x + self.attn(x))
        return self.norm2(x + self.mlp(x))


def test_norms_after_the_addition_are_not_part_of_a_branch():
    network = nn.Sequential(PostNorm(), nn.Linear(4, 3)).double()
    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    block = network[0]
    h = block.norm1(x + damped(block.attn(x)))
    h = block.norm2(h + damped(block.mlp(h)))
    wanted = torch.autograd.grad(network[1](h).square().sum(), x)[0]
    with skip_gradient(network, GAMMA):
        found = torch.autograd.grad(network(x).square().sum(), x)[0]
    torch.testing.assert_close(found, wanted)


def test_a_named_module_that_passes_its_input_on_leaves_the_skip_connection_alone():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.start, self.body = nn.Identity(), nn.Linear(3, 3)

        def forward(self, x):
            return x + self.body(self.start(x))

    network = nn.Sequential(Block()).double()
    x = torch.ones(1, 3, dtype=torch.float64, requires_grad=True)
    with skip_gradient(network, GAMMA, branches=["0.start"]):
        found = torch.autograd.functional.jacobian(network, x).squeeze()
    weight = network[0].body.weight.detach()
    torch.testing.assert_close(found, torch.eye(3).double() + GAMMA * weight)


class ScaleByScale(nn.Module):
    """Named like a Bottleneck; its branch sums what it has split, as Res2Net's does."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Linear(4, 4), nn.Identity()
        self.middle = nn.Linear(2, 2)
        self.conv3, self.bn3 = nn.Linear(4, 4), nn.Identity()

    def branch(self, x):
        first, second = self.conv1(x).tanh().split(2, dim=1)
        first = self.middle(first)
        return self.bn3(self.conv3(torch.cat([first, first + second], 1).tanh()))

    def forward(self, x, skip=None):
        return x + self.branch(x)

    def defined(self, x):
        return x + damped(self.branch(x))


class ClassAttention(nn.Module):
    """Named like a transformer's block; a part of each branch passes its body by."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(4), nn.LayerNorm(4)
        self.attn, self.mlp = nn.Linear(4, 2), nn.Linear(4, 4)

    def forward(self, x, scaled=lambda branch: branch):
        h = self.norm1(x)
        x = x + scaled(torch.cat([self.attn(h), h[:, 2:]], 1))
        return x + scaled(self.mlp(self.norm2(x)).tanh())

    def defined(self, x):
        return self(x, damped)


class ToAToken(nn.Module):
    """The skip connection is the second input's."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(4)
        self.attn, self.mlp = nn.Linear(8, 4), nn.Linear(4, 4)

    def forward(self, x, token, scaled=lambda branch: branch):
        token = token + scaled(self.attn(self.norm1(torch.cat([x, token], 1))))
        return token + scaled(self.mlp(self.norm2(token)))


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.token, self.blocks = nn.Parameter(torch.randn(4)), nn.ModuleList([ToAToken()])

    def forward(self, x, *scaled):
        return self.blocks[0](x, self.token.expand(len(x), -1), *scaled)

    def defined(self, x):
        return self(x, damped)


class Nested(nn.Module):
    """A residual connection around two residual blocks."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([ScaleByScale(), ScaleByScale()])

    def forward(self, x):
        return x + self.blocks[1](self.blocks[0](x))

    def defined(self, x):
        return x + damped(self.blocks[1].defined(self.blocks[0].defined(x)))


class Activated(nn.Module):
    """Between the blocks an activation that is a sum with its own input."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([ScaleByScale(), ScaleByScale()])

    def activation(self, x):
        return 0.5 * x * (1 + torch.tanh(x + 0.044715 * x**3))

    def forward(self, x):
        return self.blocks[1](self.activation(self.blocks[0](x)))

    def defined(self, x):
        return self.blocks[1].defined(self.activation(self.blocks[0].defined(x)))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("make", [ScaleByScale, ClassAttention, Tokens, Nested, Activated])
def test_the_whole_branch_and_nothing_else(make, frozen):
    torch.manual_seed(0)
    network = nn.Sequential(make(), nn.Linear(4, 3)).double().requires_grad_(not frozen)
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    logits = network[1](network[0].defined(x))
    wanted = torch.autograd.grad(logits.square().sum(), x)[0]
    plain = torch.autograd.grad(network(x).square().sum(), x)[0]
    with skip_gradient(network, GAMMA):
        found = torch.autograd.grad(network(x).square().sum(), x)[0]
    torch.testing.assert_close(found, wanted)
    assert not torch.allclose(plain, wanted)


def assert_hooked(network):
    assert hooks(network) == 7  # of three branches and their blocks, and of the network
    return network


def test_hooks_are_gone_after_an_exception():
    network = CIFARThinResNet(8)
    with pytest.raises(InputError, match="x: got"), skip_gradient(network, GAMMA):
        assert_hooked(network)(torch.rand(1, 5, 8, 8))  # too many channels
    assert hooks(network) == 0


def test_one_changes_nothing():
    network = CIFARVGG(11)
    with skip_gradient(network, 1.0):
        assert hooks(network) == 0


def test_compiled_and_parallel_networks():
    network, x = seeded(lambda: CIFARThinResNet(8)), image(8)
    with skip_gradient(network, GAMMA):
        _, wanted = gradient(network, x)
    compiled = torch.compile(network, backend="eager")
    _, plain = gradient(compiled, x)  # compiled before the hooks are there
    with skip_gradient(compiled, GAMMA):
        _, found = gradient(compiled, x)
    assert torch.equal(found, wanted)
    assert not torch.allclose(plain, wanted)
    assert torch.equal(gradient(compiled, x)[1], plain)
    parallel = nn.DataParallel(network)
    assert residual_branches(parallel) == residual_branches(network)
    with skip_gradient(parallel, GAMMA):
        assert torch.equal(gradient(parallel, x)[1], wanted)


def test_an_ensemble_with_one_residual_member():
    network = Ensemble([CIFARVGG(11), CIFARThinResNet(8)])
    assert residual_branches(network) == [f"members.1.layer{k}.0.bn2" for k in (1, 2, 3)]


def test_gradients_of_frozen_and_of_constant_inputs():
    network = CIFARThinResNet(8).eval()
    x = torch.rand(2, 3, 8, 8)
    with skip_gradient(network, GAMMA):
        network(x).sum().backward()  # the images need no gradient
        with torch.inference_mode():
            network(x)
    assert hooks(network) == 0


class PlainBlock(nn.Module):
    """Named like a residual block, and is none."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.conv2, self.bn2 = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.bn2(self.conv2(self.bn1(self.conv1(x))))


def test_a_block_without_skip_connection_is_refused():
    network = nn.Sequential(PlainBlock()).eval()
    x = torch.rand(1, 3, 4, 4, requires_grad=True)
    message = "'0', a PlainBlock without a skip connection"
    with pytest.raises(InputError, match=message), skip_gradient(network, GAMMA):
        network(x)
    assert hooks(network) == 0


@pytest.mark.parametrize(
    ("network", "gamma", "branches", "message"),
    [
        (CIFARThinResNet(8), 0.0, None, "gamma: got 0.0"),
        (CIFARThinResNet(8), 1.5, None, "gamma: got 1.5"),
        (CIFARThinResNet(8), float("nan"), None, "gamma: got nan"),
        (CIFARVGG(11), 0.5, None, "model: got CIFARVGG, expected residual blocks"),
        (PlainBlock(), 0.5, None, "model: got PlainBlock, expected residual blocks"),
        (models.vgg11(), 0.5, None, "model: got VGG, expected residual blocks"),
        (CIFARVGG(11), 0.5, [], "branches: got none, expected names of modules of CIFARVGG"),
        (CIFARThinResNet(8), 0.5, ["layer1.0.bn9"], "branches: got 'layer1.0.bn9'"),
        (CIFARThinResNet(8), 1.0, [""], "branches: got ''"),
    ],
)
def test_refusals(network, gamma, branches, message):
    x = torch.rand(2, 3, 32, 32, requires_grad=True)
    with pytest.raises(InputError, match=message), skip_gradient(network, gamma, branches):
        network(x)
    assert hooks(network) == 0


@pytest.mark.parametrize("build", [models.mobilenet_v2, models.efficientnet_b0])
def test_networks_of_no_known_kind_by_their_sums(build):
    """Inverted residuals, against the same networks with damped branches."""
    torch.manual_seed(0)
    network = build().double().eval()
    for module in network.modules():
        module.inplace = False
    x = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    with skip_gradient(network, GAMMA):
        _, found = gradient(network, x.requires_grad_())
    sums = 0

    def damp(module, inputs, output):
        nonlocal sums
        sums += 1
        return damped(output)

    for module in network.modules():
        kind = type(module).__name__
        if kind == "InvertedResidual" and module.use_res_connect:
            module.conv.register_forward_hook(damp)
        elif kind == "MBConv" and module.use_res_connect:
            module.stochastic_depth.register_forward_hook(damp)
    _, expected = gradient(network, x)
    assert sums >= 9
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("average", ["logits", "losses"])
def test_branches_found_by_what_they_do_in_members_that_are_called_one_by_one(average):
    """Of an ensemble that averages losses, an attack never calls the ensemble itself."""

    class Known(nn.Module):
        def __init__(self):
            super().__init__()
            self.block, self.layer_scale = nn.Linear(3, 3), nn.Parameter(torch.rand(3))

        def forward(self, x):
            return x + self.block(x) * self.layer_scale

    class Unknown(nn.Module):
        def __init__(self):
            super().__init__()
            self.known, self.inner = Known(), nn.Linear(3, 3)

        def forward(self, x):
            x = self.known(x)
            return x + self.inner(x).tanh()

    def damped_member(member):
        known = member.known
        hidden = x + damped(known.block(x)) * known.layer_scale
        return hidden + damped(member.inner(hidden).tanh())

    torch.manual_seed(0)
    members = [Unknown().double(), Unknown().double()]
    ensemble = Ensemble(members, average)
    x = torch.rand(2, 3, dtype=torch.float64, requires_grad=True)
    with skip_gradient(ensemble, GAMMA):
        called = [ensemble] if average == "logits" else members
        found = sum(gradient(network, x)[1] for network in called) / len(called)
    weights = torch.arange(1.0, 4, dtype=torch.float64).cos()
    mean = sum(damped_member(member) for member in members) / 2
    expected = torch.autograd.grad((mean * weights).sum(), x)[0]
    torch.testing.assert_close(found, expected)
