"""Explanations as tables, as JSON, and as what shapiq works with."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from interaction_train.errors import InputError, at_least, one_of
from interaction_train.explaining.results import Results
from interaction_train.indices.exact import all_coalitions, dividends

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["players", "pairs", "concepts"]
Index = Literal["SV", "SII", "k-SII", "Moebius"]


def top(results: Results, k: int, sample: int, kind: Kind, **settings: Any) -> pd.DataFrame:
    """As :meth:`~interaction_train.explaining.explanation.Explanation.top`."""
    at_least("k", k, 1)
    one_of("kind", kind, get_args(Kind))
    if settings and kind != "concepts":
        raise InputError("settings", ", ".join(settings), "none, for what is no concept")
    at = results.at(sample)
    if kind == "concepts":
        return _top_concepts(results, k, at, **settings)
    table = to_frame(results)
    table = table[(table["sample"] == at) & (table["order"] == (1 if kind == "players" else 2))]
    place = table["value"].abs().sort_values(ascending=False, kind="stable").index[:k]
    frame: pd.DataFrame = table.loc[place, ["players", "value", "stderr"]]
    return frame.reset_index(drop=True)


def to_frame(results: Results) -> pd.DataFrame:
    """As :meth:`~interaction_train.explaining.explanation.Explanation.to_frame`."""
    import pandas as pd

    n, batch = results.n, len(results)
    upper = torch.triu_indices(n, n, 1)

    def both(single: Tensor, pairs: Tensor) -> Any:
        return torch.cat([single, pairs[:, upper[0], upper[1]]], 1).flatten().numpy()

    players = [*results.names, *_joined(results, upper.T.tolist())]
    orders = [1] * n + [2] * upper.shape[1]
    return pd.DataFrame(
        {
            "sample": torch.arange(batch).repeat_interleave(len(players)).numpy(),
            "order": orders * batch,
            "players": players * batch,
            "value": both(results.shapley, results.pairs),
            "stderr": both(results.shapley_stderr, results.pairs_stderr),
        }
    )


def to_json(results: Results, path: str | Path | None = None) -> str:
    """As :meth:`~interaction_train.explaining.explanation.Explanation.to_json`."""
    content = {
        "network": results.network,
        "payoff": results.payoff,
        "players": repr(results.players),
        "names": list(results.names),
        "classes": None if results.classes is None else list(results.classes),
        "exact": results.exact,
        "evaluations": results.evaluations,
    }
    tensors = ("labels", "empty", "full", "shapley", "shapley_stderr", "pairs", "pairs_stderr")
    content |= {name: getattr(results, name).tolist() for name in tensors}
    content["values"] = None if results.values is None else results.values.tolist()
    text = json.dumps(content, allow_nan=False)
    if path is not None:
        Path(path).write_text(text)
    return text


def to_shapiq(results: Results, sample: int, index: Index) -> Any:
    """As :meth:`~interaction_train.explaining.explanation.Explanation.to_shapiq`."""
    one_of("index", index, get_args(Index))
    try:
        from shapiq import InteractionValues
    except ImportError:
        raise InputError("shapiq", "not installed", "pip install shapiq") from None
    at = results.at(sample)
    n, single, pairs = results.n, results.shapley[at], results.pairs[at]
    if index == "Moebius":
        found = dividends(results.all_values("dividends")[at].double())
        interactions = dict(zip(map(_players, all_coalitions(n)), found.tolist(), strict=True))
        interactions.pop(())
    else:
        if index == "k-SII":
            single = single - pairs.sum(-1) / 2
        interactions = {(i,): value for i, value in enumerate(single.tolist())}
    if index in ("SII", "k-SII"):
        upper = torch.triu_indices(n, n, 1)
        values = pairs[upper[0], upper[1]].tolist()
        interactions |= dict(zip(map(tuple, upper.T.tolist()), values, strict=True))
    empty = float(results.empty[at])
    return InteractionValues(
        {(): empty, **interactions},
        index=index,
        min_order=0,
        max_order={"SV": 1, "Moebius": n}.get(index, 2),
        n_players=n,
        estimated=not results.exact,
        estimation_budget=results.evaluations,
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
            "players": _joined(results, map(_players, coalitions)),
            "value": strength[place].tolist(),
            "stderr": 0.0,
        }
    )


def _players(coalition: Tensor) -> tuple[int, ...]:
    return tuple(coalition.nonzero().flatten().tolist())


def _joined(results: Results, coalitions: Iterable[Iterable[int]]) -> list[str]:
    return [" & ".join(results.names[i] for i in members) for members in coalitions]
