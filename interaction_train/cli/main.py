"""The command line: a thin LightningCLI.

``interaction-train fit --config digits.yaml``; a config that is no file is looked up among those
of the package. ``tune-attack`` and ``explain`` are commands of their own.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
import wandb
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_info

# Imported so that YAML can use bare class names.
import interaction_train.attacks
import interaction_train.callbacks
import interaction_train.data
import interaction_train.losses
import interaction_train.models
import interaction_train.training.baseline
import interaction_train.training.module  # noqa: F401
from interaction_train import __version__
from interaction_train.callbacks import OrderReport, RunReport
from interaction_train.callbacks.monitor import watchers
from interaction_train.cli.checkpoints import (
    RunMark,
    check_optimizer,
    check_state,
    continue_wandb,
    read_checkpoint,
)
from interaction_train.cli.commands import COMMANDS, run_command
from interaction_train.cli.configs import with_bases
from interaction_train.cli.errors import explain
from interaction_train.cli.runs import CHECKPOINTS, find_checkpoint, need_checkpoint
from interaction_train.errors import InputError, at_least, in_range
from interaction_train.tracking.provenance import command_line, versions

_SUMMARIES = {  # of a W&B run: the best value of these, beside the last one
    "train/loss": "min",
    "val/loss": "min",
    "val/acc": "max",
    "val/gap/acc": "min",
    "val/robust_acc/*": "max",
}
_USELESS = (  # warnings of Lightning
    "LeafSpec",
    "does not have many workers",
    # Configs list the monitored one first, which is the best that is meant.
    "Trainer configured with multiple `ModelCheckpoint`",
)
_LEAST = {  # of what Lightning divides by, or takes in silence
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "gradient_clip_val": 0,
    "log_every_n_steps": 0,
    "num_sanity_val_steps": -1,
}

_ARGUMENTS: dict[str, tuple[Any, Any, str]] = {
    "name": (str, "run", "Folder of the run under runs/, and its W&B name."),
    "wandb": (
        Literal["offline", "online", "disabled"],
        "offline",
        "How the default W&B logger works; offline needs no account.",
    ),
    "test_after_fit": (bool, False, "Test the best checkpoint after fit."),
    "base": (
        str | None,
        None,
        "In a config file: another one, beside it or packaged, to be read before it. Its "
        "lists are replaced, or with a key that ends in + (callbacks+) continued.",
    ),
}


class SaveConfig(SaveConfigCallback):
    """Saves the resolved configuration in the run's folder, and in its W&B run with versions."""

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                text = self.parser.dump(self.config, skip_none=False, format="json")
                run: Any = logger.experiment
                known = {"versions": versions(), "command": command_line()}
                run.config.update({"config": json.loads(text), **known}, allow_val_change=True)
                for key, best in _SUMMARIES.items():
                    step = "trainer/global_step"
                    run.define_metric(key, summary=f"{best},last", step_metric=step, step_sync=True)


class MonitorCheck(L.Callback):
    """Refuses a ``monitor`` that the sanity check has not logged, but for ``val/<callback>/…``.

    Only where nothing but this package and Lightning logs; Lightning refuses others an epoch later.
    """

    def on_sanity_check_end(self, trainer: Any, pl_module: L.LightningModule) -> None:
        logging = {type(x).__module__.split(".")[0] for x in (pl_module, *trainer.callbacks)}
        if not logging <= {"interaction_train", "lightning"}:
            return
        there = sorted(trainer.callback_metrics)
        for name, key, _ in watchers(trainer):
            if key.startswith("val") and key.count("/") < 2 and key not in there:
                near = difflib.get_close_matches(key, there) or there
                expected = f"a metric that is logged, such as {', '.join(near)}"
                raise InputError("monitor", f"{key!r} for {name}", expected)


