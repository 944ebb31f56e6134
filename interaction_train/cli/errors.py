"""One line out of what the parser, Lightning and the file system raise at bad input.

What is bad input is decided by the type of an exception and the module that raised it, over its
whole chain of causes. Whatever passed through code of the user's own keeps its traceback.
"""

from __future__ import annotations

import difflib
import errno
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from inspect import isabstract
from urllib.error import URLError

import wandb
from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException

from interaction_train.errors import InputError

_OURS = "interaction_train"
_LIBRARIES = {
    *sys.stdlib_module_names, "PIL", "fsspec", "jinja2", "jsonargparse", "lightning",
    "lightning_utilities", "matplotlib", "numpy", "pandas", "rich", "safetensors", "scipy",
    "sklearn", "tensorboard", "torch", "torchattacks", "torchmetrics", "torchvision", "tqdm",
    "wandb", "yaml",
}  # fmt: skip
_REFUSING = ("jsonargparse.", "lightning.", "torch.optim.", "torchmetrics.")
_REFUSALS = (ValueError, TypeError, RuntimeError, ImportError, ZeroDivisionError)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_UNKNOWN_CLASS = re.compile(r"Expected a dot import path string\W+([\w.]+)")
_KIND = re.compile(r"Subtypes: \[(?:<class '|list\[|typing\.Callable\[.*\], )([\w.]+)\.(\w+)")
_OTHER_CLASS = re.compile(r"Import path (?:(\S+) )?does not (?:correspond to|implement) (.+)")
_PATH = re.compile(r"Expected a path but (\S+)")
_PREFIX = re.compile(r'^(Type typing.*? callable class: *)?(Parser key "[^"]+":\s*)?')
_FRAME = re.compile(
    r"Does not validate against|Subtypes:|Errors:|Given value|Expected a <class 'NoneType'>"
    r"|Problem with given class_path|Parser key|Not a valid subclass|Subclass types expect"
    r"|a class path \(|a dict with|$"
)


def explain(error: BaseException, classes: Iterable[type]) -> str | None:
    """One line on bad input; None for anything that has to keep its traceback."""
    text, modules, packages = _join(str(error)), list(_modules(error)), set[str]()
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return _join(str(cause))
        packages.update(name.split(".")[0] for name in _modules(cause))
        cause = cause.__cause__
    if packages - _LIBRARIES - {_OURS, ""}:
        return None
    raised = modules[-1] if modules else ""
    if isinstance(error, ArgumentError) or raised.startswith("jsonargparse."):
        return one_line(str(error), classes)
    if isinstance(error, URLError):
        return f"weights or data could not be downloaded ({error.reason})"
    if isinstance(error, OSError) and (error.filename or error.errno in _FULL):
        where = error.filename or "the run's folder"
        return _join(f"{where}: {error.strerror or text}")
    if isinstance(error, MisconfigurationException | wandb.Error):
        return text
    if not isinstance(error, _REFUSALS) or not raised.startswith(_REFUSING):
        return None
    return f"{raised}: {text}" if isinstance(error, ZeroDivisionError) else text


def one_line(report: str, classes: Iterable[type]) -> str:
    """The part of jsonargparse's report, which may nest others, that says what is wrong where."""
    lines = [line.strip().removeprefix("- ") for line in report.splitlines()]
    keys = dict.fromkeys(re.findall(r'Parser key "([^"]+)"', report))
    where = ".".join(keys)
    if unknown := _UNKNOWN_CLASS.search(report):
        near = _nearest(unknown[1].split(".")[-1], report[: unknown.start()], classes)
        hint = f", such as {', '.join(near)}" if near else ""
        return f"{where}: got {unknown[1]!r}, expected the name or path of a class{hint}"
    other, path = _OTHER_CLASS.search(report), _PATH.search(report)
    if other:
        hint = ", or a function annotated to return one" if "a subclass of" in other[2] else ""
        return f"{where}: got {other[1] or (path and path[1])!r}, expected {other[2]}{hint}"
    if given := re.findall(r"Problem with given class_path '([^']+)'", report):
        where += f" ({given[-1].split('.')[-1]})"
    said = [_PREFIX.sub("", line).partition(". Got value: Namespace(")[0] for line in lines]
    said = list(dict.fromkeys(line for line in said if not _FRAME.match(line)))
    return f"{where}: {'; '.join(said)}" if where else "; ".join(said)


def _nearest(name: str, before: str, classes: Iterable[type]) -> list[str]:
    """Names like this one, of the kind that the report wants where it says what kind."""
    classes = [x for x in classes if not (x.__name__.startswith("_") or isabstract(x))]
    wanted = _KIND.search(before.rpartition("Parser key")[2])
    kind = wanted and getattr(sys.modules.get(wanted[1]), wanted[2], None)
    if not isinstance(kind, type):
        names = {x.__name__ for x in classes}
        return [] if name in names else difflib.get_close_matches(name, sorted(names))
    fitting = sorted({x.__name__ for x in classes if issubclass(x, kind) and x is not kind})
    near = difflib.get_close_matches(name, fitting)
    return near or difflib.get_close_matches(name, fitting, cutoff=0)


def _modules(error: BaseException) -> Iterator[str]:
    """The modules that an exception passed through, the one that raised it last."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        yield frame.f_globals.get("__name__", "")


def _join(text: str) -> str:
    return " ".join(text.split())
