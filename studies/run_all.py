"""Runs every study on every data set: ``python studies/run_all.py --scale quick --jobs 2``.

Each is a process of its own, ``--jobs`` of them at a time, which share the cores: small networks
gain more from that than from threads. One that fails does not stop the others. At the end stand a
table of verdicts and times, and the exit status is 1 if any failed. The documents' tables are
filled from the new results. Runs that are on disk below ``runs/studies`` are not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import get_args

from common import ROOT, SETTINGS, Data, Scale, home
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
SIGN = "\n    study = Study.from_command_line("  # what makes a script a study
STUDIES = sorted(path.stem for path in HERE.glob("*.py") if SIGN in path.read_text())


def main() -> None:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--studies", nargs="+", choices=STUDIES, default=STUDIES)
    parser.add_argument("--scale", choices=get_args(Scale), default="quick")
    parser.add_argument("--only", choices=get_args(Data))
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--dry_run", action="store_true", help="print the plan of runs")
    given = parser.parse_args()
    if given.jobs < 1:
        parser.error(f"--jobs: got {given.jobs}, expected at least 1")
    threads = max(1, (os.cpu_count() or 1) // given.jobs)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    table = Table("study", "data", "minutes", "verdict", title=f"Studies, scale {given.scale}")
    start = time.time()

    def run(task: tuple[str, str]) -> bool:
        """Run one, add its row, and say whether it went well."""
        begin, (name, data) = time.time(), task
        command = [sys.executable, HERE / f"{name}.py", "--scale", given.scale, "--only", data]
        command += ["--dry_run"] if given.dry_run else []
        status = subprocess.run(command, env=environment).returncode
        results = home(given.scale) / "studies" / "results" / given.scale
        sidecar = results / f"{name}_{data}.json"
        minutes = f"{(time.time() - begin) / 60:.1f}"
        if status:
            table.add_row(name, data, minutes, f"[red]failed with exit status {status}[/red]")
        elif sidecar.is_file() and sidecar.stat().st_mtime >= begin:
            table.add_row(name, data, minutes, json.loads(sidecar.read_text())["verdict"])
        return status == 0

    with ThreadPoolExecutor(given.jobs) as pool:
        wanted = product(given.studies, [given.only] if given.only else get_args(Data))
        # A study without any settings is left to say so itself.
        tasks = [task for task in wanted if task[1] in SETTINGS.get(task[0], get_args(Data))]
        went_well = list(pool.map(run, tasks))
    if not given.dry_run:
        Console().print(table)
        print(f"{(time.time() - start) / 60:.1f} minutes in all")
        if given.scale != "smoke" and (ROOT / "docs" / "results.md").is_file():
            subprocess.run([sys.executable, HERE / "tables.py"], check=True)
    sys.exit(0 if all(went_well) else 1)


if __name__ == "__main__":
    main()
