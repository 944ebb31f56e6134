"""What a baseline makes of a network's games: how sparse they are, and whether anything is left."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from interaction_train.attributions.scores import infidelity_of
from interaction_train.baselines.objectives import MOST_PLAYERS, Objective
from interaction_train.concepts.fidelity import k90, strength_by_order
from interaction_train.game.evaluation import without_grad
from interaction_train.game.masked import MaskedGame
from interaction_train.game.precision import wide
from interaction_train.indices.curve import end_coalitions, require_finite
from interaction_train.indices.exact import dividends, exact_values, shapley_values
from interaction_train.sampling.random import Draws


@dataclass(frozen=True)
class Measures:
    """Means over samples; a ratio is one of means. Payoffs are in their own unit.

    Those of all interactions are exact, and NaN for more than 12 players.

    Attributes:
        loss: the objective.
        effect: |v(N) − v(∅)|, what all players together change.
        loss_over_effect: their ratio.
        strength: Σ_{S≠∅} |I(S)| of the Harsanyi dividends.
        strength_over_effect: their ratio, at least 1: it sees through a baseline that makes
            interactions small by changing nothing.
        k90: how many of the strongest interactions make 90 % of ``strength``.
        first_order: the share of single players in ``strength``.
        infidelity: root of the mean squared error, over all sets of removed players, of changes of
            v that are told by Shapley values
            (:func:`~interaction_train.attributions.scores.infidelity`).
        infidelity_over_effect: their ratio.
    """

    loss: float
    effect: float
    loss_over_effect: float
    strength: float = math.nan
    strength_over_effect: float = math.nan
    k90: float = math.nan
    first_order: float = math.nan
    infidelity: float = math.nan
    infidelity_over_effect: float = math.nan


def measure(game: MaskedGame, objective: Objective, contexts: int, draws: Draws) -> Measures:
    """The measures of a game of B samples.

    Raises:
        InputError: a payoff that is not finite, or of several numbers.
    """
    with without_grad():
        loss = float(wide(objective(game, contexts, draws)).mean())
        if game.n > MOST_PLAYERS:
            ends = wide(game(end_coalitions(game)))
            require_finite(ends)
            effect = float(ends.diff().abs().mean())
            return Measures(loss, effect, ratio(loss, effect))
        values = wide(exact_values(game))
    interactions = dividends(values)
    interactions[:, 0] = 0
    effect = float((values[:, -1] - values[:, 0]).abs().mean())
    strengths = strength_by_order(interactions).mean(0)
    strength = float(strengths.sum())
    infidelity = math.sqrt(float(infidelity_of(values, shapley_values(values)).mean()))
    return Measures(
        loss=loss,
        effect=effect,
        loss_over_effect=ratio(loss, effect),
        strength=strength,
        strength_over_effect=ratio(strength, effect),
        k90=float(wide(k90(interactions)).mean()),
        first_order=ratio(float(strengths[0]), strength),
        infidelity=infidelity,
        infidelity_over_effect=ratio(infidelity, effect),
    )


def ratio(top: float, bottom: float) -> float:
    """NaN where there is nothing to divide by."""
    return top / bottom if bottom else math.nan


def measures_table(rows: Mapping[str, Measures]) -> pd.DataFrame:
    """One row per name, one column per measure."""
    return pd.DataFrame({name: dataclasses.asdict(one) for name, one in rows.items()}).T


def nothing_absent(before: Measures, after: Measures) -> str | None:
    """What to say where |v(N) − v(∅)| fell below half: the baseline became the samples."""
    if not after.effect < before.effect / 2:
        return None
    return (
        f"|v(N) − v(∅)| fell from {before.effect:.3g} to {after.effect:.3g}: this baseline is so "
        "near to the samples that little is ever absent. Compare Σ|I| / |v(N) − v(∅)|, "
        f"{before.strength_over_effect:.3g} before and {after.strength_over_effect:.3g} after; "
        "bound the baseline by max_shift, or take 'low_order_shapley' with relative=True."
    )
