"""The notebooks run, and print what they show."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.testing import ROOT, alike

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def printed(notebook: nbformat.NotebookNode) -> list[str]:
    # A cell's stream comes in as many pieces as the machine is slow.
    outputs = [cell.get("outputs", []) for cell in notebook.cells]
    cells = ["".join(o.text for o in some if o.output_type == "stream") for some in outputs]
    return [text for text in cells if text]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_prints_what_it_shows(path: Path, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # Of tqdm, which transformers load, about widgets that are not installed.
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:IProgress not found")
    shown = nbformat.read(path, as_version=4)
    fresh = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(fresh, timeout=300, kernel_name="python3", resources=place).execute()
    assert shown.cells
    assert printed(shown)
    for before, now in zip(printed(shown), printed(fresh), strict=True):
        assert alike(before, now), now


def test_notebooks_are_small() -> None:
    assert {path.stem for path in NOTEBOOKS} == {"attack", "explain", "train"}
    assert all(path.stat().st_size < 200_000 for path in NOTEBOOKS)
