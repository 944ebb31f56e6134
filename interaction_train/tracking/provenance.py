"""Where a run comes from: versions, git commit, command line, machine."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_PACKAGES = ("torchvision", "lightning", "torchmetrics", "torchattacks", "wandb", "numpy")


def versions() -> dict[str, str]:
    """Versions of this package, of Python and of what results may depend on.

    Returns:
        name → version; ``git_commit`` only in a repository, with ``+changes`` where files differ
        from the commit.
    """
    found = {
        "interaction-train": _version("interaction-train"),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }
    found |= {name: _version(name) for name in _PACKAGES}
    commit = git_commit(Path.cwd())
    return found | ({"git_commit": commit} if commit else {})


def git_commit(folder: Path) -> str | None:
    """The commit that a folder's repository is at; None where there is none, or no git."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    return commit + ("+changes" if _git(folder, "status", "--porcelain", "-uno") else "")


def command_line() -> str:
    """The command that started this process, fit for a shell."""
    program = Path(sys.argv[0]).name
    if program == "__main__.py":  # python -m package
        program = f"python -m {Path(sys.argv[0]).parent.name}"
        return " ".join([program, *map(shlex.quote, sys.argv[1:])])
    return shlex.join([program, *sys.argv[1:]])


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


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _git(folder: Path, *args: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *args],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
