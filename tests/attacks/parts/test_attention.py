"""PNA and TGR against gradients worked out by hand, on torchvision's and on timm's structure."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from interaction_train.attacks import AttentionSkip, Momentum, TokenGradient, skip_gradient
from interaction_train.attacks.parts.tokens import without_extreme_pairs, without_extremes
from interaction_train.errors import InputError

from .checks import check_all, craft, images
from .test_backward import input_gradient
from .test_layers import built

DIM, HEADS = 8, 2


class Attention(nn.Module):
    """As timm writes it; ``passed`` and ``shown`` stand for what the parts do."""

    def __init__(self, fused, maps=lambda a: a, packed=lambda p: p):
        super().__init__()
        self.qkv, self.proj = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.attn_drop = nn.Dropout(0.1)
        self.fused_attn, self.maps, self.packed = fused, maps, packed

    def forward(self, x):
        qkv = self.packed(self.qkv(x)).reshape(*x.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if self.fused_attn:
            x = F.scaled_dot_product_attention(q, k, v)
        else:
            attn = (q * (DIM // HEADS) ** -0.5) @ k.transpose(-2, -1)
            x = self.attn_drop(self.maps(attn.softmax(dim=-1))) @ v
        return self.proj(x.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, fused, mlps=lambda m: m, **changes):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.attn = Attention(fused, **changes)
        self.mlp = nn.Sequential(nn.Linear(DIM, 16), nn.GELU(), nn.Linear(16, DIM))
        self.mlps = mlps

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlps(self.mlp(self.norm2(x)))


class ViT(nn.Module):
    def __init__(self, fused=False, **changes):
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, DIM, 2, 2)
        self.blocks = nn.Sequential(*(Block(fused, **changes) for _ in range(2)))
        self.head = nn.Linear(DIM, 5)
        with torch.no_grad():
            for weight in self.parameters():
                weight.mul_(2)  # attention that is not uniform

    def forward(self, x):
        return self.head(self.blocks(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


def torchvision_vit():
    torch.manual_seed(0)
    net = VisionTransformer(8, 4, 2, HEADS, DIM, 16, num_classes=5)
    nn.init.normal_(net.heads.head.weight)
    return net.eval()


def torchvision_swin():
    torch.manual_seed(0)
    return SwinTransformer([2, 2], 8, [2], [2], [2, 2], num_classes=5).eval()


def hooked(value, change):
    if value.requires_grad:
        value.register_hook(change)
    return value


@pytest.mark.parametrize("fused", [False, True])
def test_gradients_do_not_pass_attention_maps(fused):
    x = images().double()
    net = ViT(fused).double().eval()
    logits, found = input_gradient(net, x, AttentionSkip())
    by_hand = ViT(maps=lambda attention: attention.detach()).double().eval()
    assert torch.equal(logits, net(x))
    torch.testing.assert_close(found, input_gradient(by_hand, x)[1])
    assert not torch.allclose(found, input_gradient(net, x)[1])


def own_multihead(module, x, maps=lambda a: a, packed=lambda p: p):
    qkv = packed(F.linear(x, module.in_proj_weight, module.in_proj_bias))
    q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
    attention = maps((q @ k.transpose(-2, -1) / (DIM // HEADS) ** 0.5).softmax(-1))
    return module.out_proj((attention @ v).transpose(1, 2).flatten(2))


def torchvision_by_hand(net, x, mlps=lambda m: m, **changes):
    x = net.conv_proj(x).flatten(2).transpose(1, 2)
    x = torch.cat([net.class_token.expand(len(x), -1, -1), x], 1) + net.encoder.pos_embedding
    for block in net.encoder.layers:
        x = x + own_multihead(block.self_attention, block.ln_1(x), **changes)
        x = x + mlps(block.mlp(block.ln_2(x)))
    return net.heads(net.encoder.ln(x)[:, 0])


def test_gradients_do_not_pass_torchvisions_attention_maps():
    net, x = torchvision_vit().double(), images().double()
    logits, found = input_gradient(net, x, AttentionSkip())
    torch.testing.assert_close(logits, net(x))
    want = input_gradient(
        lambda rows: torchvision_by_hand(net, rows, maps=lambda a: a.detach()), x
    )[1]
    torch.testing.assert_close(found, want)
    plain = input_gradient(lambda rows: torchvision_by_hand(net, rows), x)[1]
    torch.testing.assert_close(plain, input_gradient(net, x)[1])
    assert not torch.allclose(found, plain)


def slow_tokens(gradient, share):
    """The definition, entry by entry."""
    result = gradient.clone()
    for b in range(gradient.shape[0]):
        for c in range(gradient.shape[2]):
            result[b, gradient[b, :, c].argmax(), c] = 0
            result[b, gradient[b, :, c].argmin(), c] = 0
    return result * share


def slow_maps(gradient, share):
    result = gradient.clone()
    for b in range(gradient.shape[0]):
        for h in range(gradient.shape[1]):
            for end in (gradient[b, h].argmax(), gradient[b, h].argmin()):
                row, column = divmod(int(end), gradient.shape[3])
                result[b, h, row, :] = 0
                result[b, h, :, column] = 0
    return result * share


CHANGES = {
    "maps": lambda a: hooked(a, lambda g: slow_maps(g, 0.25)),
    "packed": lambda p: hooked(p, lambda g: slow_tokens(g, 0.75)),
    "mlps": lambda m: hooked(m, lambda g: slow_tokens(g, 0.5)),
}


def test_extremes():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(3, 7, 5, generator=generator)
    assert torch.equal(without_extremes(tokens), slow_tokens(tokens, 1))
    maps = torch.randn(3, 2, 7, 6, generator=generator)
    assert torch.equal(without_extreme_pairs(maps), slow_maps(maps, 1))


@pytest.mark.parametrize("fused", [False, True])
def test_token_gradients_are_as_published(fused):
    x, net = images().double(), ViT(fused).double().eval()
    logits, found = input_gradient(net, x, TokenGradient())
    torch.testing.assert_close(logits, net(x))
    want = input_gradient(ViT(**CHANGES).double().eval(), x)[1]
    torch.testing.assert_close(found, want)


def test_token_gradients_of_torchvision_are_as_published():
    net, x = torchvision_vit().double(), images().double()
    logits, found = input_gradient(net, x, TokenGradient())
    torch.testing.assert_close(logits, net(x))
    want = input_gradient(lambda rows: torchvision_by_hand(net, rows, **CHANGES), x)[1]
    torch.testing.assert_close(found, want)


@pytest.mark.parametrize("part", [AttentionSkip(), TokenGradient()], ids=repr)
def test_windows_of_torchvisions_swin(part):
    net, x = torchvision_swin(), images()
    logits, found = input_gradient(net, x, part)
    torch.testing.assert_close(logits, net(x))
    assert not torch.allclose(found, input_gradient(net, x)[1])


@pytest.mark.parametrize("part", [AttentionSkip(), TokenGradient()], ids=repr)
@pytest.mark.parametrize("make", [torchvision_vit, ViT])
def test_what_every_part_keeps(part, make):
    check_all(make(), images(), parts=[part, Momentum()])


def test_they_compose():
    net, x = ViT().double().eval(), images().double()
    with skip_gradient(net, 0.5):
        found = input_gradient(net, x, AttentionSkip())[1]
    assert not torch.allclose(found, input_gradient(net, x, AttentionSkip())[1])


class Strange(nn.Module):
    def __init__(self):
        super().__init__()
        self.flat, self.qkv, self.out = nn.Flatten(), nn.Linear(192, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.out(self.qkv(self.flat(x)).exp())


@pytest.mark.parametrize(
    ("net", "part", "message"),
    [
        (built(), AttentionSkip(), "model: got Sequential without any, expected attention"),
        (built(), TokenGradient(), "model: got Sequential, expected transformer blocks"),
        (Strange(), AttentionSkip(), "model: got Strange without a softmax"),
    ],
)
def test_networks_that_do_not_fit(net, part, message):
    with pytest.raises(InputError, match=message):
        craft(net, images(), torch.arange(4), parts=[part])


@pytest.mark.parametrize("setting", ["attention", "projection", "mlp"])
def test_settings_out_of_range(setting):
    with pytest.raises(InputError, match=setting):
        TokenGradient(**{setting: 0})
