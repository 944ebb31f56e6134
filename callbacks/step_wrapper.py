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
_STEP, _LAYERS = "training_step", "_interaction_train_layers"


def wrap_step(pl_module: L.LightningModule, around: Around) -> Callable[[], None]:
    """Run a function around every ``training_step`` of a module.

    Several may lie around one step, the last one outermost, and be taken off in any order.

    Args:
        pl_module: the module.
        around: ``(step, batch)`` → what the step shall return; ``step(batch)`` runs what is below.

    Returns:
        what takes the function off again.

    Raises:
        InputError: a ``training_step`` that takes ``dataloader_iter``.
    """
    step: Any = pl_module.training_step
    if is_param_in_hook_signature(step, "dataloader_iter", explicit=True):
        raise InputError(_STEP, "one that takes dataloader_iter", "one with a batch")
    own = pl_module.__dict__
    layers: list[Around]
    layers, below = getattr(step, _LAYERS, ([], None))
    if not layers:
        layers, below = [], own.get(_STEP)  # what the wrapper hides, if it is there

        @functools.wraps(step)
        def training_step(*args: Any, **kwargs: Any) -> Any:
            def run(batch: Any) -> Any:
                return step(batch, *args[1:], **kwargs) if args else step(**{**kwargs, name: batch})

            name = next(iter(kwargs), "")
            for layer in layers:
                run = functools.partial(layer, run)
            return run(args[0] if args else kwargs[name])

        # Lightning looks through one layer to see which arguments the step takes.
        training_step.__wrapped__ = getattr(step, "__wrapped__", step)
        setattr(training_step, _LAYERS, (layers, below))
        own[_STEP] = training_step
    layers.append(around)

    def detach() -> None:
        layers.remove(around)
        if not layers and getattr(own.get(_STEP), _LAYERS, (None,))[0] is layers:
            del own[_STEP]
            if below is not None:
                own[_STEP] = below

    return detach


class StepCallback(L.Callback):
    """A callback around every ``training_step`` of ``fit``."""

    _detach: Callable[[], None] | None = None

    def around(self, trainer: Any, pl_module: L.LightningModule, step: Step, batch: Any) -> Any:
        """What ``training_step`` shall return; ``step(batch)`` runs the module's own."""
        raise NotImplementedError

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            self.detach(pl_module)
            self._detach = wrap_step(pl_module, functools.partial(self.around, trainer, pl_module))

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.detach(pl_module)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.detach(pl_module)  # Lightning calls no teardown then

    def detach(self, pl_module: L.LightningModule) -> None:
        """Put the module's own step back."""
        if self._detach is not None:
            self._detach()
            self._detach = None
