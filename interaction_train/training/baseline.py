"""The Lightning module that learns a baseline: ``fit --config baseline_cancer.yaml``."""

from __future__ import annotations

import math
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from interaction_train.baselines.learned import LearnedBaseline
from interaction_train.baselines.measures import Measures, nothing_absent
from interaction_train.baselines.problem import (
    BaselineProblem,
    check_labels,
    gathered,
    some_of,
)
from interaction_train.baselines.shared import (
    SharedBaseline,
    described,
    deviations,
    starting_value,
)
from interaction_train.errors import InputError, at_least, in_range
from interaction_train.game.absence import Baseline
from interaction_train.game.players import Players
from interaction_train.tracking.folders import run_folder
from interaction_train.training.module import progress

FILE = "baseline.safetensors"
_MOST_SAMPLES = 4096  # that a start and the standard deviations are taken from

Payoffs = Literal["log_odds", "logit", "log_prob", "margin"]
Objectives = Literal["low_order_shapley", "low_order_marginal", "dividend_l1"]


class BaselineLearning(L.LightningModule):
    """Learns what an absent player shows, on the data module's training batches.

    The network is trained already, and stays as it is. Logs ``train/loss`` and ``val/loss``, and
    after every epoch ``train/baseline/<measure>``, the
    :class:`~interaction_train.baselines.measures.Measures` on ``samples`` training samples. At the
    end prints them, before and after, and writes ``baseline.safetensors`` into the run's folder:
    a path that stands wherever a baseline is a number. Any number of processes learns the same. A
    run that goes on from a checkpoint has the history of its own steps.

    Args:
        model: the network with its weights, for instance by
            :func:`~interaction_train.models.weights.pretrained`.
        players: this and the others are as in
            :func:`~interaction_train.baselines.learn.learn_baseline`.
        objective: what is minimised.
        payoff: what the game reads off the logits.
        start: where to start.
        lr: the first rate, in standard deviations per step; falls to 0 along a cosine.
        contexts: contexts of each order and step.
        max_shift: bound, in standard deviations.
        layer: the layer whose output is masked.
        samples: how many are measured.
        seed: of the contexts.
        chunk_size: rows at once.
        relative: whether the objective is divided by the mean |v(N) − v(∅)|.

    Raises:
        InputError: an argument out of its range, no data module, or samples that do not fit.
    """

    strict_loading = False  # the baseline's shape is known from the data, after the checkpoint
    shared: SharedBaseline

    def __init__(
        self,
        model: nn.Module,
        players: Players,
        objective: Objectives = "low_order_shapley",
        payoff: Payoffs = "log_odds",
        start: Baseline = "mean",
        lr: float = 0.03,
        contexts: int = 20,
        max_shift: float | None = None,
        layer: str | None = None,
        samples: int = 64,
        seed: int = 0,
        chunk_size: int | None = None,
        relative: bool | None = None,
    ) -> None:
        super().__init__()
        in_range("lr", lr, 0, math.inf, above=True, below=True)
        at_least("samples", samples, 1)
        self.model, self.lr, self.start, self.max_shift = model, lr, start, max_shift
        self.samples = samples
        self.problem = BaselineProblem(
            model, players, objective, payoff, contexts, layer, seed, chunk_size, relative
        )
        self.learned: LearnedBaseline | None = None
        """The result, after ``fit``."""
        self._history: list[Tensor] = []
        self._trained: list[nn.Parameter] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def setup(self, stage: str) -> None:
        data = getattr(self.trainer, "datamodule", None)
        if stage != "fit":
            raise InputError("command", stage, "fit")
        if data is None:
            raise InputError("datamodule", None, "one; with tensors, call learn_baseline")
        # Only the baseline learns; processes would exchange the gradients of all others, too.
        self._trained = [p for p in self.model.parameters() if p.requires_grad]
        for parameter in self._trained:
            parameter.requires_grad = False
        x, y = _training_samples(self.model, data.train_dataloader())
        observed = self.problem.observed(x)
        check_labels(self.model, x, y)
        first = starting_value(self.start, observed)
        self.shared = SharedBaseline(first, deviations(observed, first.shape), self.max_shift)
        self._measured = some_of(x, y, self.samples)

    def teardown(self, stage: str) -> None:
        for parameter in self._trained:
            parameter.requires_grad = True

    def measure(self, baseline: Tensor) -> Measures:
        """The measures on the samples kept for them; the same on every process."""
        x, y = (part.to(self.device) for part in self._measured)
        return self.problem.measure(x, y, baseline)

    def on_fit_start(self) -> None:
        x, y = (part.to(self.device) for part in self._measured)
        self._before = self.problem.measure_start(x, y, self.shared.start)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        step, _ = progress(self.trainer)

        def average(own: Tensor) -> Tensor:
            mean: Tensor = self.trainer.strategy.reduce(own, reduce_op="mean")
            return mean

        loss, value = self.problem.loss(*batch, self.shared(), step, average)
        self.log("train/loss", value, prog_bar=True)
        self._history.append(value)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.shared.project()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        _, value = self.problem.loss(*batch, self.shared())
        self.log("val/loss", value, sync_dist=True, prog_bar=True, batch_size=len(batch[0]))

    def on_train_epoch_end(self) -> None:
        found = vars(self.measure(self.shared().detach()))
        self.log_dict({f"train/baseline/{k}": v for k, v in found.items() if not math.isnan(v)})

    def on_train_end(self) -> None:
        value = self.shared().detach()
        after = self.measure(value)
        if warning := nothing_absent(self._before, after):
            rank_zero_warn(warning)
        settings = self.problem.settings()
        settings |= {"start": described(self.start), "lr": self.lr, "max_shift": self.max_shift}
        history = torch.stack(self._history) if self._history else value.new_zeros(0)
        self.learned = LearnedBaseline(value, history, self._before, after, settings)
        folder = run_folder(self.trainer)
        if self.trainer.is_global_zero:
            print(self.learned)
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                self.learned.save(folder / FILE)
                print(f"The baseline is in {folder / FILE}")

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam([self.shared.shift], self.lr)
        steps = self.trainer.estimated_stepping_batches
        if math.isinf(steps):  # a run without an end keeps its rate
            return optimizer
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, int(steps))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def _training_samples(model: nn.Module, loader: Any) -> tuple[Tensor, Tensor]:
    """Samples spread evenly over a loader's whole data set; random states stay as they are."""
    dataset = loader.dataset
    count = min(len(dataset), _MOST_SAMPLES)
    places = [k * len(dataset) // count for k in range(count)]
    with isolate_rng():
        batches = DataLoader(
            Subset(dataset, places), batch_size=loader.batch_size, collate_fn=loader.collate_fn
        )
        return gathered(model, batches)
