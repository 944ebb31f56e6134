"""Runs every study, each in a process of its own: ``python studies/run_all.py --scale quick``.

A study that fails does not stop the others. At the end stand a table of verdicts and times, and the
exit status is 1 if any failed. The documents' tables are filled from the new results. Runs that are
on disk below ``runs/studies`` are not repeated.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
ROOT = HERE.parent
SIGN = "study = Study.from_command_line("  # what makes a script a study
STUDIES = sorted(path.stem for path in HERE.glob("*.py") if f"\n    {SIGN}" in path.read_text())


def main() -> None:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--studies", nargs="+", choices=STUDIES, default=STUDIES)
    parser.add_argument("--scale", choices=("smoke", "quick", "full"), default="quick")
    parser.add_argument("--only", choices=("digits", "cifar10"))
    parser.add_argument("--dry_run", action="store_true", help="print the plan of runs")
    given = parser.parse_args()
    passed = ["--scale", given.scale]
    passed += ["--only", given.only] if given.only else []
    passed += ["--dry_run"] if given.dry_run else []
    table = Table("study", "data", "minutes", "verdict", title=f"Studies, scale {given.scale}")
    failed = []
    root = ROOT / "runs" / "smoke" if given.scale == "smoke" else ROOT
    results = root / "studies" / "results" / given.scale
    for name in given.studies:
        begin = time.time()
        status = subprocess.run([sys.executable, HERE / f"{name}.py", *passed]).returncode
        written = sorted(p for p in results.glob(f"{name}_*.json") if p.stat().st_mtime >= begin)
        for path in written:
            record = json.loads(path.read_text())
            data = path.stem.removeprefix(f"{name}_")
            table.add_row(name, data, f"{record['wall_time_s'] / 60:.1f}", record["verdict"])
        if status:
            failed.append(name)
            minutes = f"{(time.time() - begin) / 60:.1f}"
            table.add_row(name, "", minutes, f"[red]failed with exit status {status}[/red]")
    if not given.dry_run:
        Console().print(table)
        if given.scale != "smoke" and (ROOT / "docs" / "results.md").is_file():
            subprocess.run([sys.executable, HERE / "tables.py"], check=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
