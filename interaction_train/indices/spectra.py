"""Spectra of exact interactions: how strong each order is."""

from __future__ import annotations

from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.game.precision import wide


def order_strengths(multi_order: Tensor) -> Tensor:
    """Absolute strength of each order, E_x E_{i≠j} |I^(m)(i,j|x)|, ``(orders,)``.

    Args:
        multi_order: ``(..., orders, n, n)`` with zero diagonals, all orders
            (:func:`multi_order_interactions`) or some.

    Raises:
        InputError: another shape, n below 2, or no samples.
    """
    shape = tuple(multi_order.shape)
    if len(shape) < 3 or shape[-1] != shape[-2] or shape[-1] < 2 or 0 in shape:
        raise InputError("multi_order", f"shape {shape}", "(..., orders, n, n) with n at least 2")
    pairs = wide(multi_order).abs().sum((-2, -1)) / (shape[-1] * (shape[-1] - 1))
    return pairs.reshape(-1, shape[-3]).mean(0).to(multi_order.dtype)


def interaction_spectrum(multi_order: Tensor) -> Tensor:
    """Relative strengths J^(m) = E_x E_ij |I^(m)(i,j|x)| / E_m [same] (survey, Eq. 21).

    ``(orders,)`` with mean 1 over the orders that are given, so that spectra compare only over the
    same orders; NaN where none has any interaction (an additive game).

    Args and errors: as :func:`order_strengths`.

    Examples:
        >>> from interaction_train.indices.exact import all_coalitions, multi_order_interactions
        >>> majority = (all_coalitions(3).sum(1) >= 2).float()
        >>> interaction_spectrum(multi_order_interactions(majority))
        tensor([1., 1.])
    """
    strengths = order_strengths(multi_order)
    return strengths / strengths.mean()
