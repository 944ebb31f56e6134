"""A griffe extension: the roles in docstrings, such as ``:class:`Name```, become links."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, NameResolutionError, Object

_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):`(~?)([\w.]+)`")


class Roles(Extension):
    """Turns roles into links to what the site documents, and into plain code elsewhere."""

    def on_instance(self, *, obj: Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(lambda match: _link(obj, match), obj.docstring.value)


def _link(obj: Object, match: re.Match[str]) -> str:
    short, name = match.groups()
    try:
        target = name if "." in name else obj.resolve(name)
    except NameResolutionError:
        target = name
    shown = name.rsplit(".", 1)[-1] if short else name
    # Optional: what has no place on the site is no error.
    return f'<autoref optional identifier="{target}"><code>{shown}</code></autoref>'
