"""Evaluating transfer as a job: ``interaction-train test --config transfer_digits.yaml``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torchattacks.attack import Attack

from interaction_train.attacks.run import run_attack
from interaction_train.attacks.sets.shards import read_adversarial_set
from interaction_train.attacks.transfer.passes import PassCounter
from interaction_train.attacks.transfer.rates import (
    Outcome,
    TransferCell,
    TransferRate,
    class_logits,
    predicted,
    transfer_cells,
)
from interaction_train.attacks.transfer.report import (
    Examples,
    Line,
    epsilon_figure,
    examples_figure,
    largest_eps,
    matrix_figure,
    print_transfer,
    write_transfer,
)
from interaction_train.errors import InputError
from interaction_train.models import weights_tag
from interaction_train.sampling.random import sample_hash
from interaction_train.tracking.figures import save_figure
from interaction_train.tracking.loggers import log_figure, log_images, log_table

_SET_BATCH = 128  # images of a set predicted at once

AttackFactory = Callable[[nn.Module], Attack]


@dataclass
class _Row:
    """One row of the matrix while it is measured."""

    source: str
    name: str
    eps: float | None
    attack: Attack
    steps: int  # that are looked at
    rate: TransferRate


class TransferEvaluation(L.LightningModule):
    """Attacks source networks and measures at target networks how often they are fooled.

    For the ``test`` of a Trainer, with batches of images ``(B, C, H, W)`` in [0, 1] and labels
    ``(B,)``. Reports a table, ``transfer.csv``, ``transfer.json``, ``transfer.png``,
    ``transfer_eps.png`` (with several ε) and ``examples.png`` in the run's folder, and sends the
    table and the pictures to the loggers, with the scalars ``test/acc/<target>`` and
    ``test/transfer/<source>/<attack>/<target>``, the success rate on images that the target
    classifies correctly when clean (of several ε, each under ``…/<ε>``).

    Args:
        networks: name → network, values in [0, 1] → logits; all with the same classes.
        attacks: name → network → attack; ours, or any of ``torchattacks``.
        sources: names of the networks that are attacked; default: all.
        targets: names of the networks that are to be fooled; default: all.
        leave_out: attack → sources that it is not run on, such as SGM on a network without residual
            blocks.
        adversarial_sets: name → adversarial examples on disk, measured as rows of their own: a
            folder written by ``interaction-train predict`` or a file of ``torchattacks``' ``save``.
        epsilons: bounds to run every attack with, for curves; its step size is scaled with the
            bound and its number of steps stays. Default: each attack's own.
        steps: number of steps to run every attack with, for a quick look. Default: each its own.
        best_step: look at every step of attacks that have ``on_step``, and report success at the
            best step too, which is chosen for every image on all the others. All steps of a batch
            are kept in memory for that.
        only_jointly_correct: make the rates about the images that all targets classify correctly
            when clean, instead of those that the one target does.
        first_batch: leave out the batches before this one (from 0), of each process. With the
            Trainer's ``limit_test_batches`` it cuts the data, so that settings can be chosen on
            other images than those of the final table.
        examples: number of images to show, of the first batch and each source's last attack.
        seed: seed of the random numbers that ``torchattacks``' attacks draw from global states; our
            own attacks have theirs.

    Attributes:
        cells: after ``test``, every cell of the matrix, the same on all processes.

    Raises:
        InputError: nothing to measure, names that do not fit, ε that are not positive or that an
            attack does not take; in ``test``, images or labels out of range, and networks that do
            not return logits of the same classes.
    """

    def __init__(
        self,
        networks: dict[str, nn.Module],
        attacks: dict[str, AttackFactory] | None = None,
        sources: list[str] | None = None,
        targets: list[str] | None = None,
        leave_out: dict[str, list[str]] | None = None,
        adversarial_sets: dict[str, str] | None = None,
        epsilons: list[float] | None = None,
        steps: int | None = None,
        best_step: bool = False,
        only_jointly_correct: bool = False,
        first_batch: int = 0,
        examples: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.attacks, self.adversarial_sets = attacks or {}, adversarial_sets or {}
        if not networks or not (self.attacks or self.adversarial_sets):
            got = f"{len(networks)} networks, no attack and no adversarial set"
            raise InputError("networks, attacks", got, "a network, and an attack or a set")
        for name in networks:
            if not name or "." in name or "/" in name:
                raise InputError("networks", f"the name {name!r}", "a name without '.' and '/'")
        self.leave_out = leave_out or {}
        self.sources = _names("sources", sources, networks)
        self.targets = _names("targets", targets, networks)
        _names("leave_out", self.leave_out, self.attacks)
        for left_out in self.leave_out.values():
            _names("leave_out", left_out, networks)
        if epsilons is not None and (not epsilons or not all(0 < e < 1 for e in epsilons)):
            raise InputError("epsilons", epsilons, "numbers between 0 and 1")
        if steps is not None and steps < 1:
            raise InputError("steps", steps, "at least 1")
        for argument, value in (("first_batch", first_batch), ("examples", examples)):
            if value < 0:
                raise InputError(argument, value, "at least 0")
        self.networks = nn.ModuleDict(networks)
        self.epsilons, self.best_step, self.examples = epsilons, best_step, examples
        self.only_jointly_correct, self.seed = only_jointly_correct, seed
        self.first_batch, self.steps = first_batch, steps
        self.cells: list[TransferCell] = []
        self._rows: list[_Row] = []
        self._examples: Examples | None = None
        self._lines: list[Line] = []
        self._classes = 0

    def on_test_start(self) -> None:
        batches = self.trainer.num_test_batches[0]
        if self.first_batch >= batches:
            raise InputError("first_batch", self.first_batch, f"less than the {batches} batches")
        for path in self.adversarial_sets.values():  # now, not after hours of crafting
            read_adversarial_set(path)
        # Attacks are built here: they take their device from the network, which is on it now.
        self._examples, self._rows = None, []
        for source in self.sources:
            for name, factory in self.attacks.items():
                if source not in self.leave_out.get(name, []):
                    bounds: Sequence[float | None] = self.epsilons or [None]
                    self._rows += [self._row(source, name, factory, eps) for eps in bounds]

    def _row(self, source: str, name: str, factory: AttackFactory, eps: float | None) -> _Row:
        with _named(name, source):
            attack = factory(self.networks[source])
            if not isinstance(attack, Attack):
                raise InputError("attack", type(attack).__name__, "one of torchattacks' kind")
            change_attack(attack, eps, self.steps)
        steps = int(attack.steps) if self.best_step and hasattr(attack, "on_step") else 0
        return _Row(source, name, getattr(attack, "eps", None), attack, steps, self._rate(steps))

    def _rate(self, steps: int = 0) -> TransferRate:
        rate = TransferRate(len(self.targets), steps, self.only_jointly_correct)
        return rate.to(self.device)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        if batch_idx < self.first_batch:
            return
        x, y = batch
        _check_images(x, y)
        if batch_idx == self.first_batch:
            self._classes = self._count_classes(x)
        if int(y.max()) >= self._classes:
            got = f"{self._classes} classes"
            raise InputError("networks", got, f"more: a label is {int(y.max())}")
        content, right = sample_hash(x, y), self._predicted(x) == y.unsqueeze(1)
        shown: dict[str, Tensor] = {}
        for row in self._rows:
            adversarial, outcome = self._attack(row, x, y)
            row.rate.update(content, outcome._replace(right=right))
            shown[_title(row)] = adversarial
        if batch_idx == self.first_batch and self.examples and self._rows:
            self._keep(x, y, shown)

    def _attack(self, row: _Row, x: Tensor, y: Tensor) -> tuple[Tensor, Outcome]:
        at_step: list[Tensor] = []
        attack: Any = row.attack
        if row.steps:
            attack.on_step = lambda number, adversarial: at_step.append(adversarial.clone())
        try:
            with PassCounter(self.networks[row.source]) as passes, _named(row.name, row.source):
                adversarial, aims = run_attack(attack, x, y, seed=self.seed)
        finally:
            if row.steps:
                attack.on_step = None
        low, high = (float(bound) for bound in adversarial.aminmax())
        if low < -1e-6 or high > 1 + 1e-6:
            got = f"images from {low:.6g} to {high:.6g} by {row.name}"
            raise InputError("attacks", got, "adversarial examples in [0, 1]")
        found = self._predicted(adversarial)
        fooled = [self._predicted(images) != y.unsqueeze(1) for images in at_step]
        return adversarial, Outcome(
            fooled=found != y.unsqueeze(1),
            hit=None if aims is None else found == aims.unsqueeze(1),
            at_step=torch.stack(fooled, 1) if fooled else None,
            size=(adversarial - x).abs().flatten(1).amax(1),
            forwards=passes.forwards / len(x),
            backwards=passes.backwards / len(x),
        )

    def _predicted(self, x: Tensor) -> Tensor:
        """Predictions of all targets, ``(B, T)``."""
        return torch.stack([predicted(self.networks[name], x, name) for name in self.targets], 1)

    def _count_classes(self, x: Tensor) -> int:
        classes = {}
        for name in dict.fromkeys([*self.sources, *self.targets]):
            classes[name] = class_logits(self.networks[name], x, f"networks.{name}").shape[1]
        if len(set(classes.values())) > 1:
            found = ", ".join(f"{name} with {count}" for name, count in classes.items())
            raise InputError("networks", found, "networks with the same number of classes")
        return min(classes.values())

    def _keep(self, x: Tensor, y: Tensor, shown: dict[str, Tensor]) -> None:
        last = {row.source: _title(row) for row in self._rows}
        n = min(self.examples, len(x))
        self._examples = Examples(
            x[:n].cpu(),
            [f"label {label}" for label in y[:n].tolist()],
            {
                title: (shown[title][:n].cpu(), self._captions(shown[title][:n]))
                for title in last.values()
            },
        )

    def _captions(self, x: Tensor) -> list[str]:
        return [
            ", ".join(f"{name} {label}" for name, label in zip(self.targets, labels, strict=True))
            for labels in self._predicted(x).tolist()
        ]

    def on_test_epoch_end(self) -> None:
        lines = [self._line(row) for row in self._rows]
        lines += [self._set_line(name, path) for name, path in self.adversarial_sets.items()]
        self._lines, self.cells = lines, [cell for line in lines for cell in line]
        folder = self.trainer.log_dir  # on every process: the first one sends it to the others
        if self.trainer.is_global_zero:
            self._report(Path(folder) if folder else None)

    def on_test_end(self) -> None:
        # Printed here, when the progress bar is gone.
        if self.trainer.is_global_zero:
            print_transfer(self._lines, self.only_jointly_correct)
        self._rows = []

    def _line(self, row: _Row) -> Line:
        source = self.networks[row.source]
        parts = set(source.modules())
        return transfer_cells(
            row.rate.compute(),
            self.targets,
            [self.networks[target] in parts for target in self.targets],
            source=row.source,
            attack=row.name,
            eps=row.eps,
            with_steps=row.steps > 0,
        )

    def _set_line(self, name: str, path: str) -> Line:
        """A set's row; every process measures its share of the set."""
        found = read_adversarial_set(path)
        job = found.manifest.get("job", {})
        images, clean, aims = found.images, found.clean, found.targets
        rate = self._rate()
        share = torch.arange(self.global_rank, len(found), self.trainer.world_size)
        for part in share.split(_SET_BATCH):
            if not len(part):
                continue
            y, adversarial = found.labels[part].to(self.device), images[part].to(self.device)
            x = None if clean is None else clean[part].to(self.device)
            _check_images(adversarial, y)
            seen = self._predicted(adversarial)
            known = adversarial if x is None else x
            outcome = Outcome(
                fooled=seen != y.unsqueeze(1),
                right=None if x is None else self._predicted(x) == y.unsqueeze(1),
                hit=None if aims is None else seen == aims[part].to(y).unsqueeze(1),
                size=None if x is None else (adversarial - x).abs().flatten(1).amax(1),
            )
            rate.update(sample_hash(known, y), outcome)
        attacked = job.get("surrogate", {}).get("weights")
        return transfer_cells(
            rate.compute(),
            self.targets,
            [weights_tag(self.networks[target]) == attacked for target in self.targets],
            source=None,
            attack=name,
            eps=job.get("eps"),
            with_steps=False,
        )

    def _report(self, folder: Path | None) -> None:
        chosen = largest_eps(self._lines)
        figures = {"matrix": matrix_figure(chosen)}
        if self.epsilons is not None and len(self.epsilons) > 1:
            figures["eps"] = epsilon_figure(self._lines)
        if folder is not None:
            about = {
                "targets": self.targets,
                "only_jointly_correct": self.only_jointly_correct,
                "first_batch": self.first_batch,
                "seed": self.seed,
            }
            write_transfer(folder, self._lines, about)
            names = {"matrix": "transfer.png", "eps": "transfer_eps.png"}
            for name, figure in figures.items():
                save_figure(figure, folder / names[name])
            if self._examples is not None:
                save_figure(examples_figure(self._examples), folder / "examples.png")
        # Plain files have all of it already.
        loggers = [logger for logger in self.trainer.loggers if not isinstance(logger, CSVLogger)]
        step = self.trainer.global_step
        for logger in self.trainer.loggers:
            logger.log_metrics(self._scalars(), step=step)
        records = [cell.record() for cell in self.cells]
        table = [list(record.values()) for record in records]
        log_table(loggers, "test/transfer/table", list(records[0]), table, step)
        for name, figure in figures.items():
            log_figure(loggers, f"test/transfer/{name}", figure, step)
        if self._examples is not None:
            images, captions = _flat(self._examples)
            log_images(loggers, "test/transfer/examples", images, captions, step)

    def _scalars(self) -> dict[str, float]:
        several = self.epsilons is not None and len(self.epsilons) > 1
        scalars = {f"test/acc/{cell.target}": cell.clean.rate for cell in self._lines[0]}
        for cell in self.cells:
            key = f"test/transfer/{cell.source or 'set'}/{cell.attack}/{cell.target}"
            if several and cell.eps is not None:
                key += f"/{cell.eps:g}"
            scalars[key] = cell.fooled_correct.rate
        return scalars


