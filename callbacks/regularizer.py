"""The project's losses for LightningModules that know nothing of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from interaction_train.callbacks.adapter import (
    FindBatch,
    FindModel,
    Keys,
    check_keys,
    find_batch,
    find_model,
    has_forward,
)
from interaction_train.callbacks.order_report import report_orders
from interaction_train.callbacks.step_wrapper import StepWrapper
from interaction_train.errors import InputError
from interaction_train.game.layers import ForwardRecord, find_layer, record
from interaction_train.training.module import progress, warn_of_early_losses
from interaction_train.training.objective import WeightedTerm, add_terms, wanted_layers

_HOOK = "add_interaction_losses"


class InteractionRegularizer(L.Callback):
    """Adds interaction losses to the loss of any LightningModule.

    ``training_step`` is wrapped in ``setup`` and put back in ``teardown``. The loss that it
    returns, alone or under the key ``"loss"``, becomes loss + Σ factor · term; the terms run inside
    the step, so DDP, accumulation, mixed precision and compiled models work as for the module's own
    loss. The step's own forward pass is used for the terms where it runs the network once, on the
    batch's inputs as they are. Logs ``<prefix>loss/<name>``, ``<prefix>weight/<name>`` where a
    weight changes in training, and ``<prefix>loss/task``, what the module returned.

    With manual optimisation nothing can be added to a loss that the step has used already. There
    ``training_step`` calls the hook that this callback gives the module, before its backward:
    ``self.manual_backward(self.add_interaction_losses(loss, batch))``; if the first step does not,
    an error says so.

    Under ``torch.compile`` of the whole LightningModule the terms run outside the compiled step and
    make their own forward passes.

    Args:
        losses: name → loss term with its weight, warm-up and ramp.
        model: where the network is (:func:`~interaction_train.callbacks.adapter.find_model`), which
            is tried on the first batch; layers have the names that they have in it.
        batch: where inputs and int64 labels lie in a batch: two indices or keys, or a function of
            the batch. Default: the first two parts.
        log_prefix: prefix of the logged keys, another one for each of several regularizers; None
            logs nothing.

    Raises:
        InputError: no losses, a model, layer, batch or ``training_step`` that does not fit.
    """

    def __init__(
        self,
        losses: dict[str, WeightedTerm],
        model: str | FindModel | None = None,
        batch: Keys | FindBatch = (0, 1),
        log_prefix: str | None = "train/",
    ) -> None:
        if not isinstance(losses, Mapping) or not losses:
            raise InputError("losses", losses, "name → WeightedTerm, at least one")
        for name, weighted in losses.items():
            if not isinstance(weighted, WeightedTerm):
                got = f"{type(weighted).__name__} for {name!r}"
                raise InputError("losses", got, "a WeightedTerm(term, weight) around the term")
        check_keys(batch)
        self.losses, self.model, self.batch = losses, model, batch
        self.log_prefix = log_prefix
        self._layer: StepWrapper | None = None
        self._network: Any = None  # found on the first batch
        self._recorder: _Recorder | None = None
        self._first = True
        self._hook_called = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._detach()

        def around(step: Callable[[Any], Any], batch: Any) -> Any:
            return self._step(trainer, pl_module, batch, step)

        self._layer, self._first = StepWrapper(pl_module, around), True
        if not pl_module.automatic_optimization:
            self._hook_called = False
            below = pl_module.__dict__.get(_HOOK)  # another regularizer's

            def hook(loss: Tensor, batch: Any) -> Tensor:
                self._hook_called = True
                loss = loss if below is None else below(loss, batch)
                return self._add(trainer, pl_module, loss, batch)

            pl_module.__dict__[_HOOK] = hook

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._detach()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._detach()  # Lightning calls no teardown then

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if not self._first:
            return
        x, _ = self.find_batch(batch)
        tried = x if has_forward(pl_module) else None
        self._network = model = find_model(pl_module, self.model, tried)
        for weighted in self.losses.values():
            for layer in weighted.term.layers:
                find_layer(model, layer)
        warn_of_early_losses(self.losses, model)
        report_orders(self.losses, model, x)

    @property
    def state_key(self) -> str:
        return super().state_key + ("" if self.log_prefix == "train/" else f"/{self.log_prefix}")

    def state_dict(self) -> dict[str, Any]:
        state = {name: weighted.state_dict() for name, weighted in self.losses.items()}
        return {name: part for name, part in state.items() if part}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, weighted in self.losses.items():
            weighted.load_state_dict(state_dict.get(name, {}))

    def find_batch(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Inputs and labels of a batch."""
        return find_batch(batch, self.batch)

    def _detach(self) -> None:
        if self._layer is not None:
            self._layer.module.__dict__.pop(_HOOK, None)
            self._layer.detach()
            self._layer = self._network = None

    def _step(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,
        step: Callable[[Any], Any],
    ) -> Any:
        # Hooks would be traced into a compiled step, and outlive it there.
        if getattr(pl_module, "_compiler_ctx", None) is None:
            _, epoch = progress(trainer)
            model, (x, _) = self._network, self.find_batch(batch)
            self._recorder = _Recorder(model, wanted_layers(self.losses, epoch), x, self._first)
        first, self._first = self._first, False
        try:
            output = step(batch)
            if not pl_module.automatic_optimization:
                if first and not self._hook_called:
                    raise InputError(
                        "training_step",
                        "one with manual optimisation",
                        f"that it runs backward from self.{_HOOK}(loss, batch)",
                    )
                return output
            if output is None:
                return None
            if isinstance(output, Mapping):
                return {**output, "loss": self._add(trainer, pl_module, output["loss"], batch)}
            return self._add(trainer, pl_module, output, batch)
        finally:
            self._take()

    def _take(self) -> ForwardRecord:
        """What was recorded in this step, once: weights may change after it."""
        recorder, self._recorder = self._recorder, None
        return ForwardRecord() if recorder is None else recorder.take()

    def _add(
        self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor, batch: Any
    ) -> Tensor:
        forward = self._take()
        x, y = self.find_batch(batch)
        step, epoch = progress(trainer)
        total, logs = add_terms(
            self.losses, loss, self._network, x, y,
            forward=forward, step=step, epoch=epoch,
        )  # fmt: skip
        if self.log_prefix is not None:
            logs["loss/task"] = loss.detach()
            pl_module.log_dict({self.log_prefix + name: value for name, value in logs.items()})
        return total


class _Recorder:
    """Records the network's forward passes until what it saw is taken."""

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
        self.hooks.close()
        if self.warn and self.same and not any(self.same):
            rank_zero_warn(
                "training_step runs the network on something other than the batch's inputs; the "
                "losses take the batch's. If they shall take others, give batch= a function."
            )
        # After several passes nobody knows which one the record is of.
        return self.forward if self.same == [True] else ForwardRecord()
