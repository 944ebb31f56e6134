"""Configuration files: the package's own by their name, and what they are based on."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from interaction_train.errors import InputError, reason

_FLAGS = ("--config", "-c")
CONFIG = "--config="
"""How a file begins among the arguments that :func:`with_bases` returns."""


def with_bases(args: list[str]) -> list[str]:
    """Arguments with each config file as a path, after those that its ``base:`` names.

    A name that is no file, beside the one that names it, is looked up among the package's configs.
    """
    result: list[str] = []
    rest = iter(args)
    for arg in rest:
        flag, equals, value = arg.partition("=")
        if flag in _FLAGS and (equals or (value := next(rest, ""))):
            result += [f"{CONFIG}{path}" for path in _chain(value, Path(), ())]
        else:
            result.append(arg)
    return result


def _chain(name: str, folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    path = _find(name, folder)
    if path.resolve() in above:
        raise InputError("base", repr(name), "a config that is not based on this one")
    base = read_config(path).get("base")
    if base is not None:
        yield from _chain(str(base), path.parent, (*above, path.resolve()))
    yield path


def _find(name: str, folder: Path) -> Path:
    packaged = Path(str(files("interaction_train"))) / "configs" / Path(name).name
    for path in (folder / name, packaged):
        if path.is_file():
            return path
    raise InputError("--config", repr(name), "a YAML file, or the name of a packaged one")


class _Loader(yaml.SafeLoader):
    """Refuses a key that comes twice in a mapping, of which YAML takes the last in silence."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set[str]()
        for key, _ in node.value:
            if key.value != "<<" and str(key.value) in seen:
                problem = f"the key {key.value!r} comes twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(str(key.value))
        return node


def read_config(path: Path) -> dict[str, Any]:
    """What a file says.

    Raises:
        InputError: no such file, or no mapping.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        expected = f"a YAML file ({reason(error)})"
        raise InputError("--config", repr(str(path)), expected) from error
    if not isinstance(content, dict):
        raise InputError("--config", repr(str(path)), "a YAML mapping of arguments")
    return content
