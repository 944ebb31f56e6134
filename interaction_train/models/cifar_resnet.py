"""The thin CIFAR-10 ResNets (He et al. 2016, Sec. 4.2), with a loader for published weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from interaction_train.errors import InputError, at_least
from interaction_train.game.normalize import Normalize
from interaction_train.models.weights import load_weights

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class _Shortcut(nn.Module):
    """Skips every second pixel and pads channels with zeros."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[..., ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))


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


def _stage(inputs: int, outputs: int, stride: int, blocks: int) -> nn.Sequential:
    shortcut = _Shortcut((outputs - inputs) // 2) if stride > 1 else None
    first = BasicBlock(inputs, outputs, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs) for _ in range(blocks - 1)))
