"""Games of known interactions: those of the benchmark."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from sparse_games import SparseGame, sparse_game

__all__ = ["SparseGame", "sparse_game"]
