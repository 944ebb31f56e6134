"""How good an attack is on images in memory: its success at targets, and the passes it took."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from interaction_train.attacks.jobs import Targets, class_logits, make_attack
from interaction_train.attacks.run import AttackFactory, counted_passes, run_attack
from interaction_train.errors import InputError, checked_classes
from interaction_train.game.payoffs import margin

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Score:
    """Of an attack, meaned over pairs of a source and a target."""

    success: float
    """Fooled among the images that the target is right about; targeted: taken for the target."""
    lead: float
    """The logistic function of the wrong (targeted: the right) class' lead, meaned likewise."""
    passes: float
    """Rows per image, forward or backward, whichever are more; of the dearest source."""

    @property
    def value(self) -> float:
        """What a search maximises: the success; of equal ones the lead decides."""
        return self.success + 1e-3 * self.lead


class Bench:
    """Networks and images on one device, on which attacks are tried.

    Args:
        networks: name → network.
        pairs: (source, target) by name.
        batches: images ``(B, C, H, W)`` and labels ``(B,)``.
        aims: classes that attacks aim at.
        seed: of their choice.

    Raises:
        InputError: labels that no network knows, or a target that is wrong about all the images.
    """

    def __init__(
        self,
        networks: dict[str, nn.Module],
        pairs: list[tuple[str, str]],
        batches: list[Batch],
        aims: Targets | None = None,
        seed: int = 0,
    ) -> None:
        self.networks, self.pairs, self.batches = networks, pairs, batches
        self.aims, self.seed = aims, seed
        self._right: dict[str, list[Tensor]] = {}
        for name in dict.fromkeys(target for _, target in pairs):
            logits = [class_logits(networks[name], x, f"networks.{name}") for x, _ in batches]
            for out, (_, y) in zip(logits, batches, strict=True):
                checked_classes(y, out.shape[1], f"networks.{name}")
            right = [out.argmax(1) == y for out, (_, y) in zip(logits, batches, strict=True)]
            if not any(bool(some.any()) for some in right):
                got = f"{name} is wrong about all {sum(len(x) for x, _ in batches)} images"
                raise InputError("targets", got, "targets that classify images correctly")
            self._right[name] = right

    def cost(self, factory: AttackFactory, most: int = 1) -> tuple[float, float]:
        """Rows per image, forward or backward, whichever are more: of a step, and before all steps.

        The choice of targets is not counted. Measured on few steps, of an attack that needs more
        on ``most`` and two others.
        """
        steps = 1
        try:
            few = self._passes(factory, steps)
            more = self._passes(factory, steps + 2)
        except InputError:
            steps = most
            few, more = (self._passes(factory, number) for number in (steps, steps + 2))
        each = (more - few) / 2
        return each, max(0.0, few - steps * each)

    def _passes(self, factory: AttackFactory, steps: int) -> float:
        """Of an attack with so many steps on one image."""
        x, y = self.batches[0]
        found = (self._craft(s, factory, (x[:1], y[:1]), steps)[2] for s in self._sources)
        return max(found) - (self.aims is not None)

    def score(self, factory: AttackFactory) -> Score:
        """Try an attack on all sources and images."""
        hits: dict[tuple[str, str], list[Tensor]] = {pair: [] for pair in self.pairs}
        leads: dict[tuple[str, str], list[Tensor]] = {pair: [] for pair in self.pairs}
        dearest = 0.0
        for source in self._sources:
            for k, (x, y) in enumerate(self.batches):
                adversarial, aims, passes = self._craft(source, factory, (x, y))
                dearest = max(dearest, passes)
                for target in (target for s, target in self.pairs if s == source):
                    logits = class_logits(self.networks[target], adversarial, f"networks.{target}")
                    seen, pair = logits.argmax(1), (source, target)
                    if aims is None:
                        counted, success = self._right[target][k], seen != y
                        lead = -margin(logits, y)
                    else:
                        counted, success = torch.ones_like(seen, dtype=torch.bool), seen == aims
                        lead = margin(logits, aims)
                    hits[pair].append(success[counted])
                    leads[pair].append(lead.sigmoid()[counted])
        return Score(_mean(hits), _mean(leads), dearest)

    @property
    def _sources(self) -> list[str]:
        return list(dict.fromkeys(source for source, _ in self.pairs))

    def _craft(
        self, source: str, factory: AttackFactory, batch: Batch, steps: int | None = None
    ) -> tuple[Tensor, Tensor | None, float]:
        network, (x, y) = self.networks[source], batch
        attack = make_attack(factory, network, None, self.aims, self.seed, steps)
        with counted_passes(network) as rows:
            adversarial, aims = run_attack(attack, x, y, seed=self.seed)
        return adversarial, aims, max(rows["forwards"], rows["backwards"]) / len(x)


def _mean(found: dict[tuple[str, str], list[Tensor]]) -> float:
    """Over pairs, of the means over images."""
    return sum(float(torch.cat(some).float().mean()) for some in found.values()) / len(found)
