"""Configurations of training, as ``explain`` takes them: the network and the data in them."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from interaction_train.cli.configs import CONFIG, read_config, with_bases
from interaction_train.errors import InputError

CHECKPOINTS = ("best", "last")


def find_checkpoint(runs: Path, kind: str) -> str | None:
    """The newest checkpoint of a kind, ``best`` or ``last``, of the runs in a folder."""
    found = sorted(runs.glob(f"*/checkpoints/{kind}*.ckpt"), key=os.path.getmtime)
    return str(found[-1]) if found else None


def need_checkpoint(runs: Path, kind: str) -> str:
    """The same.

    Raises:
        InputError: there is none.
    """
    found = find_checkpoint(runs, kind)
    if found is None:
        expected = f"a file, or a run in {runs} that has such a checkpoint"
        raise InputError("ckpt_path", repr(kind), expected)
    return found


def without_training(args: list[str], known: Collection[str]) -> tuple[list[str], Path | None]:
    """Arguments whose config files are of another command, and the folder of the runs they name.

    If a config is one of training, with a ``trainer``, all of them are read so: ``model`` is the
    network in its ``model.init_args.model``, and what is not known is left out. The folder is None
    where there is no such config.

    Args:
        args: the command's arguments.
        known: names of those that it takes.

    Raises:
        InputError: a config that is none, or whose module has no ``model``.
    """
    args = with_bases(args)
    at = [k for k, arg in enumerate(args) if arg.startswith(CONFIG)]
    contents = [read_config(Path(args[k].removeprefix(CONFIG))) for k in at]
    if not any("trainer" in content for content in contents):
        return args, None
    name, root = "run", "runs"
    for k, content in zip(at, contents, strict=True):
        name = content.get("name") or name
        root = (content.get("trainer") or {}).get("default_root_dir") or root
        own = {key: value for key, value in content.items() if key in known and value is not None}
        if "model" in own:
            own["model"] = _network(own["model"], args[k])
        kept = {key: value for key, value in own.items() if value is not None}
        args[k] = CONFIG + yaml.safe_dump(kept, sort_keys=False)
    return args, Path(root, name)


def _network(module: Any, config: str) -> Any:
    """The network within a module's configuration; None where this says nothing of it."""
    given = module.get("init_args", {}) if isinstance(module, dict) else {}
    if "model" not in given and "class_path" in module:
        got = f"{config.removeprefix(CONFIG)!r}, whose module has no argument 'model'"
        raise InputError("--config", got, "one that says what the network is")
    return given.get("model")
