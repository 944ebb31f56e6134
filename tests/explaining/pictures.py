"""Files of real images, and what a figure's file holds."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

FIGURES = ("heatmap", "pairs", "matrix", "spectrum", "network", "concepts")
TABLES = ("explanation.json", "players.csv", "pairs.csv")
OF_CONCEPTS = ("concepts.csv", "graph.dot", "graph.json")


def digit(index: int = 0) -> np.ndarray:
    """One of scikit-learn's digits, uint8 ``(8, 8)``."""
    return np.round(load_digits().images[index] * 255 / 16).astype(np.uint8)


def write_digit(path: Path, index: int = 0, mode: str = "L") -> Path:
    Image.fromarray(digit(index)).convert(mode).save(path)
    return path


def drawn(path: Path) -> bool:
    """Whether a PNG shows more than a few colours, or an SVG more than a frame."""
    if path.suffix == ".png":
        with Image.open(path) as image:
            return min(image.size) > 200 and len(np.unique(np.asarray(image))) > 10
    tags = [element.tag.split("}")[1] for element in ElementTree.parse(path).iter()]
    return sum(tags.count(tag) for tag in ("path", "use", "image")) > 10
