"""A layer around a module's ``training_step``, put on and taken off again."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature

from interaction_train.errors import InputError

Step = Callable[[Any], Any]
Around = Callable[[Step, Any], Any]
_STEP, _LAYER = "training_step", "_interaction_train_layer"


class StepWrapper:
    """Runs a function around every ``training_step`` of a module, until it is detached.

    Several callbacks may wrap one module, and be detached in any order: a layer that is off passes
    its step through, and the last one that goes takes those below it along.

    Args:
        pl_module: the module.
        around: ``(step, batch)`` → what the step shall return; ``step(batch)`` runs what is below.

    Raises:
        InputError: a ``training_step`` that takes ``dataloader_iter``.
    """

    def __init__(self, pl_module: L.LightningModule, around: Around) -> None:
        step = pl_module.training_step
        if is_param_in_hook_signature(step, "dataloader_iter", explicit=True):
            raise InputError(_STEP, "one that takes dataloader_iter", "one with a batch")
        self.module, self.on = pl_module, True
        self.below: Any = pl_module.__dict__.get(_STEP)  # what this layer hides, if it is there

        @functools.wraps(step)
        def training_step(*args: Any, **kwargs: Any) -> Any:
            if not self.on:
                return step(*args, **kwargs)
            if args:
                return around(lambda batch: step(batch, *args[1:], **kwargs), args[0])
            name = next(iter(kwargs))
            return around(lambda batch: step(**{**kwargs, name: batch}), kwargs[name])

        # Lightning looks through one layer to see which arguments the step takes.
        training_step.__wrapped__ = getattr(step, "__wrapped__", step)
        setattr(training_step, _LAYER, self)
        pl_module.__dict__[_STEP] = training_step

    def detach(self) -> None:
        """Take this layer off; one that lies below others stays there without effect."""
        self.on = False
        own = self.module.__dict__
        while (layer := getattr(own.get(_STEP), _LAYER, None)) is not None and not layer.on:
            del own[_STEP]
            if layer.below is not None:
                own[_STEP] = layer.below


class StepCallback(L.Callback):
    """A callback around every ``training_step`` of ``fit``."""

    _layer: StepWrapper | None = None

    def around(
        self, trainer: L.Trainer, pl_module: L.LightningModule, step: Step, batch: Any
    ) -> Any:
        """What ``training_step`` shall return; ``step(batch)`` runs the module's own."""
        raise NotImplementedError

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            self.detach()
            self._layer = StepWrapper(pl_module, functools.partial(self.around, trainer, pl_module))

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.detach()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.detach()  # Lightning calls no teardown then

    def detach(self) -> None:
        """Put the module's own step back."""
        if self._layer is not None:
            self._layer.detach()
            self._layer = None
