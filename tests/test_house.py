"""The house: which room may import which, how large files are, and what a user sees."""

import ast
import statistics
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import interaction_train as it

ROOT = Path(__file__).parents[1]
FLOORS = [  # from the ground up; a room imports from its own floor's room and from floors below
    {"errors"},
    {"game", "tracking"},
    {"sampling"},
    {"indices"},
    {"models", "data", "concepts", "attributions"},
    {"recovery"},
    {"losses"},
    {"baselines"},
    {"training", "metrics", "explaining", "revising"},
    {"attacks"},
    {"callbacks"},
    {"cli"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
ROOT_FOLDERS = ("attacks", "callbacks", "losses")


def sources() -> dict[str, Path]:
    """Dotted name below the package → file; root folders by their own place, not their link's."""
    found = {}
    for top, prefix in [(ROOT / "interaction_train", ""), *((ROOT / f, f) for f in ROOT_FOLDERS)]:
        for path in top.rglob("*.py"):
            inside = path.relative_to(top)
            if not prefix and inside.parts[0] in ROOT_FOLDERS:
                continue
            parts = [prefix, *inside.with_suffix("").parts]
            found[".".join(part for part in parts if part not in ("", "__init__"))] = path
    return found


SOURCES = sources()


def imports(path: Path) -> set[str]:
    """What a file imports from this package when it is loaded, or while it runs."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("interaction_train"):
            base = (node.module or "").removeprefix("interaction_train").removeprefix(".")
            for alias in node.names:
                below = f"{base}.{alias.name}".removeprefix(".")
                found.add(below if below in SOURCES else base)
        elif isinstance(node, ast.Import):
            names = (alias.name for alias in node.names)
            found |= {
                name.removeprefix("interaction_train").removeprefix(".")
                for name in names
                if name.split(".")[0] == "interaction_train"
            }
    return found - {""}


@pytest.mark.parametrize("name", [name for name in SOURCES if name not in ("", "__main__")])
def test_no_import_runs_up(name):
    room = name.split(".")[0]
    for other in imports(SOURCES[name]):
        below = other.split(".")[0]
        assert below == room or FLOOR[below] < FLOOR[room], f"{name} imports {other}"


def test_no_circle():
    graph = {name: imports(path) - {name} for name, path in SOURCES.items()}
    for name, path in SOURCES.items():  # a room's face imports its files, never the other way round
        if path.name == "__init__.py":
            own = [n for n in SOURCES if n.startswith(f"{name}.") and not n.endswith("__main__")]
            assert not any(name in graph[n] for n in own), name
    TopologicalSorter(graph).prepare()


def test_files_are_small():
    loose = [p for p in (ROOT / "interaction_train").iterdir() if p.is_file()]
    assert len(loose) <= 6, loose
    lines = {name: len(path.read_text().splitlines()) for name, path in SOURCES.items()}
    assert {name: count for name, count in lines.items() if count > 350} == {}
    assert statistics.median(lines.values()) <= 140


def test_public_names():
    expected = set(ast_names(ROOT / "interaction_train" / "__init__.pyi"))
    assert set(it.__all__) == expected
    assert all(hasattr(it, name) for name in it.__all__)
    assert not {"torch", "math", "annotations"} & set(dir(it))


def ast_names(stub: Path) -> list[str]:
    tree = ast.parse(stub.read_text())
    found = [a.asname for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names]
    return [name for name in found if name]


def test_the_bare_import_loads_neither_torch_nor_lightning():
    code = (
        "import sys, interaction_train as it; dir(it); "
        "print(sorted({'torch', 'lightning', 'numpy', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
