"""Commands beside Lightning's: the arguments of one function as options and as YAML."""

from __future__ import annotations

import sys
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from torchvision.models import WeightsEnum

from interaction_train import __version__
from interaction_train.attacks.tuning.job import tune_attack
from interaction_train.cli.runs import CHECKPOINTS, need_checkpoint, without_training
from interaction_train.explaining.job import explain_samples

COMMANDS: dict[str, tuple[Callable[..., Any], str]] = {
    "tune-attack": (
        tune_attack,
        "Search parts and settings of an attack for your own networks and images.",
    ),
    "explain": (
        explain_samples,
        "Figures, tables and a graph of concepts that explain what a network says about samples.",
    ),
}
"""Name → the function that does it, and what it does."""


def run_command(name: str, args: list[str]) -> None:
    """Run one of :data:`COMMANDS` with the arguments after its name."""
    job, description = COMMANDS[name]
    parser = ArgumentParser(
        prog=f"interaction-train {name}",
        description=description,
        version=__version__,
        exit_on_error=False,
    )
    parser.add_argument("--config", action="config", help="A YAML file, or a packaged one's name.")
    parser.add_argument("--base", type=str | None, default=None, help="As in other configs.")
    parser.add_function_arguments(job, sub_configs=True)
    for action in parser._actions:
        if hasattr(action, "extra_help"):  # hundreds of subclasses of Module; see --model.help
            action.extra_help = str
    args, runs = without_training(args, signature(job).parameters)
    config = parser.parse_args(args)
    if runs is not None:
        _take_checkpoint(config, runs)
    if job is explain_samples and config.preset is None:
        config.preset = _torchvision_weights(config)
    made = parser.instantiate(config)
    job(**{key: value for key, value in made.items() if key not in ("config", "base")})


def _take_checkpoint(config: Namespace, runs: Path) -> None:
    """``best`` and ``last`` are those of the runs whose configuration was given."""
    if config.ckpt_path in CHECKPOINTS:
        config.ckpt_path = need_checkpoint(runs, config.ckpt_path)
    elif config.ckpt_path is None:
        told = f"no ckpt_path, such as 'best' of {runs}: the network is as its configuration makes"
        print(f"interaction-train: {told} it", file=sys.stderr)


def _torchvision_weights(config: Namespace) -> str | None:
    """The weights of torchvision that a model in the configuration is made with."""
    found = (value for value in config.values() if isinstance(value, WeightsEnum))
    return next(map(str, found), None)
