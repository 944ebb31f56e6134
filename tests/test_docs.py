"""The documentation: tutorials that run, examples in docstrings, and a site that builds."""

import contextlib
import doctest
import importlib
import io
import os
import pkgutil
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import interaction_train
from interaction_train.cli.main import main
from tests.testing import ROOT, alike

TUTORIALS = [ROOT / "docs" / "index.md", *sorted((ROOT / "docs" / "tutorials").glob("*.md"))]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)


def blocks(page: Path) -> Iterator[tuple[str, str | None]]:
    """The Python blocks of a page, each with the output shown below it."""
    for match in BLOCK.finditer(page.read_text()):
        yield match["code"], match["output"]


def contains(printed: str, shown: str) -> bool:
    """Whether the lines of ``shown`` occur among those of ``printed``, in their order."""
    lines = iter(printed.splitlines())
    return all(any(alike(line, other) for other in lines) for line in shown.splitlines())


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_tutorials_run_and_print_what_they_show(page, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    scope: dict[str, object] = {"__name__": "tutorial"}
    state = torch.get_rng_state()
    ran = 0
    for code, shown in blocks(page):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, f"{page.name}, block {ran}", "exec"), scope)
        assert contains(printed.getvalue(), shown or ""), printed.getvalue()
        ran += 1
    torch.set_rng_state(state)
    assert ran


def test_shown_lines_are_compared_and_numbers_within_bounds() -> None:
    assert contains("epoch 1\nloss: 0.50 (3)\n", "loss:  0.52 (3)\n")
    assert contains("┃ a ┃ 1.0 ┃", "│ a │ 1.01 │")
    assert not contains("loss: 0.50", "loss: 0.90")
    assert not contains("loss: 0.50", "error: 0.50")
    assert not contains("1 2\n1 2 3", "1 2 3\n1 2")


def commands() -> list[str]:
    """The command lines that pages show, apart from those on files and variables of a reader."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL):
            found += re.findall(r"interaction-train ((?:fit|validate|test|predict) .*)", block)
    return sorted({line for line in found if "my.yaml" not in line and "$" not in line})


@pytest.mark.parametrize("command", commands())
def test_the_command_line_understands_what_pages_show(command, capsys) -> None:
    with pytest.raises(SystemExit) as done:
        main([*shlex.split(command, comments=True), "--print_config"])
    assert not done.value.code, capsys.readouterr().err


def modules() -> list[str]:
    found = pkgutil.walk_packages(interaction_train.__path__, "interaction_train.")
    return [module.name for module in found if not module.name.endswith("__main__")]


def with_examples() -> list[str]:
    """Modules whose source has examples; others are not imported for it."""
    specs = ((name, importlib.util.find_spec(name)) for name in modules())
    return [name for name, spec in specs if ">>>" in Path(spec.origin).read_text()]


@pytest.mark.parametrize("name", with_examples())
def test_examples_in_docstrings(name) -> None:
    result = doctest.testmod(importlib.import_module(name), raise_on_error=False)
    assert result.attempted
    assert not result.failed


def test_the_site_builds_without_a_warning(tmp_path) -> None:
    python = ROOT / ".venv-docs" / "bin" / "python"  # `make test` makes it
    if not python.exists():
        pytest.skip("`make docs` has not made .venv-docs")
    command = [str(python), "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    offline = {
        **os.environ,
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    done = subprocess.run(command, cwd=ROOT, env=offline, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    reference = "".join(path.read_text() for path in (tmp_path / "reference").glob("*.html"))
    for name in (
        "GridPlayers",
        "InteractionLoss",
        "IRAttack",
        "SpectrumMonitor",
    ):
        assert f'.{name}"' in reference
    assert ":class:" not in reference
    for page in tmp_path.rglob("*.html"):
        text = page.read_text()
        assert not re.search(r'<script[^>]* src="http|<link[^>]*stylesheet[^>]*"http', text)
