"""Where a run comes from: versions, git commit, command line, machine."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import torch

_PACKAGES = ("torchvision", "lightning", "torchmetrics", "torchattacks", "wandb", "numpy")
_COMMIT = ["git", "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty=+changes"]


def versions() -> dict[str, str]:
    """Versions of this package, of Python and of what results may depend on.

    ``git_commit`` only in a repository, with ``+changes`` where files differ from the commit.
    """
    found = {
        "interaction-train": version("interaction-train"),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        **{name: version(name) for name in _PACKAGES},
    }
    with suppress(OSError, subprocess.SubprocessError):  # no git, or no repository
        done = subprocess.run(_COMMIT, capture_output=True, text=True, timeout=10, check=True)
        found["git_commit"] = done.stdout.strip()
    return found


def command_line() -> str:
    """The command that started this process, fit for a shell."""
    program = [Path(sys.argv[0]).name]
    if program == ["__main__.py"]:
        program = ["python", "-m", Path(sys.argv[0]).parent.name]
    return shlex.join([*program, *sys.argv[1:]])


def machine() -> dict[str, str]:
    """The machine: system, processor, accelerators."""
    found = {
        "system": platform.platform(),
        "processor": f"{platform.machine()}, {os.cpu_count()} logical cores",
    }
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        found["accelerator"] = ", ".join(names)
    return found
