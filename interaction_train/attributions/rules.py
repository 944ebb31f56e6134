"""The shares that methods have in Taylor effects: Table IV of Deng et al. 2024."""

from __future__ import annotations

import torch
from torch import Tensor

from interaction_train.attributions.effects import Effects
from interaction_train.attributions.lrp import check_shares
from interaction_train.attributions.occlusion import Patches, patch_places
from interaction_train.errors import InputError, one_of

_GRADIENT = ("gradient_input", "grad_cam", "lrp_epsilon")
_DEGREE = ("integrated_gradients", "expected_gradients", "deeplift_rescale")
_EQUAL = ("shapley", "deep_shap")
_WHOLE = ("occlusion", "prediction_difference")
_GROUPS = ("lrp_alpha_beta", "deep_taylor", "deeplift_reveal_cancel")
RULES = (*_GRADIENT, *_WHOLE, "occlusion_patch", *_DEGREE, *_EQUAL, *_GROUPS)


def table_iv(
    method: str,
    effects: Effects,
    *,
    printed: bool = False,
    by_set: bool = False,
    patches: Patches | None = None,
    z: Tensor | None = None,
    alpha: float = 2.0,
    beta: float = -1.0,
) -> Tensor:
    """Attributions ``(B, n)`` that follow from Taylor effects by a method's rule, Σ_κ w_{i,κ} I(κ).

    Right as far as the effects are all there are. Where the paper is not followed: the rules of
    gradient_input, grad_cam and lrp_epsilon are κ_i, not the first-order term alone; (34) is summed
    over S ⊆ N⁻, the constant's share of it included. Those of grad_cam hold where the gradient is
    constant over positions, of lrp_epsilon for ReLU networks, of prediction_difference and
    expected_gradients for each baseline, whose mean is the caller's to take. Those of
    lrp_alpha_beta, deep_taylor, deeplift_rescale, deeplift_reveal_cancel and deep_shap hold for one
    module σ(Σ z + s), and of the first two where σ(s) = 0 or κ = 0 is among the effects.

    Args:
        method: one of :data:`RULES`.
        effects: of the game at its baseline.
        printed: for the first three methods, the rule as Table IV prints it: I(e_i) alone.
        by_set: the amounts from each set, ``(B, n, 2^n)``, as an
            :func:`~interaction_train.attributions.allocation.allocation`.
        patches: for occlusion_patch, lists of players, a partition.
        z: ``(B, n)``, for lrp_alpha_beta, deep_taylor and deeplift_reveal_cancel the contributions
            to the module's sum (less those of the baseline): N⁺ are those above 0.
        alpha: of lrp_alpha_beta, the share of N⁺.
        beta: of lrp_alpha_beta, the share of N⁻.

    Raises:
        InputError: a method without a rule, such as a function, or without what its rule needs, or
            shares that do not sum to 1.

    Examples:
        >>> effects = Effects(torch.tensor([[2, 1]]), torch.tensor([[3.0]]))
        >>> table_iv("shapley", effects), table_iv("integrated_gradients", effects)
        (tensor([[1.5000, 1.5000]]), tensor([[2., 1.]]))
    """
    one_of("method", method, RULES)
    degrees = effects.degrees.to(effects.values).T
    there = degrees > 0
    if method in _GRADIENT:
        weights = degrees * (degrees.sum(0) == 1) if printed else degrees
    elif method in _DEGREE:
        weights = _shares(degrees, degrees)
    elif method in _EQUAL:
        weights = _shares(there.to(degrees), there)
    elif method in _WHOLE:
        weights = there.to(degrees)
    elif method == "occlusion_patch":
        if patches is None:
            raise InputError("patches", None, f"lists of players for {method}")
        place = patch_places(len(degrees), patches).to(degrees.device)
        weights = torch.zeros_like(degrees).index_add_(0, place, degrees)[place].sign()
    else:
        if not isinstance(z, Tensor) or z.shape != (len(effects.values), len(degrees)):
            got = f"shape {tuple(z.shape)}" if isinstance(z, Tensor) else z
            raise InputError("z", got, f"({len(effects.values)}, {len(degrees)}) for {method}")
        check_shares(alpha, beta)
        weights = _by_groups(method, degrees, z.to(degrees), alpha, beta)
    amounts = weights * effects.values.unsqueeze(1)
    if not by_set:
        return amounts.sum(-1)
    result = amounts.new_zeros(*amounts.shape[:2], 1 << len(degrees))
    return result.index_add_(-1, effects.sets, amounts)


def _by_groups(method: str, degrees: Tensor, z: Tensor, alpha: float, beta: float) -> Tensor:
    """Rules that know players of positive and of other z, ``(B, n, K)``."""
    positive = (z > 0).unsqueeze(-1)
    reveal = method == "deeplift_reveal_cancel"
    if method == "deep_taylor":
        alpha, beta = 1.0, 0.0
    groups = []
    for members in (positive, ~positive):
        inside = degrees * members
        own = _shares(inside, inside)
        touched = inside.sum(1, keepdim=True) > 0
        if reveal:
            mixed = touched & ((degrees - inside).sum(1, keepdim=True) > 0)
            groups.append(torch.where(mixed, own / 2, own))
        else:  # terms on players of the other group alone go to this one by its z
            part = z.unsqueeze(-1) * members
            groups.append(torch.where(touched, own, _shares(part, part)))
    if reveal:
        return groups[0] + groups[1]
    return alpha * groups[0] + beta * groups[1]


def _shares(parts: Tensor, of: Tensor) -> Tensor:
    """Parts of sums over players (the axis before the last), 0 where the sum is 0."""
    total = of.sum(-2, keepdim=True)
    return torch.where(total == 0, 0, parts / torch.where(total == 0, 1, total))