def change_attack(attack: Attack, eps: float | None = None, steps: int | None = None) -> None:
    """Change an attack's bound, and its step size alike, and its number of steps.

    Args:
        attack: changed in place.
        eps: the new bound, above 0; alpha/eps stays. Default: its own.
        steps: the new number of steps; attacks that have none stay as they are. Default: its own.

    Raises:
        InputError: an attack without a positive ``eps`` to change, or one that runs others, whose
            settings it does not pass on.
    """
    if eps is None and steps is None:
        return
    if getattr(attack, "_attacks", None):
        raise InputError("epsilons, steps", "an attack that runs others", "one on its own")
    if steps is not None and hasattr(attack, "steps"):
        attack.steps = steps
    if eps is not None:
        own = getattr(attack, "eps", None)
        if not isinstance(own, float | int) or own <= 0:
            raise InputError("epsilons", f"an attack with eps = {own}", "one with an eps above 0")
        if isinstance(getattr(attack, "alpha", None), float | int):
            attack.alpha = attack.alpha * eps / own
        attack.eps = eps


@contextmanager
def _named(attack: str, source: str) -> Iterator[None]:
    """Errors in here say which attack on which network they are about."""
    try:
        yield
    except InputError as error:
        where = f"attacks.{attack} on {source}, {error.argument}"
        raise InputError(where, error.got, error.expected) from error


