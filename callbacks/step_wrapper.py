"""Callbacks around a module's ``training_step``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import lightning as L

Step = Callable[[Any], Any]
_STEP = "training_step"


class StepCallback(L.Callback):
    """A callback around every ``training_step`` of ``fit``; of several the last is outermost."""

    _hidden: dict[str, Any] | None = None  # what the wrapper hides; None: this one made no wrapper

    def around(self, trainer: Any, pl_module: L.LightningModule, step: Step, batch: Any) -> Any:
        """What ``training_step`` shall return; ``step(batch)`` runs the module's own."""
        raise NotImplementedError

    def setup(self, trainer: Any, pl_module: L.LightningModule, stage: str) -> None:
        layers = [x for x in trainer.callbacks if isinstance(x, StepCallback)]
        if stage != "fit" or layers[0] is not self:  # which wraps the step for all of them
            return
        step: Any = pl_module.training_step

        @functools.wraps(step)
        def training_step(*args: Any, **kwargs: Any) -> Any:
            def run(batch: Any) -> Any:
                return step(batch, *args[1:], **kwargs) if args else step(**{**kwargs, name: batch})

            name = next(iter(kwargs), "")
            for layer in layers:
                run = functools.partial(layer.around, trainer, pl_module, run)
            return run(args[0] if args else kwargs[name])

        # Lightning looks through one layer to see which arguments the step takes.
        training_step.__wrapped__ = getattr(step, "__wrapped__", step)
        own = pl_module.__dict__
        self._hidden = {_STEP: own[_STEP]} if _STEP in own else {}
        own[_STEP] = training_step

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.detach(pl_module)

    on_exception: Any = teardown  # Lightning calls only this one then

    def detach(self, pl_module: L.LightningModule) -> None:
        """Put the module's own step back."""
        if self._hidden is not None:
            del pl_module.__dict__[_STEP]
            pl_module.__dict__.update(self._hidden)
            self._hidden = None
