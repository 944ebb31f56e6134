"""What an AND-OR decomposition of a game is."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from interaction_train.concepts.transforms import values_from_and_or


@dataclass(frozen=True)
class Concepts:
    """AND and OR interactions whose sum is a game of n players, sample by sample.

    Leading axes ``...`` are those of the game's values, one entry for each sample.

    Attributes:
        and_: ``(..., 2^n)``, I_and(S); 0 for ∅, and with the ORs of single players, which are ANDs.
        or_: ``(..., 2^n)``, I_or(S); 0 for ∅ and single players.
        constant: ``(...)``, the value of ∅.
        objective: ``(...)``, Σ|I_and| + Σ|I_or|.
        lower_bound: ``(...)``, proven: no decomposition within the bound has a smaller objective.
        violation: ``(...)``, by how much the sum misses the bound on |v_surrogate(S) − v(S)| at the
            worst S, in the unit of the payoff.
        steps: ``(...)`` int64, steps of the solver.
        converged: bool ``(...)``: objective and lower bound as close as was asked for.
    """

    and_: Tensor
    or_: Tensor
    constant: Tensor
    objective: Tensor
    lower_bound: Tensor
    violation: Tensor
    steps: Tensor
    converged: Tensor

    @property
    def n(self) -> int:
        """The number of players."""
        return self.and_.shape[-1].bit_length() - 1

    def values(self) -> Tensor:
        """What the interactions sum to on all coalitions, ``(..., 2^n)``."""
        return self.constant.unsqueeze(-1) + values_from_and_or(self.and_, self.or_)
