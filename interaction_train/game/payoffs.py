"""What the payoff v(S) reads off the logits of a masked input.

Every payoff takes ``logits`` of shape ``(..., classes)``, two classes or more, and ``labels``
(int64) that broadcast to ``(...)``, and returns a tensor of shape ``(...)``; :func:`all_logits`
keeps the classes. Half precision logits are read in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from interaction_train.errors import InputError, refuse_one_logit

Payoff = Callable[..., Tensor]


def _index(logits: Tensor, labels: Tensor) -> Tensor:
    return labels.expand(logits.shape[:-1]).unsqueeze(-1)


def _others(logits: Tensor, labels: Tensor) -> Tensor:
    logits = all_logits(logits)
    return logits.scatter(-1, _index(logits, labels), -torch.inf)


def logit(logits: Tensor, labels: Tensor) -> Tensor:
    """The label's logit z_y."""
    return all_logits(logits).gather(-1, _index(logits, labels)).squeeze(-1)


def log_prob(logits: Tensor, labels: Tensor) -> Tensor:
    """log p_y of the softmax."""
    return logit(all_logits(logits).log_softmax(-1), labels)


def log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """log(p_y / (1 - p_y)), as z_y - logsumexp of the other logits: no rounding of p to 0 or 1.

    The payoff of the multi-order spectra (survey, Sec. 5.4).

    Examples:
        >>> logits = torch.tensor([[2.0, 0.0]])
        >>> log_odds(logits, torch.tensor([0]))  # with two classes the difference of the logits
        tensor([2.])
    """
    return logit(logits, labels) - _others(logits, labels).logsumexp(-1)


def margin(logits: Tensor, labels: Tensor, rivals: Tensor | None = None) -> Tensor:
    """z_y minus a rival's logit: the best other class, or the fixed class ``rivals`` (int64).

    Examples:
        >>> logits = torch.tensor([[3.0, 2.5, 1.0]])
        >>> margin(logits, torch.tensor([0])), margin(logits, torch.tensor([0]), torch.tensor([2]))
        (tensor([0.5000]), tensor([2.]))
    """
    other = _others(logits, labels).amax(-1) if rivals is None else logit(logits, rivals)
    return logit(logits, labels) - other


def best_rival(logits: Tensor, labels: Tensor) -> Tensor:
    """The best class other than the label, int64 ``(...)``."""
    return _others(logits, labels).argmax(-1)


def all_logits(logits: Tensor, labels: Tensor | None = None) -> Tensor:
    """Every logit, ``(..., classes)``; a single one is refused, here for all payoffs."""
    refuse_one_logit(logits)
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


PAYOFFS: dict[str, Payoff] = {
    "logit": logit,
    "log_prob": log_prob,
    "log_odds": log_odds,
    "margin": margin,
    "all": all_logits,
}


def get_payoff(payoff: str | Payoff) -> Payoff:
    """Look a payoff up by name; callables pass through."""
    if callable(payoff):
        return payoff
    if payoff not in list(PAYOFFS):
        raise InputError("payoff", repr(payoff), f"one of {', '.join(PAYOFFS)}, or a callable")
    return PAYOFFS[payoff]
