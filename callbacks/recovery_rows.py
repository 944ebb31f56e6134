"""Recovered interactions of samples in words and plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from interaction_train.recovery import Recovered, WalshModel

COLUMNS = ("sample", "label", "kind", "order", "players", "value")


def recovered_in_words(
    own: Tensor, model: WalshModel, found: Recovered, curve: Tensor, names: Sequence[str]
) -> list[dict[str, Any]]:
    """What was found of each sample, its interactions the strongest first.

    Args:
        own: place and label of the samples, ``(B, 2)``.
        model: their fits.
        found: their strongest interactions.
        curve: R² by budget, ``(B, budgets)``.
        names: of the n players.
    """
    numbers = {
        "r2": model.r2_holdout,
        "r2_loo": model.r2_loo,
        "r2_surrogate": found.r2,
        "explained": found.explained,
        "constant": found.surrogate.constant,
        "r2_curve": curve,
        "spectrum": model.spectrum(),
        "shapley": model.shapley(),
    }
    samples = []
    for b, (place, label) in enumerate(own.tolist()):
        interactions = [
            {"kind": kind, "order": len(players), "players": list(players), "value": value}
            for kind, players, value in found.interactions(b, names)
        ]
        told = {name: values[b].tolist() for name, values in numbers.items()}
        samples.append({"sample": place, "label": label, **told, "interactions": interactions})
    return samples


def csv_table(samples: Sequence[dict[str, Any]]) -> list[list[Any]]:
    """A row for each interaction, below the names of the columns."""
    rows = (
        {**sample, **one, "players": " ".join(one["players"])}
        for sample in samples
        for one in sample["interactions"]
    )
    return [list(COLUMNS), *([row[name] for name in COLUMNS] for row in rows)]
