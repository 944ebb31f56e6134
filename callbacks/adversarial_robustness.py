"""Robust accuracy under any attacks, as a curve over ε."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_warn
from matplotlib.figure import Figure
from rich.table import Column, Table
from torch import Tensor, nn

from interaction_train.attacks.jobs import Targets, check_factory
from interaction_train.attacks.run import AttackFactory
from interaction_train.attacks.transfer.rates import Proportion
from interaction_train.callbacks.monitor import Monitor, Result, Split
from interaction_train.callbacks.robust_curve import masking_signs, masking_warnings, robust_curve
from interaction_train.callbacks.samples import gather, is_fast, shard
from interaction_train.errors import InputError, at_least
from interaction_train.game.evaluation import eval_logits
from interaction_train.game.precision import wide
from interaction_train.tracking.figures import legend_below, new_figure, show_epsilons
from interaction_train.tracking.loggers import log_images
from interaction_train.tracking.style import styled

_SIGNS = 4  # columns of masking_signs
_IMAGES = 8


class AdversarialRobustness(Monitor):
    """Robust accuracy of a network on a fixed sample, under attacks of torchattacks' interface.

    Attacked with growing ε are those samples that the network gets right and that still stand; the
    step size goes with ε (:func:`~interaction_train.callbacks.robust_curve.robust_curve`).

    - In ``fit``: ``val/robust_acc/<attack>`` at the largest ε, ``val/robust_acc/clean`` on the same
      samples, some adversarial images, and with several ε ``…/<attack>/eps_<ε>`` and
      ``val/robust_eps/<attack>/mean`` and ``…/median`` of the smallest ε that breaks a sample, over
      the samples that are right without an attack (one that stands counts with the largest ε).
    - In ``validate`` and ``test`` the same under ``val/…`` and ``test/…``, a table with 95 %
      intervals, and ``robustness.csv``, ``robustness_samples.csv`` (the smallest ε of every sample;
      empty where it stands), ``robustness.json`` and ``robustness.png``. Masked gradients are
      warned of: where the loss falls with more steps, a black-box attack breaks more, or the
      largest ε there is does not break all samples.

    Args:
        attacks: name → what makes an attack on the network.
        epsilons: bounds in pixel values, in the attacks' own norms; default: each attack's own.
        n_samples: number of samples, over all processes.
        every: k, how often in ``fit``; the first validation is one of them.
        checks: whether to check for masked gradients.
        batch_size: samples attacked together.
        seed: seed of attacks that draw from the global random states.
        targets: what the attacks aim at, ``random``, ``least_likely`` or the target of every class
            by its number; null: as they are made. A sample is broken where the network is wrong.
        common: the other arguments of :class:`~interaction_train.callbacks.monitor.Monitor`.

    Raises:
        InputError: an argument out of its range; in use, an attack without a bound to set or one
            that leaves it.
    """

    keys_begin, stem = ("robustness", "robust_acc", "robust_eps"), "robustness"

    def __init__(
        self,
        attacks: dict[str, AttackFactory],
        epsilons: Sequence[float] | None = None,
        n_samples: int = 128,
        every: int = 20,
        checks: bool = True,
        batch_size: int = 32,
        seed: int = 0,
        targets: Targets | None = None,
        **common: Any,
    ) -> None:
        super().__init__(every, **common)
        at_least("n_samples", n_samples, 1)
        at_least("batch_size", batch_size, 1)
        if not isinstance(attacks, Mapping) or not attacks:
            raise InputError("attacks", attacks, "name → what makes an attack, at least one")
        for name, factory in attacks.items():
            check_factory("attacks", factory)
            if not name or "/" in name or name == "clean":
                raise InputError("attacks", f"the name {name!r}", "other names, without '/'")
        self.epsilons = None if epsilons is None else sorted({float(e) for e in epsilons})
        if self.epsilons is not None and not min(self.epsilons, default=0) > 0:
            raise InputError("epsilons", epsilons, "positive numbers")
        # Above every ε at which a sample may have been broken there is none but infinity.
        self._largest = self.epsilons[-1] if self.epsilons else torch.finfo(torch.float32).max
        self.attacks, self.checks, self.targets = attacks, checks, targets
        self.n_samples, self.batch_size, self.seed = n_samples, batch_size, seed
        self._images: dict[str, tuple[Tensor, list[str]]] = {}

    def measure(self, trainer: L.Trainer, loader: Any) -> Result:
        network = self.network(trainer, loader)
        fast = is_fast(trainer)
        checked = self.checks and not fast and trainer.state.fn != "fit"
        rows, self._images = list[Tensor](), {}
        for block in shard(self.places(trainer, loader), trainer, self.batch_size):
            x, y = self.samples(trainer, loader, block)
            own = torch.stack([torch.tensor(block).to(y), y], 1)
            rows.append(torch.cat([own, *self._attack(network, x, y, checked)], 1))
        table = gather(rows, 2 + len(self.attacks) * (1 + _SIGNS), trainer).cpu()
        own, smallest, signs = table.tensor_split([2, 2 + len(self.attacks)], 1)
        if not fast and not bool((smallest > 0).any()):
            rank_zero_warn(
                f"AdversarialRobustness: none of {len(table)} samples is classified correctly, so "
                "nothing was attacked and every accuracy is 0."
            )
        found: list[str] = []
        parts = signs.split(_SIGNS, 1)
        for name, bounds, part in zip(self.attacks, smallest.T, parts, strict=True):
            right = bounds > 0
            found += masking_warnings(name, part[right], bounds[right].isfinite())
        for text in found:
            rank_zero_warn(text)
        return {
            "samples": len(table),
            "epsilons": self.epsilons,
            "places": own[:, 0].long().tolist(),
            "labels": own[:, 1].long().tolist(),
            "smallest": {
                name: [value if math.isfinite(value) else None for value in values]
                for name, values in zip(self.attacks, smallest.T.tolist(), strict=True)
            },
            "warnings": found,
        }

    def keys(self, split: Split, result: Result) -> dict[str, float]:
        keys: dict[str, float] = {}
        several = len(self.epsilons or ()) > 1
        for name, epsilon, rate, *_ in self._curve(result):  # the largest ε comes last
            keys[f"{split}/robust_acc/{'clean' if epsilon == 0 else name}"] = rate
            if several and epsilon:
                keys[f"{split}/robust_acc/{name}/eps_{epsilon:.4g}"] = rate
        for name, values in result["smallest"].items() if several else ():
            needed = [self._largest if v is None else v for v in values if v != 0]
            attacked = torch.tensor(needed or [math.nan])
            keys[f"{split}/robust_eps/{name}/mean"] = float(attacked.mean())
            keys[f"{split}/robust_eps/{name}/median"] = float(attacked.median())
        return keys

    @styled()
    def figures(self, result: Result) -> Mapping[str, Figure]:
        if self.epsilons is None:
            return {}
        figure, axes = new_figure()
        for name, curve in groupby(self._curve(result), itemgetter(0)):
            _, bounds, rates, low, high, _ = zip(*curve, strict=True)
            axes.plot(bounds, rates, marker="o", label=name)
            axes.fill_between(bounds, low, high, alpha=0.2, lw=0)
        title = f"Robust accuracy, {result['samples']} samples (bands: 95 % Wilson intervals)"
        axes.set(ylabel="accuracy", title=title, ylim=(0, 1))
        show_epsilons(axes, self.epsilons)
        legend_below(axes)
        return {"robustness": figure}

    def log_media(self, loggers: Iterable[Logger], split: Split, result: Result, step: int) -> None:
        super().log_media(loggers, split, result, step)
        for name, (images, captions) in self._images.items():
            key = self._named(f"{split}/adversarial/{name}")
            log_images(loggers, key, images, captions, step)
        self._images = {}

    def table(self, result: Result) -> Table:
        columns = ["attack", "ε", "robust accuracy", "95 % interval"]
        title = f"Robust accuracy on {result['samples']} samples"
        table = Table(*(Column(name, justify="right") for name in columns), title=title)
        for name, epsilon, rate, low, high, _ in self._curve(result):
            shown = "own" if epsilon is None else f"{epsilon:.4g}"
            table.add_row(name, shown, f"{rate:.4f}", f"{low:.3f} to {high:.3f}")
        table.caption = "\n".join(result["warnings"])
        return table

    def csv_rows(self, result: Result) -> Mapping[str, Sequence[Iterable[Any]]]:
        head = ["attack", "epsilon", "robust_acc", "low", "high", "samples"]
        smallest = [f"smallest_eps_{name}" for name in result["smallest"]]
        rows = zip(result["places"], result["labels"], *result["smallest"].values(), strict=True)
        return {
            "robustness": [head, *self._curve(result)],
            "robustness_samples": [["index", "label", *smallest], *rows],
        }

    def _attack(self, network: nn.Module, x: Tensor, y: Tensor, checked: bool) -> list[Tensor]:
        """The smallest ε ``(B, 1)`` of each attack, then the signs ``(B, 4)``, NaN unchecked."""
        curves, signs = [], []
        for name, make in self.attacks.items():
            smallest, images = robust_curve(
                make, network, x, y, self.epsilons, seed=self.seed, targets=self.targets
            )
            curves.append(smallest[:, None])
            if name not in self._images:
                images, seen = images[:_IMAGES], eval_logits(network, images[:_IMAGES]).argmax(-1)
                pairs = zip(y[:_IMAGES].tolist(), seen.tolist(), strict=True)
                self._images[name] = images.float().cpu(), [f"{a} → {b}" for a, b in pairs]
            found = wide(torch.full((len(x), _SIGNS), torch.nan, device=x.device))
            if checked:
                right, bound = smallest > 0, None if self.epsilons is None else self._largest
                found[right] = masking_signs(
                    make, network, x[right], y[right], bound, seed=self.seed
                )
            signs.append(found)
        return [*curves, *signs]

    def _curve(self, result: Result) -> list[tuple[Any, ...]]:
        """Attack, ε (None: its own), robust accuracy, its interval, and number of samples."""
        rows = []
        own: Sequence[float | None] = self.epsilons or [None]
        for name, values in result["smallest"].items():
            for epsilon in (0.0, *own):
                # Where ε was kept in float32, its rounding must not make it larger than itself.
                bound = (self._largest if epsilon is None else epsilon) * (1 + 1e-6)
                part = Proportion(sum(v is None or v > bound for v in values), len(values))
                rows.append((name, epsilon, part.rate, *part.interval, part.total))
        return rows
