"""What an attribution method does with effects, beside the three principles of Deng et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.indices.exact import all_coalitions, count_players


@dataclass(frozen=True)
class PrincipleReport:
    """How far a method is from the principles, as shares of Σ|J| over sets S ≠ ∅.

    A number is NaN where the game is constant and nothing is amiss, infinite where something is.

    Attributes:
        unrelated: ``(B,)``, Σ|W[i, S]| over players i outside of S (Eq. 46 and 47).
        incomplete: ``(B,)``, Σ_S |Σ_i W[i, S] − J(S)| (Eq. 48 and 49).
        gap: ``(B,)``, |Σ_i a_i − (v(N) − v(∅))|, what the attributions miss in all.
    """

    unrelated: Tensor
    incomplete: Tensor
    gap: Tensor


def check_principles(W: Tensor, dividends: Tensor) -> PrincipleReport:  # noqa: N803
    """Unrelated, incomplete and missing amounts of a method's allocation (Deng et al. 2024).

    The first principle, to leave no terms out, has no number of its own: an allocation has no
    remainder, and what gradient_input leaves out or gives twice shows as incomplete, though the
    paper's Table VI ticks its completeness. For methods that are not linear in the network, such as
    LRP-αβ, amounts are not unique, and what the paper calls unrelated shows as incomplete.

    Args:
        W: ``(B, n, 2^n)``, the :func:`~interaction_train.attributions.allocation.allocation`.
        dividends: ``(B, 2^n)``, :func:`~interaction_train.indices.exact.dividends` of the game.

    Raises:
        InputError: tensors that do not fit each other.

    Examples:
        >>> import torch
        >>> W = torch.tensor([[[0.0, 1.0, 0.0, 0.5], [0.0, 0.0, 0.0, 1.0]]])
        >>> check_principles(W, torch.tensor([[3.0, 1.0, 0.0, 1.0]]))
        PrincipleReport(unrelated=tensor([0.]), incomplete=tensor([0.2500]), gap=tensor([0.2500]))
    """
    n = count_players(dividends, 1, "dividends")
    wanted = (*dividends.shape[:-1], n, 1 << n)
    if dividends.dim() != 2 or W.shape != wanted:
        got = f"{tuple(W.shape)} for dividends {tuple(dividends.shape)}"
        raise InputError("W", got, "(B, n, 2^n) and (B, 2^n)")
    effects = dividends[:, 1:].to(W)
    outside = ~all_coalitions(n, W.device).T[:, 1:]
    total = effects.abs().sum(-1)
    given = W[:, :, 1:]
    return PrincipleReport(
        (given.abs() * outside).sum((1, 2)) / total,
        (given.sum(1) - effects).abs().sum(-1) / total,
        (W.sum((1, 2)) - effects.sum(-1)).abs() / total,
    )
