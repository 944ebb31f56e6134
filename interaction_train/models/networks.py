"""Reference networks, with normalisation of pixels in [0, 1] as their first layer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock
from torchvision.models.vgg import cfgs

from interaction_train.errors import InputError, at_least, one_of
from interaction_train.game.normalize import Normalize
from interaction_train.models.weights import load_weights

DIGITS_MEAN, DIGITS_STD = (0.3053,), (0.3760,)
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Layer = int | str | tuple[int, int]
"""Channels of a 3x3 convolution; or (channels, kernel size); or "M", a max-pooling."""

_VGG_CONFIGS: dict[int, list[Layer]] = {
    7: [32, "M", 64, 64, "M", 128, 128, "M"],
    11: cfgs["A"],
    13: cfgs["B"],
    16: cfgs["D"],
}
_RESNET_BLOCKS = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3]}


class _FeatureNet(nn.Module):
    """normalize → features → classifier, for images of one size."""

    def __init__(
        self, normalize: Normalize, features: nn.Module, classifier: nn.Module, image_size: int
    ) -> None:
        super().__init__()
        self.normalize, self.features, self.classifier = normalize, features, classifier
        self.image_size = image_size

    def forward(self, x: Tensor) -> Tensor:
        size = self.image_size
        if x.shape[-2:] != (size, size):
            raise InputError("x", f"shape {tuple(x.shape)}", f"(B, C, {size}, {size})")
        return self.classifier(self.features(self.normalize(x)))


class DigitsNet(_FeatureNet):
    """A small convolutional net, cheap enough for exact indices on 8x8 digits.

    ``(B, C, image_size, image_size)`` → ``(B, num_classes)``.

    Args:
        num_classes: number of logits.
        in_channels: channels C of the images.
        width: channels after the first convolution; the second one has twice as many.
        dropout: probability before the last layer; 0 for none.
        image_size: height and width of the images, at least 8.
        mean: training mean per channel; the default is that of scikit-learn's digits.
        std: standard deviation per channel.

    Raises:
        InputError: an argument out of its range, or inputs of another shape.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        width: int = 16,
        dropout: float = 0.0,
        image_size: int = 8,
        mean: Sequence[float] = DIGITS_MEAN,
        std: Sequence[float] = DIGITS_STD,
    ) -> None:
        at_least("width", width, 1)
        at_least("image_size", image_size, 8)
        _check_channels(in_channels, mean)
        features = _convolutions(in_channels, [width, "M", 2 * width, "M"])
        units = 2 * width * (image_size // 4) ** 2
        classifier = linear_layers([units, 4 * width, num_classes], [None, dropout])
        super().__init__(Normalize(mean, std), features, classifier, image_size)
        # On a CPU, max-pooling 8x8 images is several times faster with the channels last.
        self.features.to(memory_format=torch.channels_last)


class DigitsMLP(_FeatureNet):
    """A multilayer perceptron for 8x8 digits; shapes and other arguments as of :class:`DigitsNet`.

    Args:
        hidden: units of each hidden layer.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        hidden: Sequence[int] = (128, 64),
        image_size: int = 8,
        mean: Sequence[float] = DIGITS_MEAN,
        std: Sequence[float] = DIGITS_STD,
    ) -> None:
        at_least("image_size", image_size, 1)
        if not hidden or min(hidden) < 1:
            raise InputError("hidden", hidden, "one size per hidden layer, each at least 1")
        _check_channels(in_channels, mean)
        sizes = [in_channels * image_size**2, *hidden, num_classes]
        *hidden_layers, last = linear_layers(sizes, [None] * (len(sizes) - 1))
        features, classifier = nn.Sequential(*hidden_layers), nn.Sequential(last)
        super().__init__(Normalize(mean, std), features, classifier, image_size)


class _CIFARNet(_FeatureNet):
    """Convolutions and a classifier, ``(B, 3, 32, 32)`` → ``(B, num_classes)``; He's weights."""

    def __init__(
        self,
        config: Sequence[Layer],
        sizes: Sequence[int],
        dropouts: Sequence[float | None],
        normalize: Normalize,
        batch_norm: bool = False,
    ) -> None:
        features = _convolutions(3, config, batch_norm)
        channels = next(size for size in reversed(config) if isinstance(size, int))
        units = channels * (32 >> config.count("M")) ** 2
        super().__init__(normalize, features, linear_layers([units, *sizes], dropouts), 32)
        # For all layers that a ReLU follows: torch's default shrinks the signal at every layer.
        layers = [m for m in self.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        for layer in layers[:-1]:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.constant_(cast(Tensor, layer.bias), 0.0)


class CIFARAlexNet(_CIFARNet):
    """AlexNet for 32x32 colour images; its ``features`` have the indices of torchvision's AlexNet.

    ``features.5`` is the second max-pooling, with 192 x 8 x 8 units; ``classifier.6`` the last
    hidden layer, after its ReLU (in torchvision's ``classifier.5``). Convolutions are 3x3 after
    ``features.3`` and in the first layer, which has stride 1; pools are 2x2.

    Args:
        num_classes: this, ``mean`` and ``std`` as of :class:`DigitsNet`.
        dropout: probability before each of the two hidden linear layers; 0 for none.
        hidden: units of the two hidden linear layers.
    """

    def __init__(
        self,
        num_classes: int = 10,
        dropout: float = 0.0,
        hidden: int = 1024,
        mean: Sequence[float] = CIFAR10_MEAN,
        std: Sequence[float] = CIFAR10_STD,
    ) -> None:
        config: list[Layer] = [64, "M", (192, 5), "M", 384, 256, 256, "M"]
        sizes, dropouts = [hidden, hidden, num_classes], [dropout, dropout, None]
        super().__init__(config, sizes, dropouts, Normalize(mean, std))


class CIFARVGG(_CIFARNet):
    """VGG-11, -13 or -16 for 32x32 colour images: torchvision's features, a small classifier.

    Args:
        depth: 11, 13 or 16, which counts the three linear layers of the original; or 7, a small
            one with five convolutions of 32 to 128 channels.
        batch_norm: whether a BatchNorm follows every convolution.
        num_classes: this, ``mean`` and ``std`` as of :class:`DigitsNet`.
        dropout: probability before each of the two linear layers; 0 for none.
        hidden: units of the hidden linear layer.
    """

    def __init__(
        self,
        depth: int = 11,
        batch_norm: bool = False,
        num_classes: int = 10,
        dropout: float = 0.0,
        hidden: int = 512,
        mean: Sequence[float] = CIFAR10_MEAN,
        std: Sequence[float] = CIFAR10_STD,
    ) -> None:
        one_of("depth", depth, _VGG_CONFIGS)
        config, sizes, normalize = _VGG_CONFIGS[depth], [hidden, num_classes], Normalize(mean, std)
        super().__init__(config, sizes, [dropout, dropout], normalize, batch_norm)


class CIFARResNet(ResNet):
    """ResNet-18 or -34 for small colour images: torchvision's, with a 3x3 stem and no max-pooling.

    ``(B, 3, H, W)`` → ``(B, num_classes)``. Layers keep torchvision's names: ``avgpool``, ``fc``.

    Args:
        depth: 18 or 34.
        num_classes: this, ``mean`` and ``std`` as of :class:`DigitsNet`.
    """

    def __init__(
        self,
        depth: int = 18,
        num_classes: int = 10,
        mean: Sequence[float] = CIFAR10_MEAN,
        std: Sequence[float] = CIFAR10_STD,
    ) -> None:
        if depth not in _RESNET_BLOCKS:
            known = ", ".join(map(str, _RESNET_BLOCKS))
            raise InputError("depth", depth, f"one of {known} (20, 32, 44 …: CIFARThinResNet)")
        at_least("num_classes", num_classes, 1)
        super().__init__(BasicBlock, _RESNET_BLOCKS[depth], num_classes=num_classes)
        self.normalize = Normalize(mean, std)
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.maxpool = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self._forward_impl(self.normalize(x))


class CIFARThinResNet(nn.Module):
    """ResNet-20, -32, -44, … for small images: 16, 32 and 64 channels, no downsampling stem.

    ``(B, C, H, W)`` in [0, 1] → ``(B, num_classes)``, where ``mean`` has C numbers. The default
    normalisation is ImageNet's, as of the published weights.

    Args:
        depth: 6k + 2 layers, k blocks in each of three stages.
        num_classes: number of logits.
        weights: what :func:`load_weights` takes: ``conv1``, ``bn1``, ``layerL.B.conv1`` … ``bn2``
            (L from 1, B from 0) and ``linear``. Default: random.
        mean: training mean per channel.
        std: standard deviation per channel.
        width: channels of the first stage, even; the others have twice and four times as many.

    Raises:
        InputError: another depth, an odd width, or weights that do not fit.
    """

    def __init__(
        self,
        depth: int = 20,
        num_classes: int = 10,
        weights: str | Path | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        width: int = 16,
    ) -> None:
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise InputError("depth", depth, "8, 14, 20, 26, 32 … (18 and 34: CIFARResNet)")
        at_least("num_classes", num_classes, 1)
        if width < 2 or width % 2:  # the shortcut pads as many channels before as after
            raise InputError("width", width, "an even number from 2 on")
        self.normalize = Normalize(mean, std)
        self.conv1 = nn.Conv2d(len(self.normalize.mean), width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, 1, depth // 6)
        self.layer2 = _stage(width, 2 * width, 2, depth // 6)
        self.layer3 = _stage(2 * width, 4 * width, 2, depth // 6)
        self.linear = nn.Linear(4 * width, num_classes)
        for convolution in (m for m in self.modules() if isinstance(m, nn.Conv2d)):
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        if weights is not None:
            load_weights(self, weights)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn1(self.conv1(self.normalize(x))))
        h = self.layer3(self.layer2(self.layer1(h)))
        return self.linear(h.mean((-2, -1)))


def _check_channels(in_channels: int, mean: Sequence[float]) -> None:
    if len(mean) != in_channels:
        raise InputError("mean", mean, f"in_channels = {in_channels} numbers")


def _convolutions(
    channels: int, config: Sequence[Layer], batch_norm: bool = False
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for item in config:
        if isinstance(item, str):
            layers.append(nn.MaxPool2d(2))
            continue
        width, kernel = (item, 3) if isinstance(item, int) else item
        layers.append(nn.Conv2d(channels, width, kernel, padding=kernel // 2))
        layers += [nn.BatchNorm2d(width)] if batch_norm else []
        layers.append(nn.ReLU(inplace=True))
        channels = width
    return nn.Sequential(*layers)


def linear_layers(sizes: Sequence[int], dropouts: Sequence[float | None]) -> nn.Sequential:
    """Linear layers of these sizes, each after a dropout, or none where that is None."""
    at_least("hidden", sizes[1], 1)
    at_least("num_classes", sizes[-1], 1)
    layers: list[nn.Module] = [nn.Flatten()]
    for (before, after), p in zip(pairwise(sizes), dropouts, strict=True):
        if p is not None:
            if not 0 <= p < 1:
                raise InputError("dropout", p, "a probability in [0, 1)")
            # An Identity in the place of no dropout: names and state dicts do not depend on p.
            layers.append(nn.Dropout(p) if p > 0 else nn.Identity())
        layers += [nn.Linear(before, after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


def _stage(inputs: int, outputs: int, stride: int, blocks: int) -> nn.Sequential:
    # Every second pixel, with zeros for the new channels.
    new = (outputs - inputs) // 2
    pad = nn.ConstantPad3d((0, 0, 0, 0, new, new), 0.0)
    shortcut = nn.Sequential(nn.AvgPool2d(1, stride), pad) if stride > 1 else None
    first = BasicBlock(inputs, outputs, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs) for _ in range(blocks - 1)))
