"""A learned baseline, its record, and its file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from interaction_train.baselines.measures import Measures, measures_table
from interaction_train.errors import InputError
from interaction_train.game.absence import SUFFIX

_RECORD = "learned_baseline"  # key of the metadata


@dataclass(frozen=True, repr=False)
class LearnedBaseline:
    """What an absent player shows, learned, and what that changed.

    Its file may stand wherever a baseline is a number: ``baseline: baseline.safetensors``.

    Attributes:
        value: the baseline: ``(F,)`` of columns, ``(C, 1, 1)`` of channels, ``(D,)`` of embeddings,
            or of the shape of the tensor that it started from.
        history: ``(steps,)``, the loss of each mini-batch before its step.
        before: measures of the start.
        after: measures of ``value``, on the same samples and contexts.
        settings: how it was learned.
    """

    value: Tensor
    history: Tensor
    before: Measures
    after: Measures
    settings: Mapping[str, Any] = field(default_factory=dict)

    def table(self) -> pd.DataFrame:
        """Rows ``before`` and ``after``, a column per measure."""
        return measures_table({"before": self.before, "after": self.after})

    def __repr__(self) -> str:
        numbers = f"{self.value.numel()} number{'s' * (self.value.numel() != 1)}"
        settings = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        table = self.table().to_string(float_format="{:.4g}".format)
        return f"LearnedBaseline of {numbers} in {len(self.history)} steps ({settings})\n{table}"

    def save(self, path: str | Path) -> None:
        """Write a ``.safetensors`` file: value, history, and the rest as JSON in its metadata.

        Raises:
            InputError: a path with another suffix.
        """
        if Path(path).suffix != SUFFIX:
            raise InputError("path", repr(str(path)), f"one that ends in {SUFFIX}")
        record = {
            "before": dataclasses.asdict(self.before),
            "after": dataclasses.asdict(self.after),
            "settings": dict(self.settings),
        }
        tensors = {"value": self.value, "history": self.history}
        own = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(own, path, {_RECORD: json.dumps(record)})

    @classmethod
    def load(cls, path: str | Path) -> LearnedBaseline:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: no such file, or one of something else.
        """
        try:
            with safe_open(path, "pt") as file:
                record = json.loads(file.metadata()[_RECORD])
                value, history = file.get_tensor("value"), file.get_tensor("history")
        except (OSError, SafetensorError, TypeError, KeyError):
            expected = "an existing file of a learned baseline"
            raise InputError("path", repr(str(path)), expected) from None
        before, after = Measures(**record["before"]), Measures(**record["after"])
        return cls(value, history, before, after, record["settings"])
