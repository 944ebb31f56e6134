"""The project's losses for LightningModules that know nothing of them, and what they weigh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from interaction_train.callbacks.adapter import Adapter, FindBatch, Keys, Model, has_forward
from interaction_train.callbacks.samples import check_alone
from interaction_train.callbacks.step_wrapper import Step, StepCallback
from interaction_train.errors import InputError
from interaction_train.game.layers import ForwardRecord, find_layer, record
from interaction_train.losses.base import PlayerTerm
from interaction_train.training.module import InteractionClassifier, progress, warn_of_schedule
from interaction_train.training.objective import WeightedTerm, add_terms, wanted_layers

_HOOK = "add_interaction_losses"


class InteractionRegularizer(StepCallback):
    """Adds interaction losses to the loss of any LightningModule.

    ``training_step`` is wrapped while ``fit`` runs. The loss that it returns, alone or under the
    key ``"loss"``, becomes loss + Σ factor · term, so DDP, accumulation, mixed precision and
    compiled models work as for the module's own loss. The terms use the step's own forward pass
    where it runs the network once, on the batch's inputs as they are, and the LightningModule as a
    whole is not compiled. Logs ``<prefix>loss/<name>``, ``<prefix>weight/<name>`` where a weight
    changes in training, and ``<prefix>loss/task``, what the module returned.

    With manual optimisation ``training_step`` calls the hook that this callback gives the module,
    before its backward: ``self.manual_backward(self.add_interaction_losses(loss, batch))``.

    Args:
        losses: name → loss term with its weight, warm-up and ramp.
        model: where the network is (:func:`~interaction_train.callbacks.adapter.find_model`);
            layers have the names that they have in it.
        batch: where inputs and int64 labels lie in a batch: two indices or keys, or a function.
        log_prefix: prefix of the logged keys, another one for each of several regularizers; None
            logs nothing.

    Raises:
        InputError: no losses, a model, layer, batch or ``training_step`` that does not fit.
    """

    def __init__(
        self,
        losses: dict[str, WeightedTerm],
        model: Model = None,
        batch: Keys | FindBatch = (0, 1),
        log_prefix: str | None = "train/",
    ) -> None:
        if not isinstance(losses, Mapping) or not losses:
            raise InputError("losses", losses, "name → WeightedTerm, at least one")
        for name, weighted in losses.items():
            if not isinstance(weighted, WeightedTerm):
                got = f"{type(weighted).__name__} for {name!r}"
                raise InputError("losses", got, "a WeightedTerm(term, weight) around the term")
        self.losses, self.adapter = losses, Adapter(model, batch)
        self.log_prefix = log_prefix
        self._network: Any = None  # found on the first batch
        self._recorder: _Recorder | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        check_alone(trainer, self, "log_prefix", "log_prefix")
        super().setup(trainer, pl_module, stage)
        self._first, self._hook_called = True, False
        if stage == "fit" and not pl_module.automatic_optimization:
            below = pl_module.__dict__.get(_HOOK)  # another regularizer's

            def hook(loss: Tensor, batch: Any) -> Tensor:
                self._hook_called = True
                loss = loss if below is None else below(loss, batch)
                return self._add(trainer, pl_module, loss, batch)

            pl_module.__dict__[_HOOK] = hook

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if not self._first:
            return
        x, _ = self.adapter.read(batch)
        tried = x if has_forward(pl_module) else None
        self._network = model = self.adapter.network(pl_module, tried)
        for weighted in self.losses.values():
            for layer in weighted.term.layers:
                find_layer(model, layer)
        warn_of_schedule(self.losses, model, trainer)
        _report_orders(self.losses, model, x)

    @property
    def state_key(self) -> str:
        return super().state_key + ("" if self.log_prefix == "train/" else f"/{self.log_prefix}")

    # Not by state_dict, for which Lightning refuses two of one key before setup says why.
    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        states = {name: weighted.state_dict() for name, weighted in self.losses.items()}
        if any(states.values()):
            checkpoint["callbacks"][self.state_key] = states

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        states = checkpoint["callbacks"].get(self.state_key, {})
        for name, weighted in self.losses.items():
            weighted.load_state_dict(states.get(name, {}))

    def detach(self, pl_module: L.LightningModule) -> None:
        pl_module.__dict__.pop(_HOOK, None)
        self._network = None
        super().detach(pl_module)

    def around(self, trainer: Any, pl_module: L.LightningModule, step: Step, batch: Any) -> Any:
        # Hooks would be traced into a compiled step, and outlive it there.
        if getattr(pl_module, "_compiler_ctx", None) is None:
            _, epoch = progress(trainer)
            model, (x, _) = self._network, self.adapter.read(batch)
            self._recorder = _Recorder(model, wanted_layers(self.losses, epoch), x, self._first)
        first, self._first = self._first, False
        try:
            output = step(batch)
            if not pl_module.automatic_optimization:
                if first and not self._hook_called:
                    expected = f"that it runs backward from self.{_HOOK}(loss, batch)"
                    raise InputError("training_step", "one with manual optimisation", expected)
                return output
            if isinstance(output, Mapping):
                return {**output, "loss": self._add(trainer, pl_module, output["loss"], batch)}
            return None if output is None else self._add(trainer, pl_module, output, batch)
        finally:
            if self._recorder is not None:
                self._recorder.take()
                self._recorder = None

    def _add(self, trainer: Any, pl_module: L.LightningModule, loss: Tensor, batch: Any) -> Tensor:
        forward = ForwardRecord() if self._recorder is None else self._recorder.take()
        x, y = self.adapter.read(batch)
        step, epoch = progress(trainer)
        total, logs = add_terms(
            self.losses, loss, self._network, x, y, forward=forward, step=step, epoch=epoch
        )
        if self.log_prefix is not None:
            logs["loss/task"] = loss.detach()
            pl_module.log_dict({self.log_prefix + name: value for name, value in logs.items()})
        return total


class OrderReport(L.Callback):
    """Tells which orders the losses of an ``InteractionClassifier`` weigh, at the first batch.

    (``InteractionRegularizer`` does it by itself.)
    """

    _done = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._done = False

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if not self._done and isinstance(pl_module, InteractionClassifier):
            self._done = True
            _report_orders(pl_module.losses, pl_module.model, batch[0])


def _report_orders(losses: Mapping[str, WeightedTerm], model: nn.Module, x: Tensor) -> None:
    """Tell, on the first process, which orders each loss with players weighs on inputs ``x``."""
    for name, weighted in losses.items():
        if isinstance(term := weighted.term, PlayerTerm):
            n = term.count(model, x)
            where = "cells of the input" if term.layer is None else f"units of {term.layer}"
            told = f"Loss {name!r} ({type(term).__name__}, {n} {where}): {term.told_orders(n)}"
            rank_zero_info(told)


class _Recorder:
    """Records the network's forward passes until the record is taken."""

    def __init__(self, model: nn.Module, layers: Sequence[str], x: Tensor, warn: bool) -> None:
        self.x, self.warn = x, warn
        self.same: list[bool] = []  # per forward pass, whether its input was x itself
        self.hooks = ExitStack()
        self.forward = self.hooks.enter_context(record(model, layers))
        handle = model.register_forward_hook(self._note, with_kwargs=True)
        self.hooks.callback(handle.remove)

    def _note(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        self.same.append(next(iter((*args, *kwargs.values())), None) is self.x)
        # An in-place operation may follow.
        self.forward.logits = output.clone() if isinstance(output, Tensor) else None

    def take(self) -> ForwardRecord:
        """The record, once: weights may change after it."""
        self.hooks.close()
        same, self.same = self.same, []
        if self.warn and same and not any(same):
            rank_zero_warn(
                "training_step runs the network on something other than the batch's inputs; the "
                "losses take the batch's. If they shall take others, give batch= a function."
            )
        # After several passes nobody knows which one the record is of.
        return self.forward if same == [True] else ForwardRecord()
