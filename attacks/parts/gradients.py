"""Parts that change the gradient: momentum, variance tuning, smoothing."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from interaction_train.attacks.norms import normalize
from interaction_train.attacks.parts.base import Part, Step
from interaction_train.errors import InputError, at_least, one_of, whole


class Momentum(Part):
    """MI: normalised gradients added up (Dong et al., CVPR 2018).

    g ← g / mean|g| + decay · g_before. A zero gradient adds nothing, and no NaN.

    Args:
        decay: of the earlier gradients; 0 only normalises.
        normalize: ``"L1"`` (to mean absolute value 1) or ``"L2"`` (to length 1), per sample.
    """

    def __init__(self, decay: float = 1.0, normalize: Literal["L1", "L2"] = "L1") -> None:
        at_least("decay", decay, 0)
        one_of("normalize", normalize, ("L1", "L2"))
        self.decay, self.normalize = decay, normalize

    def update(self, gradient: Tensor, step: Step) -> Tensor:
        gradient = normalize(gradient, self.normalize)
        if "momentum" in step.memory[self]:
            gradient = torch.add(gradient, step.memory[self]["momentum"], alpha=self.decay)
        step.memory[self]["momentum"] = gradient
        return gradient


class Nesterov(Momentum):
    """NI: :class:`Momentum` whose gradient is taken a step ahead (Lin et al., ICLR 2020)."""

    def lookahead(self, point: Tensor, step: Step) -> Tensor:
        return point + self.decay * step.alpha * step.memory[self].get("momentum", 0)


class EnhancedMomentum(Momentum):
    """EMI: :class:`Momentum` of gradients meaned along the previous gradient's direction.

    Wang et al., "Boosting adversarial transferability through enhanced momentum", BMVC 2021. The
    images are moved by c · ḡ, with ḡ the previous step's mean gradient scaled to mean absolute
    value 1, and c from −reach·ε to reach·ε. A step costs ``copies`` passes. Goes before parts that
    transform images.

    Args:
        decay: of the earlier gradients.
        copies: number of places along the direction.
        reach: of the outermost, in units of ε; published: 7 step sizes of ε/10.
        sampling: ``"linear"``, places at equal distances, or ``"uniform"``, each at random.
        normalize: as in :class:`Momentum`.
    """

    def __init__(
        self,
        decay: float = 1.0,
        copies: int = 11,
        reach: float = 0.7,
        sampling: Literal["linear", "uniform"] = "linear",
        normalize: Literal["L1", "L2"] = "L1",
    ) -> None:
        super().__init__(decay, normalize)
        at_least("reach", reach, 0)
        one_of("sampling", sampling, ("linear", "uniform"))
        if copies < (least := 2 if sampling == "linear" else 1):
            raise InputError("copies", copies, f"at least {least} with {sampling} sampling")
        self.copies, self.reach, self.sampling = copies, reach, sampling

    def vary(self, rows: Tensor, copy: Tensor, step: Step) -> Tensor:
        if "direction" not in step.memory[self]:
            return rows
        if self.sampling == "linear":
            place = (2 * copy.to(rows) / (self.copies - 1) - 1).unsqueeze(0)
        else:
            place = 2 * step.draws.uniform("enhanced momentum", copy).to(rows) - 1
        place = place.view(*place.shape, *(1 for _ in rows.shape[2:]))
        direction = step.memory[self]["direction"].unsqueeze(1)
        return rows + place * (self.reach * step.pixel_eps) * direction

    def refine(self, gradient: Tensor, step: Step) -> Tensor:
        step.memory[self]["direction"] = normalize(gradient, "L1")
        return gradient


class VarianceTuning(Part):
    """VT: corrects the gradient by its variation in a neighbourhood (Wang & He, CVPR 2021).

    g + v, where v is the mean gradient of the classification loss at random neighbours of the image
    one step earlier, less the gradient there. A step costs ``samples`` + 1 passes.

    Args:
        samples: number of neighbours.
        beta: their distance, uniform in ±beta·ε per pixel (in L2, ±beta·ε / √(number of pixels)).
    """

    def __init__(self, samples: int = 5, beta: float = 1.5) -> None:
        whole("samples", samples, 1)
        at_least("beta", beta, 0)
        self.samples, self.beta = samples, beta

    def noise(self, step: Step) -> Tensor:
        """The neighbours' distances, ``(B, samples, C, H, W)``, uniform in [−1, 1)."""
        return step.noise("variance tuning", self.samples)

    def refine(self, gradient: Tensor, step: Step) -> Tensor:
        before = step.memory[self].get("variation", 0)
        near = step.adversarial.unsqueeze(1) + self.noise(step) * (self.beta * step.pixel_eps)
        step.memory[self]["variation"] = step.gradients_at(near, step).mean(1) - gradient
        return gradient + before


class TranslationInvariance(Part):
    """TI: the gradient smoothed by a Gaussian, in any number of channels (Dong et al., CVPR 2019).

    Args:
        size: width of the kernel in pixels, odd; default: the odd number nearest to 15/224 of the
            images' shorter side, at least 3.
        sigma: how many standard deviations the kernel's half width spans.

    Examples:
        >>> [round(weight, 2) for weight in TranslationInvariance(3, sigma=1).weights(32)]
        [0.27, 0.45, 0.27]
    """

    spatial = True

    def __init__(self, size: int | None = None, sigma: float = 3.0) -> None:
        if size is not None and (size < 1 or size % 2 == 0):
            raise InputError("size", size, "a positive odd number")
        if not sigma > 0:
            raise InputError("sigma", sigma, "a positive number")
        self.size, self.sigma = size, sigma

    def weights(self, side: int) -> list[float]:
        """The kernel for images of a shorter side, along one axis, with sum 1."""
        half = max(1, round(side * 15 / 224 / 2 - 0.5)) if self.size is None else self.size // 2
        places = [i * self.sigma / max(half, 1) for i in range(-half, half + 1)]
        line = [math.exp(-(place**2) / 2) for place in places]
        return [value / math.fsum(line) for value in line]

    def update(self, gradient: Tensor, step: Step) -> Tensor:
        # Separable: two passes of `size` multiplications each instead of one of size².
        line = gradient.new_tensor(self.weights(min(gradient.shape[-2:]))).view(1, 1, -1)
        planes = gradient.flatten(0, -3).unsqueeze(1)
        planes = F.conv2d(planes, line.unsqueeze(2), padding="same")
        planes = F.conv2d(planes, line.unsqueeze(3), padding="same")
        return planes.view_as(gradient)
