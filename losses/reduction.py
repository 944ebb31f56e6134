"""The interaction-reduction (IR) loss: how much the units of a perturbation work together."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from interaction_train.errors import InputError, at_least
from interaction_train.game.masked import MaskedGame
from interaction_train.game.players import GridPlayers, Players
from interaction_train.sampling import coalitions
from interaction_train.sampling.random import Draws


class InteractionReduction(ABC):
    """Î = mean over groups A of v(N) − v(N∖A) − v(A) + v(∅) (survey, Eq. 18 and 19).

    The players are the cells of a grid over a perturbation; an absent cell shows the clean image. A
    group of one player gives (n − 1) times the mean pairwise Shapley interaction; larger groups
    give Σ_m c_m Ī^(m) with c = 1, 2, …, k, …, k, …, 2, 1. Î is 0 for a network that is additive
    over the cells. Used by :class:`~interaction_train.attacks.objectives.InteractionObjective`, or
    on a game of your own.

    Args:
        players: how a sample splits into cells; default: a 16 × 16 grid.
    """

    def __init__(self, players: Players | None = None) -> None:
        self.players: Players = GridPlayers(16, 16) if players is None else players

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in vars(self).items())})"

    @abstractmethod
    def groups(self, draws: Draws, n: int) -> Tensor:
        """The groups A, bool ``(B, K, n)``; raises InputError where one does not fit."""

    def __call__(self, game: MaskedGame, draws: Draws) -> Tensor:
        """Î ``(B,)`` of a game whose present inputs are adversarial and absent ones clean."""
        inside = self.groups(draws, game.n)
        full = torch.ones_like(inside[:, :1])
        values = game(torch.cat([full, ~full, inside, ~inside], 1), grad=True)
        both, split = values.split([2, values.shape[1] - 2], 1)
        return both.sum(1) - split.sum(1) / inside.shape[1]


class GroupReduction(InteractionReduction):
    """The paper's form: independent groups of a fixed size, drawn without replacement.

    Args:
        players: as in the base class.
        draws: number of groups K.
        size: cells in a group.

    Raises:
        InputError: ``draws`` or ``size`` below 1.

    Examples:
        >>> from interaction_train.sampling.random import content_hash
        >>> draws = Draws(content_hash(torch.rand(3, 1, 8, 8)))
        >>> groups = GroupReduction(GridPlayers(4, 4), draws=8, size=4).groups(draws, 16)
        >>> groups.shape, groups.sum(-1).unique().tolist()
        (torch.Size([3, 8, 16]), [4])
    """

    def __init__(self, players: Players | None = None, draws: int = 32, size: int = 32) -> None:
        super().__init__(players)
        at_least("draws", draws, 1)
        at_least("size", size, 1)
        self.draws, self.size = draws, size

    def groups(self, draws: Draws, n: int) -> Tensor:
        if self.size >= n:
            raise InputError("size", self.size, f"fewer than the {n} cells")
        return coalitions.uniform(draws.bits("groups", self.draws, n), self.size)


class PartitionReduction(InteractionReduction):
    """The cells dealt at random into blocks, each of which is a group once.

    With the blocks as players, Î is exactly (blocks − 1) times the mean pairwise Shapley
    interaction (formula 7). Needs 2·blocks + 2 evaluations.

    Args:
        players: as in the base class.
        blocks: number of blocks, whose sizes differ by one at most.

    Raises:
        InputError: ``blocks`` below 2.
    """

    def __init__(self, players: Players | None = None, blocks: int = 8) -> None:
        super().__init__(players)
        at_least("blocks", blocks, 2)
        self.blocks = blocks

    def groups(self, draws: Draws, n: int) -> Tensor:
        if self.blocks > n:
            raise InputError("blocks", self.blocks, f"at most the {n} cells")
        rank = draws.bits("blocks", n).argsort(-1).argsort(-1)
        block = torch.arange(self.blocks, device=rank.device)
        return (rank % self.blocks).unsqueeze(-2) == block.unsqueeze(-1)
