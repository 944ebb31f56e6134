"""Interactions of many players from few coalitions: all Walsh coefficients in closed form."""

from interaction_train.recovery.fit import (
    budget_curve as budget_curve,
    fit_rows as fit_rows,
    fit_walsh as fit_walsh,
)
from interaction_train.recovery.model import WalshModel as WalshModel
from interaction_train.recovery.strongest import Recovered as Recovered, strongest as strongest
