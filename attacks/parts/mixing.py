"""Admix: a share of other images mixed in."""

from __future__ import annotations

import torch
from torch import Tensor

from interaction_train.attacks.parts.base import Part, Step
from interaction_train.errors import InputError, at_least, checked_images, checked_labels, whole


class Admix(Part):
    """Admix: the image plus a share of another one, of a random scale.

    Wang et al., "Admix: Enhancing the Transferability of Adversarial Attacks", ICCV 2021: the
    gradient at (x + η·x′) / 2^i, where x′ is a clean image of another class. Without a pool x′
    comes from the batch, so that results depend on it. A targeted attack, or a pool without
    labels, takes any other image. The published form, all scales of three images, is
    ``Admix(scales=1, copies=3)`` with ``ScaleInvariance(5)``.

    Args:
        share: η.
        scales: number of scales 1, 1/2, 1/4, …, of which each copy has a random one.
        pool: images ``(P, C, H, W)`` in [0, 1] to mix in; default: the batch's.
        pool_labels: their classes ``(P,)`` int64.
        copies: number of copies per step, each with an image of its own.

    Raises:
        InputError: also on a call, where the batch or the pool has no image of another class.
    """

    shared = True

    def __init__(
        self,
        share: float = 0.2,
        scales: int = 5,
        pool: Tensor | None = None,
        pool_labels: Tensor | None = None,
        copies: int = 1,
    ) -> None:
        at_least("share", share, 0)
        whole("scales", scales, 1)
        whole("copies", copies, 1)
        if pool is not None:
            pool = checked_images(pool, "pool")
        if pool_labels is not None:
            if pool is None:
                raise InputError("pool_labels", "labels", "none, as there is no pool")
            checked_labels(pool_labels, len(pool), "pool_labels")
        self.share, self.scales, self.copies = share, scales, copies
        self.pool, self.pool_labels = pool, pool_labels

    def vary(self, rows: Tensor, copy: Tensor, step: Step) -> Tensor:
        images, allowed = self._others(step)
        if images.shape[1:] != rows.shape[2:]:
            expected = f"images {tuple(rows.shape[2:])}, as those attacked"
            raise InputError("pool", f"images {tuple(images.shape[1:])}", expected)
        # The largest of random keys, of 63 bits, is any of those allowed with equal chances.
        keys = step.draws.bits("admix", copy, len(images)) >> 1 & (2**63 - 1)
        chosen = torch.where(allowed.unsqueeze(1), keys, -1).argmax(2)
        scale = (step.draws.uniform("admix scale", copy, 1).squeeze(2) * self.scales).long()
        divisor = (2**scale).to(rows).view(*scale.shape, *(1 for _ in rows.shape[2:]))
        return (rows + self.share * images[chosen]) / divisor

    def _others(self, step: Step) -> tuple[Tensor, Tensor]:
        """Images ``(P, C, H, W)``, and which of them each sample may get ``(B, P)``."""
        clean, *found = step.memory[self].get("others", (None,))
        if clean is step.clean:
            return found[0], found[1]
        count = len(step.labels)
        if self.pool is None:
            images: Tensor = step.clean
            labels: Tensor | None = step.labels
            allowed = ~torch.eye(count, dtype=torch.bool, device=images.device)
        else:
            images = self.pool.to(step.clean)
            labels = None if self.pool_labels is None else self.pool_labels.to(step.labels)
            allowed = torch.ones(count, len(images), dtype=torch.bool, device=images.device)
        if labels is not None and not step.targeted:
            allowed &= labels != step.labels.unsqueeze(1)
        if not bool(allowed.any(1).all()):  # once a call, as it reads back to the host
            if self.pool is None:
                got = "a batch of one" if count == 1 else "a batch with one class"
                raise InputError("images", got, "images of other classes, or a pool for Admix")
            raise InputError("pool_labels", "the class of an image attacked", "other classes too")
        # Not for other images, which come under one memory with universal perturbations.
        step.memory[self]["others"] = step.clean, images, allowed
        return images, allowed
