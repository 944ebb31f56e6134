"""The command line: a thin LightningCLI.

``interaction-train fit --config digits.yaml``; a config that is no file is looked up among those
of the package.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
import wandb
from jsonargparse import ArgumentError
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_info

# Imported so that YAML can use bare class names.
import interaction_train.attacks
import interaction_train.callbacks
import interaction_train.data
import interaction_train.losses
import interaction_train.models
import interaction_train.training.module  # noqa: F401
from interaction_train import __version__
from interaction_train.callbacks import OrderReport
from interaction_train.cli.errors import one_line
from interaction_train.errors import InputError
from interaction_train.tracking.provenance import command_line, versions
from interaction_train.tracking.resume import RunMark, continue_wandb

_SUMMARIES = {  # of a W&B run: the best value of these, beside the last one
    "train/loss": "min",
    "val/loss": "min",
    "val/acc": "max",
    "val/gap/acc": "min",
    "val/robust_acc/*": "max",
}


class SaveConfig(SaveConfigCallback):
    """Saves the resolved configuration in the run's folder, and in its W&B run with versions."""

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        config = json.loads(self.parser.dump(self.config, skip_none=False, format="json"))
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                run: Any = logger.experiment
                known = {"config": config, "versions": versions(), "command": command_line()}
                run.config.update(known, allow_val_change=True)
                for key, best in _SUMMARIES.items():
                    step = "trainer/global_step"
                    run.define_metric(key, summary=f"{best},last", step_metric=step, step_sync=True)


class InteractionCLI(LightningCLI):
    """LightningCLI with a run's name, default loggers and an optional test after fit."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--name",
            type=str,
            default="run",
            help="Folder of the run under runs/, and its W&B name.",
        )
        parser.add_argument(
            "--wandb",
            type=Literal["offline", "online", "disabled"],
            default="offline",
            help="How the default W&B logger works; offline needs no account.",
        )
        parser.add_argument(
            "--test_after_fit", type=bool, default=False, help="Test the best checkpoint after fit."
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(_with_packaged_configs(args or sys.argv[1:]))

    def _parse_ckpt_path(self) -> None:
        """Check the checkpoint; the network is what the configuration says, never overridden."""
        config = self.config[self.config.subcommand]
        path = config.get("ckpt_path")
        if path == "last" and self.config.subcommand == "fit":
            config["ckpt_path"] = self._last_checkpoint(config)
        elif path and path not in ("best", "last", "hpc", "registry") and not Path(path).exists():
            raise InputError("ckpt_path", repr(path), "a checkpoint, or 'best' or 'last'")

    def _last_checkpoint(self, config: Any) -> str | None:
        """The ``last.ckpt`` of the newest run of this name; None where there is none yet."""
        runs = Path(config["trainer"]["default_root_dir"], config["name"])
        found = sorted(runs.glob("*/checkpoints/last*.ckpt"), key=lambda path: path.stat().st_mtime)
        if not found:
            rank_zero_info(f"No run in {runs} has a last checkpoint: this one starts anew.")
        return str(found[-1]) if found else None

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        trainer = self._get(self.config_init, "trainer")
        loggers = trainer["logger"]
        if loggers is None and not trainer["fast_dev_run"]:
            loggers = kwargs["logger"] = self._default_loggers(trainer["default_root_dir"])
        path = self._get(self.config, "ckpt_path")
        if path and Path(path).is_file() and self.subcommand == "fit":
            several = loggers if isinstance(loggers, list) else [loggers]
            continue_wandb(several, Path(path))
        return super().instantiate_trainer(**kwargs)

    def _default_loggers(self, root: str) -> list[Logger]:
        name, mode = self._get(self.config, "name"), self._get(self.config, "wandb")
        loggers: list[Logger] = [CSVLogger(root, name=name, flush_logs_every_n_steps=1)]
        if mode != "disabled":
            os.environ.setdefault("WANDB_SILENT", "true")
            # Seconds until an offline run's rows are on disk, where a kill leaves them.
            os.environ.setdefault("WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL", "2")
            loggers.append(
                WandbLogger(
                    name=name,
                    project="interaction-train",
                    save_dir=os.path.join(root, name),
                    offline=mode == "offline",
                )
            )
        return loggers

    def after_fit(self) -> None:
        if self._get(self.config, "test_after_fit"):
            fast = self._get(self.config_init, "trainer")["fast_dev_run"]
            best = None if fast else "best"
            self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=best)


def main(args: list[str] | None = None) -> None:
    """Run the command line.

    Bad input ends with one line on stderr and exit status 2.

    Args:
        args: arguments without the program's name; default: those of the process.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # class paths of the user's own modules
    # Lightning's own, of which a user can mend nothing.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    try:
        InteractionCLI(
            L.LightningModule,
            L.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveConfig,
            seed_everything_default=0,
            trainer_defaults={"default_root_dir": "runs", "callbacks": [OrderReport(), RunMark()]},
            parser_kwargs={"version": __version__, "exit_on_error": False},
            args=args,
        )
    except (ArgumentError, ValueError) as error:
        # The parser wraps what a constructor raises; only its text tells the two apart.
        if isinstance(error, ArgumentError | InputError) or "Given value type" in str(error):
            message = one_line(str(error), _class_names())
            print(f"interaction-train: error: {message}", file=sys.stderr)
            sys.exit(2)
        raise
    finally:
        if wandb.run is not None:  # a command is a run; the next one in this process is another
            wandb.finish(exit_code=int(sys.exc_info()[0] is not None))


def _class_names() -> list[str]:
    """Names that YAML may use bare: the package's classes, optimizers and schedulers."""
    spaces = [m for n, m in sys.modules.items() if n.startswith("interaction_train.")]
    spaces += [torch.optim, torch.optim.lr_scheduler, L.pytorch.callbacks]
    return [n for space in spaces for n, v in vars(space).items() if isinstance(v, type)]


def _with_packaged_configs(args: list[str]) -> list[str]:
    """Replace the value of every ``--config`` that is no file by the packaged one of that name."""
    result = list(args)
    for i, arg in enumerate(result):
        flag, equals, value = arg.partition("=")
        if equals and flag in ("--config", "-c"):
            result[i] = f"{flag}={_config_path(value)}"
        elif i and result[i - 1] in ("--config", "-c"):
            result[i] = _config_path(arg)
    return result


def _config_path(value: str) -> str:
    packaged = files("interaction_train.configs").joinpath(Path(value).name)
    return str(packaged) if not Path(value).is_file() and packaged.is_file() else value
