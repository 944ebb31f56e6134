"""Metrics and files in words, for people."""

from __future__ import annotations

import math
from typing import Any

_SPLITS = {"train": "training", "val": "validation", "test": "test"}
_WORDS = {
    "acc": "accuracy",
    "lr": "learning rate",
    "cross_entropy": "cross entropy",
    "gap": "generalisation gap",
    "interaction": "interactions",
    "robust_acc": "robust accuracy",
    "mean_abs": "mean |I|",
    "adv": "adversarial",
    "J": "J(m)",
    "D": "D(m)",
    "stderr": "standard error",
}


def number(value: Any) -> str:
    """A number as a reader wants it, four digits and no more; anything else as text."""
    try:
        size = float(value)
    except ValueError:
        return str(value)
    if isinstance(value, bool):
        return str(value)
    whole = math.isfinite(size) and size == int(size) and abs(size) < 1e6
    return str(int(size)) if whole else f"{size:.4g}"


def words(key: str) -> str:
    """A metric's key, or a file's name, in words.

    Examples:
        >>> words("val/robust_acc/PGD"), words("train/loss"), words("test/interaction/mean_abs")
        ('Robust accuracy, PGD (validation)', 'Loss (training)', 'Interactions, mean |I| (test)')
        >>> words("val_interaction_spectrum")
        'Interaction spectrum (validation)'
    """
    split, _, rest = key.partition("/" if "/" in key else "_")
    parts = (rest if split in _SPLITS and rest else key).split("/")
    told = [_WORDS.get(part, part.replace("_", " ").strip()) for part in parts if part]
    text = ", ".join(told) or key
    text = text[:1].upper() + text[1:]
    return f"{text} ({_SPLITS[split]})" if split in _SPLITS and rest else text
