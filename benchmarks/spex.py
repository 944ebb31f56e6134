"""SPEX and ProxySPEX of shapiq as functions from rows, or a game, to a prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec

import numpy as np

Game = Callable[[np.ndarray], np.ndarray]
Fourier = Mapping[tuple[int, ...], float]


PEERS = {
    "proxyspex": ("shapiq", "lightgbm"),
    "spex": ("shapiq", "sparse_transform"),
}
"""What each of them needs."""


def installed(peer: str) -> bool:
    """Whether a peer can run here; if not, what it lacks is printed."""
    missing = [name for name in PEERS[peer] if find_spec(name) is None]
    if missing:
        print(f"{peer} is left out: {', '.join(missing)} not installed (the extras bench and dev).")
    return not missing


def proxyspex(coalitions: np.ndarray, values: np.ndarray) -> Fourier:
    """ProxySPEX from rows ``(m, n)`` and values ``(m,)`` that are given.

    Shared with ``shapiq.ProxySPEX.approximate``: LightGBM, its grid, the 5-fold search, the Fourier
    transform of the trees and the ridge refit; in place of its own sampler stand the given rows.
    Left out is what follows, the translation into an interaction index.
    """
    import pandas as pd
    from lightgbm import LGBMRegressor
    from shapiq.approximator import ProxySPEX
    from sklearn.model_selection import GridSearchCV

    n = coalitions.shape[1]
    peer = ProxySPEX(n=n, random_state=0)
    frame = pd.DataFrame(coalitions, columns=[f"f{i}" for i in range(n)])
    trees = LGBMRegressor(verbose=-1, n_jobs=1, random_state=0)
    search = GridSearchCV(trees, peer.decoder_args, scoring="r2", cv=5).fit(frame, values)
    best = search.best_estimator_.booster_.dump_model()
    return peer._refine(peer._lgboost_to_fourier(best), coalitions, values)


def spex(game: Game, n: int, budget: int) -> Fourier | None:
    """SPEX with at most ``budget`` rows, which are its own, as its decoder needs their structure.

    None where so few rows are too few for it.
    """
    from shapiq.approximator import SPEX
    from sparse_transform.qsft.qsft import transform
    from sparse_transform.qsft.signals.input_signal_subsampled import SubsampledSignal

    peer = SPEX(n=n, random_state=0)
    try:
        peer._set_transform_budget(budget)
    except ValueError:  # "Insufficient budget to compute the transform"
        return None
    signal = SubsampledSignal(
        func=lambda rows: game(rows.astype(bool)), n=n, q=2, query_args=peer.query_args
    )
    found = transform(signal, **peer.decoder_args)
    return {tuple(np.nonzero(key)[0]): float(np.real(c)) for key, c in found.items()}


def predict(fourier: Fourier, coalitions: np.ndarray) -> np.ndarray:
    """Σ c_S Π_{i∈S} z_i for rows ``(K, n)``; z is −1 where a player is present."""
    members = np.zeros((len(fourier), coalitions.shape[1]))
    for row, players in zip(members, fourier, strict=True):
        row[list(players)] = 1
    odd = (coalitions.astype(float) @ members.T) % 2
    return (1 - 2 * odd) @ np.fromiter(fourier.values(), float, len(fourier))
