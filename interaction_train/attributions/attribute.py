"""Attribution methods by their names."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from interaction_train.attributions.deeplift import (
    deep_shap,
    deeplift_rescale,
    deeplift_reveal_cancel,
)
from interaction_train.attributions.grad_cam import grad_cam
from interaction_train.attributions.integrated_gradients import (
    expected_gradients,
    gradient_input,
    integrated_gradients,
)
from interaction_train.attributions.lrp import deep_taylor, lrp_alpha_beta, lrp_epsilon
from interaction_train.attributions.occlusion import (
    occlusion,
    occlusion_patch,
    prediction_difference,
)
from interaction_train.attributions.shapley import shapley
from interaction_train.errors import InputError, one_of
from interaction_train.game.masked import MaskedGame

Method = Callable[..., Tensor]

METHODS: dict[str, Method] = {
    "gradient_input": gradient_input,
    "occlusion": occlusion,
    "occlusion_patch": occlusion_patch,
    "prediction_difference": prediction_difference,
    "integrated_gradients": integrated_gradients,
    "expected_gradients": expected_gradients,
    "shapley": shapley,
    "grad_cam": grad_cam,
    "lrp_epsilon": lrp_epsilon,
    "lrp_alpha_beta": lrp_alpha_beta,
    "deep_taylor": deep_taylor,
    "deeplift_rescale": deeplift_rescale,
    "deeplift_reveal_cancel": deeplift_reveal_cancel,
    "deep_shap": deep_shap,
}


def attribute(game: MaskedGame, method: str | Method, **options: Any) -> Tensor:
    """What each player contributes to the payoff by some method, ``(B, n)``.

    Without gradient, in the dtype of the game's values, and with no trace on the network.

    Args:
        game: its payoff is one number.
        method: one of :data:`METHODS`, or a function ``(game, **options) -> (B, n)``.
        **options: of the method, such as ``absents``, ``patches`` or ``steps``.

    Raises:
        InputError: an unknown method, options that it does not have or lacks, what the method
            itself refuses, or a function that gives another shape.

    Examples:
        >>> import torch
        >>> import interaction_train as it
        >>> def network(x):  # logits x0 + x0 x1 and 0
        ...     return torch.stack([x[:, 0] + x[:, 0] * x[:, 1], 0 * x[:, 0]], 1)
        >>> x, y = torch.ones(1, 2), torch.tensor([0])
        >>> game = it.MaskedGame(network, x, 0.0, it.UnitPlayers(), labels=y)
        >>> attribute(game, "occlusion"), attribute(game, "shapley")
        (tensor([[2., 1.]]), tensor([[1.5000, 0.5000]]))
    """
    return get_method(method, options)(game)


def get_method(method: str | Method, options: dict[str, Any]) -> Callable[[MaskedGame], Tensor]:
    """A method with its options, checked, as a function of the game alone."""
    if not callable(method):
        one_of("method", method, METHODS)
        method = METHODS[method]
    parameters = list(inspect.signature(method).parameters.values())[1:]
    known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    unknown = [name for name in options if name not in known]
    if unknown and len(known) == len(parameters):
        there = f"options out of {', '.join(known)}" if known else "no options"
        raise InputError("options", ", ".join(unknown), f"{there} for {_name(method)}")
    missing = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind is not p.VAR_KEYWORD and p.name not in options
    ]
    if missing:
        raise InputError("options", f"no {missing[0]}", f"{missing[0]} for {_name(method)}")
    return partial(_checked, method, options)


def _checked(method: Method, options: dict[str, Any], game: MaskedGame) -> Tensor:
    found = method(game, **options)
    wanted = (len(game.present), game.n)
    if not isinstance(found, Tensor) or found.shape != wanted:
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise InputError("method", f"{got} from {_name(method)}", f"a tensor {wanted}")
    return found.detach()


def _name(method: Method) -> str:
    return getattr(method, "__name__", type(method).__name__)
