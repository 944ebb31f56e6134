"""Networks behind a defence of their input, as targets that attacks are measured on.

Each takes images ``(B, C, H, W)`` in [0, 1], clamped to it, and returns logits ``(B, classes)``.
All have gradients: where the defence has none, that of the identity stands in for it (BPDA,
Athalye et al., ICML 2018), so that an attack on a defended source does not stall. What is random
depends on the image's content and the seed alone.
"""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from interaction_train.errors import InputError, checked_logits, one_of, whole
from interaction_train.game.chunks import gradient_rows
from interaction_train.sampling.random import Draws, content_hash


class _Defense(nn.Module):
    """A network and what happens to its input before."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise InputError("model", type(model).__name__, "a torch.nn.Module")
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or not x.is_floating_point():
            raise InputError("x", f"{x.dtype} {tuple(x.shape)}", "floats (B, C, H, W)")
        return self._logits(x.clamp(0, 1))

    def _logits(self, x: Tensor) -> Tensor:
        return self.model(self.defend(x))

    def defend(self, x: Tensor) -> Tensor:
        """What the network sees of images ``(B, C, H, W)`` in [0, 1]."""
        return x


class JPEGDefense(_Defense):
    """Images compressed by JPEG, by Pillow's codec on the CPU (Dziugaite et al., 2016).

    Args:
        model: the network.
        quality: from 1 to 100.

    Raises:
        InputError: a quality out of its range; on a call, images of other than 1 or 3 channels.
    """

    def __init__(self, model: nn.Module, quality: int = 75) -> None:
        super().__init__(model)
        whole("quality", quality, 1, 100)
        self.quality = quality

    def defend(self, x: Tensor) -> Tensor:
        if x.shape[1] not in (1, 3):
            raise InputError("x", f"{x.shape[1]} channels", "1 or 3, as JPEG has them")
        pixels = x.detach().float().mul(255).round().to(torch.uint8).movedim(1, -1).cpu().numpy()
        # The codec takes one image at a time.
        read = np.stack([self._through_bytes(image) for image in pixels]).reshape(pixels.shape)
        return _with_gradient_of(x, torch.from_numpy(read).movedim(-1, 1).to(x).div(255))

    def _through_bytes(self, pixels: Any) -> Any:
        """uint8 ``(H, W, C)`` → the same, or of one channel ``(H, W)``."""
        file = io.BytesIO()
        Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(
            file, "JPEG", quality=self.quality
        )
        return np.asarray(Image.open(file))


class BitDepthDefense(_Defense):
    """Pixels rounded to 2^bits levels, as feature squeezing does (Xu et al., NDSS 2018).

    Args:
        model: the network.
        bits: per channel, from 1 to 8.

    Raises:
        InputError: bits out of their range.

    Examples:
        >>> squeeze = BitDepthDefense(nn.Flatten(), bits=1)
        >>> squeeze(torch.tensor([0.2, 0.6]).view(1, 1, 1, 2))
        tensor([[0., 1.]])
    """

    def __init__(self, model: nn.Module, bits: int = 3) -> None:
        super().__init__(model)
        whole("bits", bits, 1, 8)
        self.bits = bits

    def defend(self, x: Tensor) -> Tensor:
        levels = 2**self.bits - 1
        return _with_gradient_of(x, x.detach().mul(levels).round().div(levels))


class ResizePadDefense(_Defense):
    """Images resized and padded with zeros at random (Xie et al., ICLR 2018).

    "Mitigating adversarial effects through randomization": a size is drawn between ``rate`` and 1
    times the image's, and a place on a canvas of the larger of both, which the network sees;
    resizing takes the nearest pixel.

    Args:
        model: the network; one for images of a single size takes a rate below 1.
        rate: the extreme scale; above 1, as published, the canvas is larger than the image.
        seed: of the draws.

    Raises:
        InputError: a rate that is not positive and finite.
    """

    def __init__(self, model: nn.Module, rate: float = 331 / 299, seed: int = 0) -> None:
        super().__init__(model)
        if not 0 < rate < float("inf"):
            raise InputError("rate", rate, "a positive number")
        self.rate, self.seed = rate, seed

    def defend(self, x: Tensor) -> Tensor:
        draws = Draws(content_hash(x), self.seed, "resize and pad").uniform("defense", 3)
        scale, *places = draws.unbind(1)
        down, across = (
            self._side(x, size, scale, place)
            for size, place in zip(x.shape[-2:], places, strict=True)
        )
        return down.unsqueeze(1) @ x @ across.unsqueeze(1).transpose(-2, -1)

    def _side(self, like: Tensor, size: int, scale: Tensor, place: Tensor) -> Tensor:
        """Which pixel of a side each of the canvas shows, ``(B, canvas, size)`` of 0 and 1."""
        low, canvas = sorted((size, max(1, round(size * self.rate))))
        new = low + (scale * (canvas - low + 1)).long()
        first = (place * (canvas - new + 1)).long()
        pixels = torch.arange(canvas, device=like.device) - first.unsqueeze(1)
        inside = (pixels >= 0) & (pixels < new.unsqueeze(1))
        # The old pixel under the new one's centre, in whole numbers.
        shown = ((2 * pixels + 1) * size).div(2 * new.unsqueeze(1), rounding_mode="floor")
        old = torch.arange(size, device=like.device)
        return ((shown.unsqueeze(2) == old) & inside.unsqueeze(2)).to(like)


class SmoothingDefense(_Defense):
    """The class that a network predicts most often under normal noise (Cohen et al., ICML 2019).

    Votes give the logits log((votes + 1) / (n_samples + classes)); of equal ones the first class
    wins. Their gradient is that of the log of the mean probabilities (Salman et al., NeurIPS 2019).

    Args:
        model: the network; what it is given is not clamped.
        sigma: the noise's standard deviation, in pixel values.
        n_samples: noisy copies per image.
        average: ``"votes"``, or ``"logits"`` for their mean.
        seed: of the draws.

    Raises:
        InputError: settings out of their range.
    """

    def __init__(
        self,
        model: nn.Module,
        sigma: float = 0.25,
        n_samples: int = 32,
        average: Literal["votes", "logits"] = "votes",
        seed: int = 0,
    ) -> None:
        super().__init__(model)
        if not 0 <= sigma < float("inf"):
            raise InputError("sigma", sigma, "a finite number, at least 0")
        whole("n_samples", n_samples, 1)
        one_of("average", average, ("votes", "logits"))
        self.sigma, self.n_samples, self.average, self.seed = sigma, n_samples, average, seed

    def _logits(self, x: Tensor) -> Tensor:
        draws, size = Draws(content_hash(x), self.seed, "smoothing"), x[0].numel()
        width = max(1, gradient_rows(x[0], len(x) * self.n_samples) // len(x))
        found = []
        for first in range(0, self.n_samples, width):
            wanted = range(first, min(first + width, self.n_samples))
            noise = draws.normal("noise", wanted, size).unflatten(2, x.shape[1:]).to(x)
            rows = (x.unsqueeze(1) + self.sigma * noise).flatten(0, 1)
            logits = checked_logits(self.model(rows), len(rows))
            found.append(logits.unflatten(0, (len(x), len(wanted))))
        logits = torch.cat(found, 1)
        if self.average == "logits":
            return logits.mean(1)
        classes = logits.shape[2]
        votes = nn.functional.one_hot(logits.argmax(2), classes).sum(1).to(logits)
        shares = (votes + 1).log() - torch.tensor(self.n_samples + classes).to(logits).log()
        return _with_gradient_of(logits.log_softmax(2).logsumexp(1), shares)


def _with_gradient_of(smooth: Tensor, value: Tensor) -> Tensor:
    """A value with the gradient of another, finite tensor of its shape."""
    return value + (smooth - smooth.detach())
