"""What tests of single parts share: a step of an attack, a small network, a plain loop's cuts."""

from collections import defaultdict

import torch
from torch import nn

from interaction_train.attacks import Step
from interaction_train.sampling.random import Draws, content_hash


def step_of(images, labels=None, eps=8 / 255, number=1):
    labels = torch.arange(len(images)) if labels is None else labels
    return Step(
        number=number,
        steps=10,
        clean=images,
        labels=labels,
        start=images,
        adversarial=images,
        eps=eps,
        alpha=eps / 4,
        norm="Linf",
        targeted=False,
        draws=Draws(content_hash(images), 0, "attack", number),
        gradients_at=None,
        memory=defaultdict(dict),
    )


def images(count=4, channels=3, height=12, width=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, height, width, generator=generator, dtype=torch.float64)


def bounds(line):
    """First pixels of a line's blocks, and the end, from the blocks' numbers per pixel."""
    return [i for i in range(len(line)) if i == 0 or line[i] != line[i - 1]] + [len(line)]


def network(channels=3, height=12, width=12, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * (height // 2) * (width // 2), 5),
    ).eval()
