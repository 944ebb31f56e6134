"""One line out of the nested reports that the argument parser makes of a typo."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_INPUT_ERROR = re.compile(r"\S.*?: got .+, expected .+")
_UNKNOWN_CLASS = re.compile(r"(?:Expected a dot import path string|Import path)\W+([\w.]+)")
_FRAME = re.compile(
    r"Does not validate against|Subtypes:|Errors:|Given value|Expected a <class 'NoneType'>"
    r"|Problem with given class_path|Parser key|$"
)


def one_line(report: str, class_names: Iterable[str]) -> str:
    """The part of a report that says what is wrong and where.

    Args:
        report: the message of a jsonargparse error; it may nest other messages.
        class_names: what a mistyped class name may have meant.
    """
    lines = [line.strip().removeprefix("- ") for line in report.splitlines()]
    for line in lines:
        if _INPUT_ERROR.match(line) and not _FRAME.match(line):
            return line
    keys = dict.fromkeys(re.findall(r'Parser key "([^"]+)"', report))
    where = ".".join(keys)
    unknown = _UNKNOWN_CLASS.search(report)
    if unknown:
        name = unknown[1].split(".")[-1]
        near = difflib.get_close_matches(name, sorted(set(class_names)), n=3)
        hint = f", such as {', '.join(near)}" if near else ""
        return f"{where}: got {unknown[1]!r}, expected the name or path of a class{hint}"
    classes = re.findall(r"Problem with given class_path '([^']+)'", report)
    if classes:
        where += f" ({classes[-1].split('.')[-1]})"
    said = [re.sub(r'^Parser key "[^"]+":\s*', "", line) for line in lines]
    said = list(dict.fromkeys(line for line in said if not _FRAME.match(line)))
    return f"{where}: {'; '.join(said)}" if where else "; ".join(said)
