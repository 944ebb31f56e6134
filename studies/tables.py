"""Fills the tables, figures and verdicts of the documents from the committed results.

``python studies/tables.py`` rewrites what stands between ``<!-- NAME_data -->`` and
``<!-- end -->`` in ``docs/*.md``; with ``--check`` it only says which documents differ (exit status
1). ``NAME_data`` is a file of ``studies/results/quick`` without its ending;
``<!-- full/NAME_data -->`` one of another scale. Shown is what there is of: the table (``.csv``),
the figure, and the verdict (``.json``).
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"<!-- ((?:\w+/)?\w+) -->\n.*?<!-- end -->", re.DOTALL)


def block(stem: str, root: Path = ROOT) -> str:
    """What stands between the markers of a result, ``NAME_data`` or ``scale/NAME_data``."""
    scale, _, name = stem.rpartition("/")
    results = root / "studies" / "results" / (scale or "quick")
    table, sidecar = results / f"{name}.csv", results / f"{name}.json"
    image = Path("images", "studies", *([scale] if scale else []), f"{name}.png")
    parts = [markdown(table)] if table.is_file() else []
    if (root / "docs" / image).is_file():
        parts.append(f"![{name.replace('_', ' ')}]({image.as_posix()})")
    if sidecar.is_file():
        record = json.loads(sidecar.read_text())
        parts += [f"> {record['verdict']}", provenance(record)]
    if not parts:
        raise FileNotFoundError(f"{table} and {sidecar}")
    return "\n\n".join(parts)


def markdown(path: Path) -> str:
    """A CSV file as a table; standard errors and intervals join the number they belong to."""
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    joined = {f"{name}_{end}" for name in frame for end in ("stderr", "low", "high")}
    shown = [name for name in frame if name not in joined]
    rows = [[name.replace("_", " ") for name in shown]]
    rows += [[_cell(name, row) for name in shown] for row in frame.to_dict("records")]
    lines = ["| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(shown) + "|", *lines[1:]])


def provenance(record: dict[str, Any]) -> str:
    """Where numbers come from, in a line."""
    return (
        f"<sub>`{record['command']}`; seeds {', '.join(map(str, record['seeds']))}; "
        f"{record['hardware']}, {record['threads']} thread(s), torch {record['torch']}; "
        f"{record['wall_time_s'] / 60:.1f} min; {record['date']}.</sub>"
    )


def filled(text: str, root: Path = ROOT) -> str:
    """A document with all its blocks as the results have them."""
    return BLOCK.sub(lambda m: f"<!-- {m[1]} -->\n{block(m[1], root)}\n<!-- end -->", text)


def _cell(name: str, row: dict[Any, str]) -> str:
    error = row.get(f"{name}_stderr")
    if error and float(error):
        digits = max(0, 1 - math.floor(math.log10(float(error))))
        return f"{float(row[name]):.{digits}f} ± {float(error):.{digits}f}"
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return row[name] + (" ± 0" if error else f" [{low}, {high}]" if low else "")


def main() -> None:
    """Rewrite the documents, or say which differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args().check
    stale = []
    for path in sorted((ROOT / "docs").glob("*.md")):
        if (new := filled(path.read_text())) != path.read_text():
            stale.append(str(path.relative_to(ROOT)))
            if not check:
                path.write_text(new)
    if stale:
        print(("differ from the results: " if check else "rewritten: ") + ", ".join(stale))
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    main()
