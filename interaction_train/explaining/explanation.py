"""An explanation as a user holds it: numbers, tables, JSON, figures, and what shapiq works with."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from interaction_train.concepts.graph import numbers_of
from interaction_train.errors import InputError, at_least, one_of
from interaction_train.explaining.results import Results
from interaction_train.indices.exact import all_coalitions, dividends

if TYPE_CHECKING:
    import pandas as pd

    from interaction_train.explaining.plots import Plots

Kind = Literal["players", "pairs", "concepts"]
Index = Literal["SV", "SII", "k-SII", "Moebius"]


class Explanation(Results):
    """What each of n players, and each pair, adds to the payoff of B samples.

    Made by :func:`~interaction_train.explaining.explain.explain`; attributes are those of
    :class:`~interaction_train.explaining.results.Results`.
    """

    @property
    def plot(self) -> Plots:
        """Figures: ``explanation.plot.heatmap()`` and others."""
        from interaction_train.explaining.plots import Plots

        return Plots(self)

    def top(
        self, k: int = 10, sample: int = 0, kind: Kind = "pairs", **settings: Any
    ) -> pd.DataFrame:
        """The k strongest players, pairs or concepts of a sample, by absolute value.

        Columns ``players`` (names, joined by `` & ``), ``value`` and ``stderr``; for concepts also
        ``kind``, AND or OR.

        Args:
            k: how many, at least 1.
            sample: which sample.
            kind: ``"players"``, ``"pairs"`` or ``"concepts"``.
            **settings: of :meth:`~interaction_train.explaining.results.Results.concepts`.

        Raises:
            InputError: arguments out of range, or concepts of a sampled explanation.
        """
        at_least("k", k, 1)
        one_of("kind", kind, get_args(Kind))
        if settings and kind != "concepts":
            raise InputError("settings", ", ".join(settings), "none, for what is no concept")
        at = self.at(sample)
        if kind == "concepts":
            return _top_concepts(self, k, at, **settings)
        table = self.to_frame()
        table = table[(table["sample"] == at) & (table["order"] == (1 if kind == "players" else 2))]
        place = table["value"].abs().sort_values(ascending=False, kind="stable").index[:k]
        frame: pd.DataFrame = table.loc[place, ["players", "value", "stderr"]]
        return frame.reset_index(drop=True)

    def to_frame(self) -> pd.DataFrame:
        """Every Shapley value (order 1) and every pair's interaction (order 2) in a row of its own.

        Columns ``sample``, ``order``, ``players`` (names, joined by `` & ``), ``value``,
        ``stderr``.
        """
        import pandas as pd

        n, batch = self.n, len(self)
        upper = torch.triu_indices(n, n, 1)

        def both(single: Tensor, pairs: Tensor) -> Any:
            return torch.cat([single, pairs[:, upper[0], upper[1]]], 1).flatten().numpy()

        players = [*self.names, *_joined(self, upper.T.tolist())]
        orders = [1] * n + [2] * upper.shape[1]
        return pd.DataFrame(
            {
                "sample": torch.arange(batch).repeat_interleave(len(players)).numpy(),
                "order": orders * batch,
                "players": players * batch,
                "value": both(self.shapley, self.pairs),
                "stderr": both(self.shapley_stderr, self.pairs_stderr),
            }
        )

    def to_json(self, path: str | Path | None = None) -> str:
        """All numbers but the inputs, for other programs; also written to ``path``, if given."""
        content = {
            "network": self.network,
            "payoff": self.payoff,
            "players": repr(self.players),
            "names": list(self.names),
            "classes": None if self.classes is None else list(self.classes),
            "exact": self.exact,
            "evaluations": self.evaluations,
        }
        tensors = ("labels", "empty", "full", "shapley", "shapley_stderr", "pairs", "pairs_stderr")
        content |= {name: getattr(self, name).tolist() for name in tensors}
        content["values"] = None if self.values is None else self.values.tolist()
        text = json.dumps(content, allow_nan=False)
        if path is not None:
            Path(path).write_text(text)
        return text

    def to_shapiq(self, sample: int = 0, index: Index = "SII") -> Any:
        """A sample's ``shapiq.InteractionValues``, whose plots and other methods work.

        Args:
            sample: which sample.
            index: ``"SV"``, Shapley values; ``"SII"``, with Shapley interactions of pairs;
                ``"k-SII"``, the same as a sum: pairs and what is left of the values make v(N);
                ``"Moebius"``, all Harsanyi dividends.

        Raises:
            InputError: shapiq is not installed, or dividends of a sampled explanation.
        """
        one_of("index", index, get_args(Index))
        try:
            from shapiq import InteractionValues
        except ImportError:
            raise InputError("shapiq", "not installed", "pip install shapiq") from None
        at = self.at(sample)
        n, single, pairs = self.n, self.shapley[at], self.pairs[at]
        if index == "Moebius":
            found = dividends(self.all_values("dividends")[at].double())
            interactions = dict(
                zip(map(numbers_of, all_coalitions(n)), found.tolist(), strict=True)
            )
            interactions.pop(())
        else:
            if index == "k-SII":
                single = single - pairs.sum(-1) / 2
            interactions = {(i,): value for i, value in enumerate(single.tolist())}
        if index in ("SII", "k-SII"):
            upper = torch.triu_indices(n, n, 1)
            values = pairs[upper[0], upper[1]].tolist()
            interactions |= dict(zip(map(tuple, upper.T.tolist()), values, strict=True))
        empty = float(self.empty[at])
        return InteractionValues(
            {(): empty, **interactions},
            index=index,
            min_order=0,
            max_order={"SV": 1, "Moebius": n}.get(index, 2),
            n_players=n,
            estimated=not self.exact,
            estimation_budget=self.evaluations,
            baseline_value=empty,
        )


def _top_concepts(results: Results, k: int, at: int, **settings: Any) -> pd.DataFrame:
    import pandas as pd

    found = results.concepts(**settings)
    size = found.and_.shape[-1]
    strength = torch.cat([found.and_[at], found.or_[at]])
    place = strength.abs().argsort(descending=True, stable=True)[:k]
    place = place[strength[place] != 0]
    coalitions = all_coalitions(results.n)[place % size]
    return pd.DataFrame(
        {
            "kind": ["OR" if p >= size else "AND" for p in place.tolist()],
            "players": _joined(results, map(numbers_of, coalitions)),
            "value": strength[place].tolist(),
            "stderr": 0.0,
        }
    )


def _joined(results: Results, coalitions: Iterable[Iterable[int]]) -> list[str]:
    return [" & ".join(results.names[i] for i in members) for members in coalitions]
