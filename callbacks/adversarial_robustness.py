"""Robust accuracy under any attacks, as a curve over ε."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from matplotlib.figure import Figure
from rich.table import Column, Table
from torch import Tensor, nn

from interaction_train.attacks.jobs import check_factory
from interaction_train.attacks.run import AttackFactory
from interaction_train.attacks.targets import Targets
from interaction_train.attacks.transfer.rates import Proportion
from interaction_train.callbacks.monitor import Monitor, Result, Split, is_fast
from interaction_train.callbacks.robust_curve import (
    masking_signs,
    masking_warnings,
    predictions,
    robust_curve,
)
from interaction_train.callbacks.samples import gather, shard, spread
from interaction_train.errors import InputError, at_least
from interaction_train.tracking.figures import save_figure
from interaction_train.tracking.loggers import log_images

_SIGNS = 4  # columns of masking_signs
_IMAGES = 8


class AdversarialRobustness(Monitor):
    """Robust accuracy of a network on a fixed sample, under attacks of torchattacks' interface.

    Samples are spread evenly over the first validation (or test) loader's data set. Only those are
    attacked that the network gets right and that still stand: with several ε, the smallest first,
    and a sample that is broken at one ε counts as broken at all larger ones
    (:func:`~interaction_train.callbacks.robust_curve.robust_curve`). The step size of an attack
    goes with its ε.

    - In ``fit``, after every k-th validation: ``val/robust_acc/<attack>`` at the largest ε,
      ``val/robust_acc/clean`` on the same samples, and with several ε ``…/<attack>/eps_<ε>`` and
      ``val/robust_eps/<attack>/mean`` and ``…/median`` of the smallest ε that breaks a sample, over
      the samples that are right without an attack, where one that stands counts with the largest ε.
      Some adversarial images go to the loggers too.
    - In ``validate`` and ``test`` the same under ``val/…`` and ``test/…``, a table with 95 %
      intervals, and ``robustness.csv``, ``robustness_samples.csv`` (the smallest ε of every sample;
      empty where it stands), ``robustness.json`` and ``robustness.png`` in the run's folder.

    In ``validate`` and ``test`` every attack is also checked for masked gradients, with warnings:
    the loss must not fall with more steps, a black-box attack must not break more than it, and with
    the largest ε there is (1 in L∞) it must break all samples.

    No result depends on the number of processes: the batches that are attacked together are the
    same ones.

    Args:
        attacks: name → what makes an attack on the network.
        epsilons: bounds in pixel values, in the attacks' own norms; default: each attack's own.
        n_samples: number of samples, over all processes.
        every: k, how often in ``fit``; the first validation is one of them.
        checks: whether to check for masked gradients.
        black_box: makes the black-box attack of that check; default: Square with 100 queries.
        batch_size: samples attacked together.
        seed: seed of attacks that draw from the global random states.
        targets: what the attacks aim at, ``random``, ``least_likely`` or the target of every class
            by its number; null: as the attacks are made. A sample counts as broken where the
            network gets it wrong, whether or not it is taken for the target.
        common: ``model``, ``batch``, ``normalization`` and ``name`` of
            :class:`~interaction_train.callbacks.monitor.Monitor`.

    Raises:
        InputError: an argument out of its range; in use, an attack without a bound to set or one
            that leaves it.
    """

    keys_begin = ("robustness", "robust_acc", "robust_eps")

    def __init__(
        self,
        attacks: dict[str, AttackFactory],
        epsilons: Sequence[float] | None = None,
        n_samples: int = 128,
        every: int = 20,
        checks: bool = True,
        black_box: AttackFactory | None = None,
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
        if self.epsilons is not None and not (self.epsilons and self.epsilons[0] > 0):
            raise InputError("epsilons", epsilons, "positive numbers")
        self.attacks, self.checks, self.black_box = attacks, checks, black_box
        self.n_samples, self.batch_size, self.seed = n_samples, batch_size, seed
        self.targets = targets
        self._images: dict[str, tuple[Tensor, list[str]]] = {}

    def measure(self, trainer: L.Trainer, loader: Any) -> Result:
        network = self.network(trainer, loader)
        fast = is_fast(trainer)
        checked = self.checks and not fast and trainer.state.fn != TrainerFn.FITTING
        places = spread(len(loader.dataset), 2 if fast else self.n_samples)
        width = 2 + len(self.attacks) * (1 + _SIGNS * checked)
        rows = [torch.zeros(0, width, dtype=torch.float64, device=trainer.strategy.root_device)]
        self._images = {}
        for block in shard(places, trainer, self.batch_size):
            x, y = self.samples(trainer, loader, block)
            rows.append(torch.cat([_columns(block, y), self._attack(network, x, y, checked)], 1))
        table = gather(torch.cat(rows)).cpu()
        smallest = table[:, 2 : 2 + len(self.attacks)]
        signs = table[:, 2 + len(self.attacks) :].split(_SIGNS, 1) if checked else ()
        if not fast and not bool((smallest > 0).any()):
            rank_zero_warn(
                f"AdversarialRobustness: none of {len(table)} samples is classified correctly, so "
                "nothing was attacked and every accuracy is 0."
            )
        return {
            "samples": len(table),
            "epsilons": self.epsilons,
            "places": table[:, 0].long().tolist(),
            "labels": table[:, 1].long().tolist(),
            "smallest": dict(zip(self.attacks, smallest.T.tolist(), strict=True)),
            "warnings": self._warn(signs, smallest),
        }

    def keys(self, split: Split, result: Result) -> dict[str, float]:
        keys: dict[str, float] = {}
        for name, values in result["smallest"].items():
            keys[f"{split}/robust_acc/clean"] = _part(values, 0.0)
            keys[f"{split}/robust_acc/{name}"] = _part(values, self._largest)
            if self.epsilons is not None and len(self.epsilons) > 1:
                for epsilon in self.epsilons:
                    keys[f"{split}/robust_acc/{name}/eps_{epsilon:.4g}"] = _part(values, epsilon)
                attacked = torch.tensor([v for v in values if v > 0]).clamp(max=self._largest)
                some = len(attacked) > 0
                start = f"{split}/robust_eps/{name}"
                keys[f"{start}/mean"] = float(attacked.mean()) if some else math.nan
                keys[f"{start}/median"] = float(attacked.median()) if some else math.nan
        return keys

    def figures(self, result: Result) -> Mapping[str, Figure]:
        if self.epsilons is None:
            return {}
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.add_subplot()
        bounds = [0.0, *self.epsilons]
        for name, values in result["smallest"].items():
            parts = [_proportion(values, epsilon) for epsilon in bounds]
            axes.plot(bounds, [p.rate for p in parts], marker="o", markersize=3, label=name)
            low, high = zip(*(p.interval for p in parts), strict=True)
            axes.fill_between(bounds, low, high, alpha=0.2)
        title = f"Robust accuracy, {result['samples']} samples, 95 % intervals"
        axes.set(xlabel="ε (pixel values)", ylabel="accuracy", title=title, ylim=(0, 1))
        axes.legend()
        return {"robustness": figure}

    def log_media(self, loggers: Iterable[Logger], split: Split, result: Result, step: int) -> None:
        super().log_media(loggers, split, result, step)
        for name, (images, captions) in self._images.items():
            log_images(loggers, f"{split}/adversarial/{name}", images, captions, step)
        self._images = {}

    def table(self, result: Result) -> Table:
        columns = ["attack", "ε", "robust accuracy", "95 % interval"]
        title = f"Robust accuracy on {result['samples']} samples"
        table = Table(*(Column(name, justify="right") for name in columns), title=title)
        for cells in self._curve(result):
            name, epsilon, rate, low, high, _ = cells
            shown = "own" if epsilon is None else f"{epsilon:.4g}"
            table.add_row(name, shown, f"{rate:.4f}", f"{low:.3f} to {high:.3f}")
        table.caption = "\n".join(result["warnings"])
        return table

    def write(self, folder: Path, result: Result) -> list[Path]:
        names = ("robustness.csv", "robustness_samples.csv", "robustness.json", "robustness.png")
        paths = [folder / name for name in names]
        head = ["attack", "epsilon", "robust_acc", "low", "high", "samples"]
        _write_csv(paths[0], [head, *self._curve(result)])
        columns = [
            [_finite(value, "") for value in values] for values in result["smallest"].values()
        ]
        rows = zip(result["places"], result["labels"], *columns, strict=True)
        smallest = (f"smallest_eps_{name}" for name in result["smallest"])
        _write_csv(paths[1], [["index", "label", *smallest], *rows])
        plain = {
            name: [_finite(value, None) for value in values]
            for name, values in result["smallest"].items()
        }
        paths[2].write_text(json.dumps({**result, "smallest": plain}, indent=2))
        for figure in self.figures(result).values():
            save_figure(figure, paths[3])
        return [path for path in paths if path.is_file()]

    @property
    def _largest(self) -> float:
        """Above every ε at which a sample may have been broken there is none but infinity."""
        return self.epsilons[-1] if self.epsilons is not None else torch.finfo(torch.float64).max

    def _attack(self, network: nn.Module, x: Tensor, y: Tensor, checked: bool) -> Tensor:
        """Smallest ε per attack, then the signs of each: float64 ``(B, attacks · (1 + signs))``."""
        curves, signs = [], []
        for name, make in self.attacks.items():
            curve = robust_curve(
                make, network, x, y, self.epsilons, seed=self.seed, targets=self.targets
            )
            curves.append(curve.smallest[:, None])
            if name not in self._images:
                self._images[name] = _captioned(network, curve.adversarial[:_IMAGES], y[:_IMAGES])
            if checked:
                right = curve.smallest > 0
                found = torch.full((len(x), _SIGNS), torch.nan, dtype=torch.float64).to(x.device)
                found[right] = masking_signs(
                    make, network, x[right], y[right],
                    None if self.epsilons is None else self._largest,
                    black_box=self.black_box, seed=self.seed,
                )  # fmt: skip
                signs.append(found)
        return torch.cat([*curves, *signs], 1)

    def _warn(self, signs: Sequence[Tensor], smallest: Tensor) -> list[str]:
        found = []
        for name, own, values in zip(self.attacks, signs, smallest.T, strict=False):
            right = values > 0
            found += masking_warnings(name, own[right], values[right].isfinite())
        for text in found:
            rank_zero_warn(text)
        return found

    def _curve(self, result: Result) -> list[tuple[str, float | None, float, float, float, int]]:
        rows: list[tuple[str, float | None, float, float, float, int]] = []
        bounds: list[float | None] = [0.0]
        bounds += [None] if self.epsilons is None else self.epsilons
        for name, values in result["smallest"].items():
            for epsilon in bounds:
                part = _proportion(values, self._largest if epsilon is None else epsilon)
                rows.append((name, epsilon, part.rate, *part.interval, part.total))
        return rows


def _columns(places: Sequence[int], y: Tensor) -> Tensor:
    return torch.stack([torch.tensor(places).to(y), y], 1).double()


def _proportion(smallest: Sequence[float], epsilon: float) -> Proportion:
    return Proportion(sum(value > epsilon for value in smallest), len(smallest))


def _part(smallest: Sequence[float], epsilon: float) -> float:
    return _proportion(smallest, epsilon).rate


def _captioned(network: nn.Module, images: Tensor, y: Tensor) -> tuple[Tensor, list[str]]:
    found = predictions(network, images)
    pairs = zip(y.tolist(), found.tolist(), strict=True)
    return images.float().cpu(), [f"{label} → {seen}" for label, seen in pairs]


def _finite(value: float, otherwise: Any) -> Any:
    return value if math.isfinite(value) else otherwise


def _write_csv(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
