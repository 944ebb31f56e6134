"""Checkpoints that the command line names: read and compared before anything runs, and resumed.

A resumed run has a folder of its own, Lightning's next version, and the report joins the two. In
W&B it is the same run: online its curves go on; offline there are two folders of one id, which
``wandb sync`` joins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import WandbLogger

from interaction_train.errors import InputError
from interaction_train.models.weights import check_entries
from interaction_train.training.module import InteractionClassifier

_RESUMING = ("epoch", "global_step", "loops", "optimizer_states", "lr_schedulers")
_RUN = "interaction_train_run"  # in a checkpoint


def read_checkpoint(path: str, resume: bool, trusted: bool = False) -> dict[str, Any] | None:
    """A checkpoint of Lightning; None for a folder of shards, which Lightning reads itself.

    To ``resume`` takes more than weights; a ``trusted`` one may hold any Python objects.
    """
    if Path(path, "meta.pt").is_file():
        return None
    if not Path(path).is_file():
        raise InputError("ckpt_path", repr(path), "a checkpoint, or 'best' or 'last'")
    try:
        state = torch.load(path, weights_only=not trusted, map_location="cpu")
    except Exception as error:  # whatever a damaged or foreign file makes the reader raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]
        raise InputError("ckpt_path", repr(path), f"a readable checkpoint ({reason})") from error
    wanted = ("state_dict", "pytorch-lightning_version", *(_RESUMING if resume else ()))
    known = state if isinstance(state, Mapping) else {}
    lacking = [key for key in wanted if key not in known]
    if lacking or not isinstance(known["state_dict"], Mapping):
        got = f"{path!r}, without {', '.join(lacking) or 'a mapping state_dict'}"
        raise InputError("ckpt_path", got, "a checkpoint of Lightning")
    return dict(known)


def check_state(module: L.LightningModule, checkpoint: Mapping[str, Any], path: str) -> None:
    """Refuse a checkpoint of another network, unless the module loads in a way of its own."""
    hooks = (type(module).configure_model, type(module).on_load_checkpoint)
    ours = all(hook.__module__.startswith(("lightning.", "interaction_train.")) for hook in hooks)
    if module.strict_loading and ours:
        check_entries("ckpt_path", path, checkpoint["state_dict"], module.state_dict())


def check_optimizer(module: L.LightningModule, checkpoint: Mapping[str, Any], path: str) -> None:
    """Refuse to go on with another kind of optimizer, which torch would load in silence."""
    if type(module).configure_optimizers is not InteractionClassifier.configure_optimizers:
        return
    made = module.configure_optimizers()
    optimizer: Any = made["optimizer"] if isinstance(made, dict) else made
    own = set(optimizer.param_groups[0]) - {"initial_lr"}
    known = set(checkpoint["optimizer_states"][0]["param_groups"][0]) - {"initial_lr"}
    if not (own <= known or known <= own):
        got = f"{path!r}, of another optimizer with {', '.join(sorted(known - own))}"
        raise InputError("ckpt_path", got, f"one of {type(optimizer).__name__}")


class RunMark(L.Callback):
    """Writes into every checkpoint which W&B run it belongs to."""

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        runs = [x._experiment for x in trainer.loggers if isinstance(x, WandbLogger)]
        if trainer.is_global_zero and runs and runs[0] is not None:
            checkpoint[_RUN] = {"wandb": runs[0].id}


def continue_wandb(loggers: Iterable[object], checkpoint: Mapping[str, Any]) -> None:
    """Let W&B loggers that have no id and no run yet go on with the run of a checkpoint."""
    known = checkpoint.get(_RUN, {}).get("wandb")
    for logger in (x for x in loggers if isinstance(x, WandbLogger)):
        if known and logger._experiment is None and logger._id in (None, known):
            logger._id = known
            logger._wandb_init |= {"id": known, "resume": "allow"}
