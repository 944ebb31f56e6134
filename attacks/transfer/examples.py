"""Examples of a transfer evaluation: a few images, as the targets see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from torch import Tensor

from interaction_train.attacks.transfer.crafting import Predict


class Examples(NamedTuple):
    """Images to show.

    Args:
        clean: ``(n, C, H, W)``.
        captions: one per clean image.
        adversarial: title → adversarial examples ``(n, C, H, W)``, and one caption each.
    """

    clean: Tensor
    captions: list[str]
    adversarial: dict[str, tuple[Tensor, list[str]]]


def keep_examples(
    x: Tensor, y: Tensor, shown: Mapping[str, Tensor], predict: Predict, targets: Sequence[str]
) -> Examples:
    """Keep images, what attacks (by title) made of them, and what the targets see in that."""
    captioned = {}
    for title, images in shown.items():
        seen = (zip(targets, row, strict=True) for row in predict(images).tolist())
        captions = [", ".join(f"{name} {label}" for name, label in pairs) for pairs in seen]
        captioned[title] = images.cpu(), captions
    return Examples(x.cpu(), [f"label {label}" for label in y.tolist()], captioned)


def examples_figure(examples: Examples) -> Figure:
    """Clean images, magnified perturbations and adversarial examples side by side."""
    count, extra = len(examples.clean), len(examples.adversarial)
    size = (1.9 * (1 + 2 * extra), 0.4 + 2.1 * count)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(count, 1 + 2 * extra, squeeze=False)
    for i in range(count):
        _show(panels[i][0], examples.clean[i], examples.captions[i])
        for k, (title, (images, captions)) in enumerate(examples.adversarial.items()):
            shift = images[i] - examples.clean[i]
            largest = float(shift.abs().max())
            magnified = 0.5 + shift / (2 * largest) if largest else shift + 0.5
            _show(panels[i][1 + 2 * k], magnified, f"perturbation × {_factor(largest)}")
            _show(panels[i][2 + 2 * k], images[i], captions[i])
            if i == 0:
                panels[0][1 + 2 * k].text(0, 1.2, title, transform=panels[0][1 + 2 * k].transAxes)
    return figure


def _show(axes: Any, image: Tensor, caption: str) -> None:
    pixels = image.detach().float().clamp(0, 1).cpu().movedim(0, -1).numpy()
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(caption, fontsize=7)
    axes.set_axis_off()


def _factor(largest: float) -> str:
    return f"{0.5 / largest:.3g}" if largest else "1"