def _names(argument: str, names: Any, known: Any) -> list[str]:
    names = list(known if names is None else names)
    unknown = [name for name in names if name not in known]
    if unknown or (argument in ("sources", "targets") and not names):
        raise InputError(argument, unknown or names, f"names among {', '.join(known)}")
    return list(dict.fromkeys(names))


def _check_images(x: Tensor, y: Tensor) -> None:
    if not x.is_floating_point() or x.dim() < 2 or len(x) == 0:
        raise InputError("images", f"{x.dtype} {tuple(x.shape)}", "a batch of floats (B, C, H, W)")
    low, high = (float(bound) for bound in x.aminmax())
    if not (low >= 0 and high <= 1):  # also when NaN
        raise InputError("images", f"values from {low:.6g} to {high:.6g}", "values in [0, 1]")
    if y.dtype != torch.int64 or y.shape != (len(x),) or int(y.min()) < 0:
        raise InputError("labels", f"{y.dtype} {tuple(y.shape)}", f"int64 ({len(x)},), from 0 on")


def _title(row: _Row) -> str:
    return f"{row.name} on {row.source}"


def _flat(examples: Examples) -> tuple[Tensor, list[str]]:
    images, captions = [examples.clean], list(examples.captions)
    for title, (adversarial, said) in examples.adversarial.items():
        images.append(adversarial)
        captions += [f"{title}: {text}" for text in said]
    return torch.cat(images), captions
