"""A loss on all interactions of chosen orders at once, by their Walsh coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from interaction_train.errors import InputError, in_range, one_of, whole
from interaction_train.game.layers import ForwardRecord
from interaction_train.game.payoffs import Payoff, get_payoff
from interaction_train.game.players import Players
from interaction_train.indices.curve import one_number
from interaction_train.indices.exact import summable
from interaction_train.losses.base import PlayerTerm, checked_batch, hard
from interaction_train.losses.difference import Mode
from interaction_train.recovery.kernel import signs, walsh_kernel
from interaction_train.recovery.pairs import project_blocks
from interaction_train.recovery.readings import degree, order_scale, order_variances
from interaction_train.recovery.rows import checked_budget, drawn

Form = Literal["variance", "share"]


class WalshPenalty(PlayerTerm):
    """The variance of v over coalitions that interactions of chosen orders make.

    With v = Σ_S c_S Π_{i∈S} (1 − 2x_i) over coalitions x that hold every player with probability
    ½, order d makes Σ_{|S|=d} c_S² of the variance of v; an order counts the players of S, so that
    1 are main effects and 2 pairs. All coefficients are those of a Walsh kernel fit
    (:func:`~interaction_train.recovery.fit_rows`) with one ρ and one noise, which are fixed: the
    variance is a quadratic form of the values of ``budget`` coalitions, new ones at every step and
    the same for all samples. The fit shrinks, the more the fewer coalitions there are, so that it
    is no unbiased estimate.

    Rows per step: ``budget`` times the samples looked at; beside them a solve of budget³, once.

    Args:
        orders: 1 or more, each at most n.
        mode: ``"penalize"``: the mean over samples is added to the loss. ``"encourage"``: it is
            taken off.
        layer: dotted name of the layer whose units are the players; default: the input's parts.
        players: how the input, or the layer's output, splits into players.
        budget: coalitions, 2n at least (or all 2^n).
        rho: prior variance of a coefficient over that of one with a player less, in (0, 1).
        noise: variance of a value's noise over that of v under the prior, above 0.
        form: ``"variance"``: in the payoff's unit squared. ``"share"``: of the variance of all
            orders, from 0 to 1; it cannot be had by smaller logits, and encouraging it is bounded.
            0 of samples whose v varies by no more than rounding.
        payoff: a name in :data:`~interaction_train.game.payoffs.PAYOFFS` but ``"all"``.
        **shared: the settings of :class:`~interaction_train.losses.base.PlayerTerm`.

    Raises:
        InputError: an argument out of its range, or two that do not go together.

    Examples:
        >>> from interaction_train.game.players import GridPlayers
        >>> from interaction_train.models import DigitsNet
        >>> penalty = WalshPenalty(2, players=GridPlayers(4, 4), baseline=0.0)
        >>> x, y = torch.rand(4, 1, 8, 8), torch.tensor([1, 2, 3, 4])
        >>> value = penalty(DigitsNet(), x, y)
        >>> value.shape, value.requires_grad
        (torch.Size([]), True)
    """

    payoff: Payoff

    def __init__(
        self,
        orders: int | Sequence[int],
        mode: Mode = "penalize",
        layer: str | None = None,
        players: Players | None = None,
        *,
        budget: int = 64,
        rho: float = 0.1,
        noise: float = 0.01,
        form: Form = "variance",
        payoff: str | Payoff = "log_odds",
        batch_fraction: float = 0.25,
        **shared: Any,
    ) -> None:
        super().__init__(players, layer, batch_fraction=batch_fraction, **shared)
        listed = orders if isinstance(orders, Sequence) else [orders]
        self.orders = tuple(whole("orders", order, 1) for order in listed)
        if not self.orders or len({*self.orders}) < len(self.orders):
            raise InputError("orders", self.orders, "different orders from 1 on")
        one_of("mode", mode, ("encourage", "penalize"))
        one_of("form", form, ("variance", "share"))
        in_range("rho", rho, 0, 1, above=True, below=True)
        in_range("noise", noise, 0, torch.inf, above=True, below=True)
        self.mode, self.budget, self.rho, self.noise, self.form = mode, budget, rho, noise, form
        self.__dict__["payoff"] = get_payoff(payoff)  # a module's weights are not the term's

    def rows(self, batch: int) -> int:
        """Rows that a step sends through the network."""
        return self.n_samples(batch) * self.budget

    def told_orders(self, n: int) -> str:
        self._top(n)
        sizes = ", ".join(map(str, self.orders))
        return f"interactions of {sizes} players together, main effects being of 1"

    def variances(
        self, model: nn.Module, x: Tensor, y: Tensor, forward: ForwardRecord, step: int
    ) -> tuple[Tensor, Tensor]:
        """Σ ĉ_S² of every order 1 … D, ``(n_samples, D)``, D at least the largest wanted.

        And the variance that rounding makes of the same values, ``(n_samples,)``.
        """
        x, y = x[: self.n_samples(len(x))], y[: self.n_samples(len(x))]
        build, present = self.place(model, x, forward)
        n = self.players.count(present.shape[1:])
        top = self._top(n)
        draws = self.draws(x[:1], step)
        draws = replace(draws, content=torch.zeros_like(draws.content))
        rows, _ = drawn(draws, n, self.budget)
        game = build(present, payoff=self.payoff, labels=y)
        values = one_number(game(rows, grad=True))
        rounding = torch.finfo(values.dtype).eps * values.detach().double().abs().amax(-1)
        values = summable(values).double()
        rho = torch.full((n,), self.rho, dtype=values.dtype, device=values.device)
        z = signs(rows.to(values.device))
        with torch.no_grad():
            kernel = walsh_kernel(z, z, rho).unsqueeze(0)
            (weights,), _ = project_blocks(kernel, rho.new_tensor(self.noise))
        orders = order_variances(z, values @ weights, rho, top)[:, 1:]
        return orders * order_scale(rho), rounding.square()

    def compute(
        self, model: nn.Module, x: Tensor, y: Tensor, forward: ForwardRecord, step: int
    ) -> Tensor:
        checked_batch(x, y)
        every, rounding = self.variances(model, x, hard(y), forward, step)
        own = every[:, [order - 1 for order in self.orders]].sum(-1)
        if self.form == "share":
            total = every.sum(-1)
            varies = total > rounding
            own = torch.where(varies, own / total.where(varies, 1), 0)
        value = own.mean().to(x.device, torch.float32)
        return value if self.mode == "penalize" else -value

    def _top(self, n: int) -> int:
        """The orders read off, for n players; raises InputError where they do not do."""
        checked_budget(self.budget, n)
        top = degree(torch.full((n,), self.rho**2), n)
        if max(self.orders) > top:
            raise InputError("orders", self.orders, f"at most {top}, of {n} players")
        return top
