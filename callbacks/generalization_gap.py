"""How a network does on training samples against samples that it has never seen."""

from __future__ import annotations

import copy
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from interaction_train.callbacks.monitor import Monitor, Result, Split
from interaction_train.callbacks.samples import (
    first_loader,
    gather,
    is_fast,
    population,
    shard,
    spread,
)
from interaction_train.errors import at_least, in_range
from interaction_train.game.absence import Baseline
from interaction_train.game.evaluation import eval_logits
from interaction_train.game.players import GridPlayers
from interaction_train.metrics import InteractionStrength
from interaction_train.sampling.pairs import PairSampler, RandomPairs

_BATCH, _MEASURED = 64, 4  # samples together, for loss and strength; no result depends on it


class GeneralizationGap(Monitor):
    """Loss, accuracy and interaction strength on training samples against validation samples.

    In ``fit`` alone, on fixed subsets of one size of the training and the (first) validation set,
    in eval mode with the present weights. Training samples come without augmentation from this
    package's data modules; others that change at random are warned of.

    Logs ``val/gap/train_acc``, ``val/gap/val_acc``, ``val/gap/train_loss``, ``val/gap/val_loss``
    (cross entropy) and, positive where the network has overfitted, ``val/gap/acc`` (training −
    validation) and ``val/gap/loss`` (validation − training). With ``strength_samples`` the
    interaction strength too (:class:`~interaction_train.metrics.InteractionStrength`, plug-in):
    ``val/gap/train_strength``, ``val/gap/val_strength``, each with ``_stderr``, and
    ``val/gap/strength`` (validation − training).

    Args:
        n_samples: number of samples of each set, over all processes.
        every: k, how often; the first validation is one of them.
        strength_samples: how many of each are measured for the strength; 0 leaves it out.
        rows: rows of the grid of players.
        cols: columns of it.
        contexts: contexts per pair, at least 2.
        pairs: which pairs; default: the 120 of 16 random cells.
        baseline: of absent cells, a number, one per channel, or the file of a learned baseline;
            default: the mean in ``Normalize``.
        seed: seed of the draws.
        chunk_size: rows sent through the network at once; default: the fastest, timed once.
        common: the other arguments of :class:`~interaction_train.callbacks.monitor.Monitor`.

    Raises:
        InputError: an argument out of its range, or a training loader without a data set.
    """

    keys_begin, stages = ("gap",), ("fit",)

    def __init__(
        self,
        n_samples: int = 512,
        every: int = 20,
        strength_samples: int = 16,
        rows: int = 16,
        cols: int = 16,
        contexts: int = 4,
        pairs: PairSampler | None = None,
        baseline: Baseline | None = None,
        seed: int = 0,
        chunk_size: int | None = None,
        **common: Any,
    ) -> None:
        super().__init__(every, **common)
        at_least("n_samples", n_samples, 1)
        in_range("strength_samples", strength_samples, 0, n_samples)
        self.n_samples, self.strength_samples = n_samples, strength_samples
        self.metric = InteractionStrength(
            GridPlayers(rows, cols),
            pairs=RandomPairs(blocks=1) if pairs is None else pairs,
            contexts=contexts,
            baseline=baseline,
            only_correct=False,  # the same images on both sides, whatever the network makes of them
            seed=seed,
            chunk_size=chunk_size,
        )
        self._warned = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        if self.strength_samples:
            self.require_baseline(self.metric.baseline, pl_module)

    def measure(self, trainer: L.Trainer, loader: Any) -> Result:
        train = first_loader(trainer.train_dataloader)
        self._warn_of_augmentation(trainer, train)
        wanted = 2 if is_fast(trainer) else self.n_samples
        count = min(wanted, len(population(train)), len(population(loader)))
        network = self.network(trainer, loader)
        result: Result = {"samples": count}
        for part, source in (("train", train), ("val", loader)):
            places = spread(population(source), count)
            found = []
            for block in shard(places, trainer, _BATCH):
                x, y = self.samples(trainer, source, block)
                logits = eval_logits(network, x).float()
                loss = F.cross_entropy(logits, y, reduction="none")
                own = torch.tensor(block).to(loss), loss, (logits.argmax(-1) == y).float()
                found.append(torch.stack(own, 1))
            _, mean, right = gather(found, 3, trainer).mean(0).tolist()
            result |= {f"{part}_acc": right, f"{part}_loss": mean}
            if self.strength_samples:
                result |= self._strength(trainer, source, network, places, part)
        return result

    def keys(self, split: Split, result: Result) -> dict[str, float]:
        keys = {key: value for key, value in result.items() if key != "samples"}
        keys["acc"] = result["train_acc"] - result["val_acc"]
        keys["loss"] = result["val_loss"] - result["train_loss"]
        if self.strength_samples:
            keys["strength"] = result["val_strength"] - result["train_strength"]
        return {f"{split}/gap/{key}": value for key, value in keys.items()}

    def _strength(
        self, trainer: L.Trainer, loader: Any, network: nn.Module, places: list[int], part: str
    ) -> dict[str, float]:
        metric = copy.deepcopy(self.metric).to(trainer.strategy.root_device)
        count = self.strength_samples
        if is_fast(trainer):
            count, metric.contexts, metric.chunk_size = 1, 2, 64
        for block in shard(spread(places, count), trainer, _MEASURED):
            metric.update(network, *self.samples(trainer, loader, block))
        found = metric.compute()
        return {
            f"{part}_strength": float(found["strength_plug_in"]),
            f"{part}_strength_stderr": float(found["strength_plug_in_stderr"]),
        }

    def _warn_of_augmentation(self, trainer: L.Trainer, loader: Any) -> None:
        if self._warned:
            return
        self._warned, looks = True, list[Tensor]()
        for seed in (0, 1):
            with isolate_rng():
                torch.default_generator.manual_seed(seed)
                looks += self.samples(trainer, loader, spread(population(loader), 4))
        if not torch.equal(looks[0], looks[2]):
            rank_zero_warn(
                "The training data set changes its samples at random, so the generalization gap "
                "compares augmented training samples with validation samples."
            )
