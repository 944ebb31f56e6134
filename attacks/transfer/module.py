"""Evaluating transfer as a job: ``interaction-train test --config transfer_digits.yaml``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from interaction_train.attacks.jobs import (
    Targets,
    check_factory,
    check_targets,
    checked_batch,
    class_logits,
    make_attack,
    refuse_normalization,
)
from interaction_train.attacks.run import AttackFactory, counted_passes, run_attack
from interaction_train.attacks.sets.dataset import read_adversarial_set
from interaction_train.attacks.transfer.rates import (
    Outcome,
    TransferCell,
    TransferRate,
    transfer_cells,
)
from interaction_train.attacks.transfer.report import Line, print_transfer, report_transfer
from interaction_train.errors import (
    InputError,
    checked_classes,
    checked_images,
    checked_labels,
    whole,
)
from interaction_train.models import weights_tag
from interaction_train.sampling.random import sample_hash
from interaction_train.tracking.folders import run_folder

_SET_BATCH = 128  # images of a set predicted at once


class _Row(NamedTuple):
    """An attack on a source, and its outcomes so far."""

    source: str
    name: str
    eps: float | None
    attack: Any
    rate: TransferRate


class TransferEvaluation(L.LightningModule):
    """Attacks source networks and measures at target networks how often they are fooled.

    For the ``test`` of a Trainer, with batches of images ``(B, C, H, W)`` in [0, 1] and labels
    ``(B,)``. Writes ``transfer.csv``, ``.json``, ``.png``, ``transfer_eps.png`` (with several ε)
    and ``examples.png``, prints a table, and sends table and pictures to the loggers, with the
    scalars ``test/acc/<target>`` and ``test/transfer/<source>/<attack>/<target>`` (of several ε,
    ``…/<ε>``): the success rate on images that the target classifies correctly when clean or, of a
    targeted attack, how often it sees the class aimed at. Then ``cells`` holds the matrix.

    Args:
        networks: name → network, values in [0, 1] → logits; all with the same classes.
        attacks: name → network → attack; ours, or any of ``torchattacks``.
        sources: names of the networks that are attacked; default: all.
        targets: names of the networks that are to be fooled; default: all.
        leave_out: attack → sources that it is not run on.
        adversarial_sets: name → what :func:`read_adversarial_set` reads.
        epsilons: bounds to run every attack with, step sizes in proportion; default: its own.
        steps: number of steps to run every attack with; default: its own.
        best_step: report success at the best step too, chosen for every image on all the others,
            for attacks that have ``on_step``; keeps all steps of a batch in memory.
        target_classes: classes that every attack aims at
            (:data:`~interaction_train.attacks.jobs.Targets`); default: as it is made.
        first_batch: leave out each process' batches before this one (from 0), on which settings
            can be chosen with the Trainer's ``limit_test_batches``.
        examples: number of images to show, of the first batch and each source's last attack.
        folder: where the files go, in place of an earlier evaluation's; default: the logger's
            folder, or without a logger a new ``results_<k>`` in ``default_root_dir``.
        seed: seed of random targets, and of attacks that draw from the global random states.

    Raises:
        InputError: nothing to measure, or settings, batches, logits or targets that do not fit.
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
        target_classes: Targets | None = None,
        first_batch: int = 0,
        examples: int = 4,
        folder: str | Path | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.attacks = attacks = {} if attacks is None else attacks
        self.adversarial_sets = adversarial_sets = adversarial_sets or {}
        for argument, found, kind in (
            ("networks", networks, "network"),
            ("attacks", attacks, "function, network → attack"),
            ("adversarial_sets", adversarial_sets, "path"),
        ):
            if not isinstance(found, Mapping):
                raise InputError(argument, f"a {type(found).__name__}", f"a mapping, name → {kind}")
        for name, factory in attacks.items():
            check_factory(f"attacks.{name}", factory)
        if not networks or not (attacks or adversarial_sets):
            got = f"{len(networks)} networks, no attack and no adversarial set"
            raise InputError("networks, attacks", got, "a network, and an attack or a set")
        for name, network in networks.items():
            if not isinstance(network, nn.Module):
                raise InputError(f"networks.{name}", type(network).__name__, "a torch.nn.Module")
            if not name or "." in name or "/" in name or hasattr(nn.ModuleDict, name):
                raise InputError("networks", f"the name {name!r}", "a name without '.' and '/'")
        self.sources = _names("sources", sources, networks)
        self.targets = _names("targets", targets, networks)
        without = {
            name: _names("leave_out", these, networks) for name, these in (leave_out or {}).items()
        }
        _names("leave_out", list(without), attacks)
        pairs = ((source, name) for source in self.sources for name in attacks)
        self._pairs = [pair for pair in pairs if pair[0] not in without.get(pair[1], [])]
        if not self._pairs and not adversarial_sets:
            raise InputError("leave_out", "every attack on every source", "something to measure")
        bounds = epsilons if isinstance(epsilons, list) else []
        good = all(isinstance(bound, float | int) and 0 < bound < 1 for bound in bounds)
        if epsilons is not None and not (bounds and good):
            raise InputError("epsilons", epsilons, "a list of numbers between 0 and 1")
        check_targets("target_classes", target_classes)
        whole("steps", 1 if steps is None else steps, 1)
        whole("first_batch", first_batch, 0)
        whole("examples", examples, 0)
        self.networks = nn.ModuleDict(networks)
        self.epsilons, self.steps, self.best_step = epsilons, steps, best_step
        self.target_classes, self.first_batch = target_classes, first_batch
        self.examples, self.seed = examples, seed
        self.folder = None if folder is None else Path(folder)
        self.cells: list[TransferCell] = []
        self._lines: list[Line] = []
        self._classes = 0

    def on_test_start(self) -> None:
        batches = self.trainer.num_test_batches[0]
        if self.first_batch >= batches:
            raise InputError("first_batch", self.first_batch, f"less than the {batches} batches")
        for path in self.adversarial_sets.values():  # now, not after hours of crafting
            read_adversarial_set(path)
        # Attacks are built here: they take their device from the network, which is on it now.
        self._examples: dict[str, tuple[Tensor, list[str]]] = {}
        bounds: Sequence[float | None] = self.epsilons or [None]
        self._rows = [self._row(*pair, eps) for pair in self._pairs for eps in bounds]
        self._judges = {name: self.networks[name] for name in self.targets}

    def _row(self, source: str, name: str, eps: float | None) -> _Row:
        made = self.attacks[name], self.networks[source], eps, self.target_classes, self.seed
        with _named(name, source):
            attack = make_attack(*made, self.steps)
            refuse_normalization(attack)
        steps = int(attack.steps) if self.best_step and hasattr(attack, "on_step") else 0
        bound = getattr(attack, "eps", None) if eps is None else eps  # wrappers have none
        rate = TransferRate(len(self.targets), steps).to(self.device)
        return _Row(source, name, bound, attack, rate)

    def _predict(self, x: Tensor) -> Tensor:
        """Images ``(B, ...)`` → the classes that the T targets predict, ``(B, T)`` int64."""
        nets = self._judges.items()
        found = [class_logits(net, x, f"networks.{name}").argmax(1) for name, net in nets]
        return torch.stack(found, 1)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        if batch_idx < self.first_batch:
            return
        x, y = checked_batch(batch)
        if batch_idx == self.first_batch:
            widths = {
                name: class_logits(self.networks[name], x, f"networks.{name}").shape[1]
                for name in dict.fromkeys([*self.sources, *self.targets])
            }
            self._classes, *others = set(widths.values())
            if others:
                found = ", ".join(f"{name} with {count}" for name, count in widths.items())
                raise InputError("networks", found, "networks with the same number of classes")
        checked_classes(y, self._classes, "networks")
        content, right = sample_hash(x, y), self._predict(x) == y.unsqueeze(1)
        shown: dict[str, tuple[str, Tensor]] = {}
        for row in self._rows:
            adversarial, outcome = self._craft(row, x, y)
            row.rate.update(content, outcome._replace(right=right))
            shown[row.source] = f"{row.name} on {row.source}", adversarial[: self.examples]
        if batch_idx == self.first_batch and self.examples and shown:
            if x.dim() != 4 or x.shape[1] not in (1, 3):
                rank_zero_warn(f"examples: no pictures of shape {tuple(x.shape[1:])} are shown")
                return
            labels = [f"label {label}" for label in y[: self.examples].tolist()]
            self._examples[""] = x[: self.examples].cpu(), labels
            for title, images in shown.values():
                said = [
                    ", ".join(map("{} {}".format, self.targets, row))
                    for row in self._predict(images).tolist()
                ]
                self._examples[title] = images.cpu(), said

    def _craft(self, row: _Row, x: Tensor, y: Tensor) -> tuple[Tensor, Outcome]:
        at_step: list[Tensor] = []
        if row.rate.steps:
            row.attack.on_step = lambda number, images: at_step.append(images.clone())
        with _named(row.name, row.source), counted_passes(self.networks[row.source]) as passes:
            adversarial, aims = run_attack(row.attack, x, y, seed=self.seed)
        if row.rate.steps:
            row.attack.on_step = None
        adversarial = checked_images(adversarial, f"attacks.{row.name}, its images")
        steps = [self._outcome(images, y, aims) for images in at_step]
        success = [step.fooled if step.hit is None else step.hit for step in steps]
        return adversarial, self._outcome(adversarial, y, aims)._replace(
            at_step=torch.stack(success, 1) if success else None,
            size=(adversarial.float() - x.float()).abs().flatten(1).amax(1),
            forwards=passes["forwards"] / len(x),
            backwards=passes["backwards"] / len(x),
        )

    def _outcome(self, x: Tensor, y: Tensor, aims: Tensor | None) -> Outcome:
        """How the targets take adversarial examples."""
        seen = self._predict(x)
        hit = None if aims is None else seen == aims.to(y).unsqueeze(1)
        return Outcome(seen != y.unsqueeze(1), hit=hit)

    def on_test_epoch_end(self) -> None:
        lines = [self._line(row) for row in self._rows]
        lines += [self._set_line(name, path) for name, path in self.adversarial_sets.items()]
        self._lines, self.cells = lines, [cell for line in lines for cell in line]
        root = Path(self.trainer.default_root_dir)  # of a relative folder
        folder = run_folder(self.trainer) if self.folder is None else root / self.folder
        if self.trainer.is_global_zero:
            said = ("targets", "target_classes", "first_batch", "seed")
            about = {name: getattr(self, name) for name in said}
            if folder is not None:
                rank_zero_info(f"transfer results are in {folder}")
            report_transfer(self.trainer, folder, lines, self._examples, about)

    def on_test_end(self) -> None:
        # Printed here, when the progress bar is gone.
        if self.trainer.is_global_zero:
            print_transfer(self._lines)
        self._rows = []

    def _line(self, row: _Row) -> Line:
        parts = set(self.networks[row.source].modules())
        white = [network in parts for network in self._judges.values()]
        about = {"source": row.source, "attack": row.name, "eps": row.eps}
        about["is_targeted"] = bool(row.attack.targeted)
        return transfer_cells(row.rate.compute(), self.targets, white, **about)

    def _set_line(self, name: str, path: str) -> Line:
        """A set's row; every process measures its share of the set."""
        found, where = read_adversarial_set(path), f"adversarial_sets.{name}"
        rate = TransferRate(len(self.targets)).to(self.device)
        images, clean, targets = found.images, found.clean, found.targets
        # As the networks' weights are, which half precision converts.
        weights = (p.dtype for net in self._judges.values() for p in net.parameters())
        dtype, share = next(weights, torch.float32), torch.arange(len(found))
        for piece in share[self.global_rank :: self.trainer.world_size].split(_SET_BATCH):
            if not len(piece):
                continue
            y = checked_labels(found.labels[piece], len(piece), f"{where}, labels").to(self.device)
            checked_classes(y, self._classes, f"{where}, labels")
            known = x = checked_images(images[piece].to(self.device, dtype), f"{where}, images")
            outcome = self._outcome(x, y, None if targets is None else targets[piece])
            if clean is not None:
                pixels = clean[piece].to(self.device, dtype)
                known = checked_images(pixels, f"{where}, clean images")
                right = self._predict(known) == y.unsqueeze(1)
                size = (x - known).abs().flatten(1).amax(1)
                outcome = outcome._replace(right=right, size=size)
            rate.update(sample_hash(known, y), outcome)
        job = found.manifest.get("job", {})
        surrogate = job.get("surrogate", {}).get("weights")
        white = [weights_tag(network) == surrogate for network in self._judges.values()]
        about = {"source": None, "attack": name, "eps": job.get("eps")}
        about["is_targeted"] = targets is not None
        return transfer_cells(rate.compute(), self.targets, white, **about)


@contextmanager
def _named(attack: str, source: str) -> Iterator[None]:
    """Errors in here say which attack on which network they are about."""
    try:
        yield
    except InputError as error:
        where = f"attacks.{attack} on {source}, {error.argument}"
        raise InputError(where, error.got, error.expected) from error


def _names(argument: str, names: Any, known: Any) -> list[str]:
    names = list(known) if names is None else names
    if not isinstance(names, list | tuple):
        raise InputError(argument, repr(names), f"a list of names among {', '.join(known)}")
    unknown = [name for name in names if name not in known]
    if unknown or (argument in ("sources", "targets") and not names):
        raise InputError(argument, unknown or list(names), f"names among {', '.join(known)}")
    return list(dict.fromkeys(names))