class InteractionCLI(LightningCLI):
    """LightningCLI with a run's name, default loggers and an optional test after fit."""

    def __init__(self, args: list[str], **kwargs: Any) -> None:
        self._given = args
        super().__init__(args=args, **kwargs)

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        """The parser of a subcommand; empty, as each takes long to build, if it is not given."""
        named = self.subcommands().keys() & set(self._given)
        if not named or subcommand in named:
            return super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        self._subcommand_method_arguments[subcommand] = []
        return self.init_parser(**kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for name, (kind, default, text) in _ARGUMENTS.items():
            parser.add_argument(f"--{name}", type=kind, default=default, help=text)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        if any(arg.partition("=")[0] == "--base" for arg in args):
            raise InputError("--base", "an option", "a key of a config file; give --config twice")
        self.config = parser.parse_args(with_bases(args))
        config = self.config[self.config.subcommand]
        config["base"] = None  # what it gave is in this config
        name = Path(config["name"])
        if name.is_absolute() or ".." in name.parts or name == Path():
            expected = f"a folder below {config['trainer']['default_root_dir']}"
            raise InputError("name", repr(config["name"]), expected)

    def _parse_ckpt_path(self) -> None:
        """Resolve and read the checkpoint; the network is what the configuration says."""
        command, self._checkpoint = self.config.subcommand, None
        config = self.config[command]
        kind = config.get("ckpt_path")
        if kind in CHECKPOINTS:
            runs = Path(config["trainer"]["default_root_dir"], config["name"])
            if (command, kind) == ("fit", "last"):
                config["ckpt_path"] = find_checkpoint(runs, kind)
                if config["ckpt_path"] is None:
                    rank_zero_info(f"No run in {runs} has a last checkpoint: this one starts anew.")
            else:
                config["ckpt_path"] = need_checkpoint(runs, kind)
        if config.get("ckpt_path"):
            trusted = config.get("weights_only") is False
            self._checkpoint = read_checkpoint(config["ckpt_path"], command == "fit", trusted)

    def _set_seed(self) -> None:
        in_range("seed_everything", int(self._get(self.config, "seed_everything")), 0, 2**32 - 1)
        super()._set_seed()

    def after_instantiate_classes(self) -> None:
        if self._checkpoint is not None:
            path = self._get(self.config, "ckpt_path")
            check_state(self.model, self._checkpoint, path)
            if self.subcommand == "fit":
                check_optimizer(self.model, self._checkpoint, path)
            self._checkpoint = None  # Lightning reads it again

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        trainer = self._get(self.config_init, "trainer")
        for argument, least in _LEAST.items():
            if trainer[argument] is not None:
                at_least(f"trainer.{argument}", trainer[argument], least)
        loggers = trainer["logger"]
        if loggers is None and not trainer["fast_dev_run"]:
            loggers = kwargs["logger"] = self._default_loggers(trainer["default_root_dir"])
        if self._checkpoint is not None and self.subcommand == "fit":
            several = loggers if isinstance(loggers, list) else [loggers]
            continue_wandb(several, self._checkpoint)
        return super().instantiate_trainer(**kwargs)

    def _default_loggers(self, root: str) -> list[Logger]:
        name, mode = self._get(self.config, "name"), self._get(self.config, "wandb")
        offline = mode == "offline" or os.environ.get("WANDB_MODE", "online") != "online"
        if mode != "disabled" and not offline and not wandb.api.api_key:
            raise InputError("wandb", "'online' without an API key", "WANDB_API_KEY or wandb login")
        loggers: list[Logger] = [CSVLogger(root, name=name, flush_logs_every_n_steps=1)]
        if mode != "disabled":
            os.environ.setdefault("WANDB_SILENT", "true")
            # Seconds until an offline run's rows are on disk, where a kill leaves them.
            os.environ.setdefault("WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL", "2")
            # The mode is said to the run itself, too: what an earlier run of this process asked W&B
            # for would count otherwise.
            how: Any = {"offline": True, "mode": "offline"} if mode == "offline" else {}
            folder = os.path.join(root, name)
            loggers.append(WandbLogger(name, folder, project="interaction-train", **how))
        return loggers

    def before_fit(self) -> None:
        trainer: Any = self.trainer
        for report in (x for x in trainer.callbacks if isinstance(x, RunReport)):
            report.test_follows = self._get(self.config, "test_after_fit")

    def after_fit(self) -> None:
        if self._get(self.config, "test_after_fit"):
            fast = self._get(self.config_init, "trainer")["fast_dev_run"]
            best = None if fast else "best"
            self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=best)


def main(args: list[str] | None = None) -> None:
    """Run the command line; bad input ends with one line on stderr and exit status 2.

    Args:
        args: arguments without the program's name; default: those of the process.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # class paths of the user's own modules
    for text in _USELESS:
        warnings.filterwarnings("ignore", message=f".*{text}")
    args = sys.argv[1:] if args is None else args
    try:
        if args and args[0] in COMMANDS:
            return run_command(args[0], args[1:])
        InteractionCLI(
            args,
            model_class=L.LightningModule,
            datamodule_class=L.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveConfig,
            seed_everything_default=0,
            trainer_defaults={
                "default_root_dir": "runs",
                "callbacks": [OrderReport(), RunMark(), MonitorCheck()],
            },
            parser_kwargs={
                "version": __version__,
                "exit_on_error": False,
                "epilog": f"Also, each with --help: {', '.join(COMMANDS)}",
            },
        )
    except Exception as error:
        message = explain(error, _classes())
        if message is None:
            raise
        print(f"interaction-train: error: {message}", file=sys.stderr)
        sys.exit(2)
    finally:
        if wandb.run is not None:  # a command is a run; the next one in this process is another
            wandb.finish(exit_code=int(sys.exc_info()[0] is not None))


def _classes() -> set[type]:
    """What YAML may name bare: the package's classes, optimizers, schedulers and callbacks."""
    spaces = [m for n, m in sys.modules.items() if n.startswith("interaction_train.")]
    spaces += [torch.optim, torch.optim.lr_scheduler, L.pytorch.callbacks]
    return {v for space in spaces for v in vars(space).values() if isinstance(v, type)}
