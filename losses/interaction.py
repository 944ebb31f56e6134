"""The interaction loss, which takes the place of dropout."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor, nn

from interaction_train.errors import InputError, one_of
from interaction_train.game.layers import ForwardRecord
from interaction_train.game.payoffs import Payoff, best_rival, get_payoff, margin
from interaction_train.game.players import Players
from interaction_train.losses.base import CurveTerm, checked_batch, hard
from interaction_train.losses.groups import (
    check_groups,
    group_coalitions,
    group_differences,
    row_count,
)
from interaction_train.sampling import coalitions
from interaction_train.sampling.random import Draws

Form = Literal["squared", "abs_mean", "unbiased_square"]
Scope = Literal["context", "sample", "batch"]


class InteractionLoss(CurveTerm):
    """Strength of the interactions between random groups of units (survey, Sec. 5.3, Eq. 20).

    Disjoint groups A, B of players and a context S outside them, with a keep rate drawn from
    U(0, 1), give Δ = v(S∪A∪B) − v(S∪A) − v(S∪B) + v(S). The loss is 0 for a network that is
    additive over the players, for the payoffs ``logit``, ``all``, ``margin`` and, with two classes,
    ``log_odds``.

    Soft labels stand for their largest class.

    Args:
        layer: dotted name of the layer whose units are the players: to begin with, the last hidden
            one; of two classes an earlier one. Default: the input's parts.
        players: how the input, or the layer's output, splits into players.
        group_fraction: size of each group as a fraction of the players, at least one player.
        contexts: contexts K per sample and step.
        groups: number of groups per context. More than two share their evaluations: 5 groups give
            10 differences for 16 rows instead of 40.
        fresh_groups: whether groups are drawn afresh per ``"context"``, per ``"sample"``, or once
            per ``"batch"`` as in the released code. Default: per context for the form
            ``"squared"``, else per sample.
        payoff: a name in :data:`~interaction_train.game.payoffs.PAYOFFS`. ``margin`` fixes the
            rival to the best other class of the unmasked sample.
        form: ``"squared"``: mean over contexts and samples of Δ², what the released code trains.
            ``"abs_mean"``: per sample and pair of groups |mean over contexts of Δ|, Eq. 20 read
            literally. ``"unbiased_square"``: the product of the means over two halves of the
            contexts, whose expectation is the square of the mean.
        **shared: the settings of :class:`~interaction_train.losses.base.PlayerTerm`.

    Raises:
        InputError: an argument out of its range, or two that do not go together.

    Examples:
        >>> from interaction_train.models import DigitsNet
        >>> interaction = InteractionLoss(layer="classifier.2")
        >>> x, y = torch.rand(4, 1, 8, 8), torch.tensor([1, 2, 3, 4])
        >>> value = interaction(DigitsNet(), x, y)
        >>> value.shape, value.requires_grad
        (torch.Size([]), True)
    """

    payoff: Payoff

    def __init__(
        self,
        layer: str | None = None,
        players: Players | None = None,
        *,
        group_fraction: float = 0.25,
        contexts: int = 1,
        groups: int = 2,
        fresh_groups: Scope | None = None,
        payoff: str | Payoff = "log_odds",
        form: Form = "squared",
        batch_fraction: float = 0.25,
        **shared: Any,
    ) -> None:
        super().__init__(players, layer, batch_fraction=batch_fraction, **shared)
        check_groups(groups)
        one_of("form", form, ("squared", "abs_mean", "unbiased_square"))
        scope = fresh_groups or ("context" if form == "squared" else "sample")
        one_of("fresh_groups", scope, ("context", "sample", "batch"))
        if scope == "context" and form != "squared":
            expected = f"'sample' or 'batch': form {form!r} averages over contexts"
            raise InputError("fresh_groups", repr(scope), expected)
        if contexts < 1 or (form == "unbiased_square" and contexts % 2):
            expected = "an even number" if form == "unbiased_square" else "at least 1"
            raise InputError("contexts", contexts, expected)
        if not 0 < group_fraction < 1 / groups:
            expected = f"between 0 and 1/{groups}, so that contexts remain"
            raise InputError("group_fraction", group_fraction, expected)
        self.group_fraction, self.contexts, self.groups = group_fraction, contexts, groups
        self.fresh_groups, self.form = scope, form
        self.__dict__["payoff"] = get_payoff(payoff)  # a module's weights are not the term's

    def rows(self, batch: int) -> int:
        """Rows that a step sends through the network."""
        return self.n_samples(batch) * self.contexts * row_count(self.groups)

    def size(self, n: int) -> int:
        """Players per group, of n players; raises InputError where no contexts remain."""
        size = max(1, round(self.group_fraction * n))
        if size * self.groups >= n:
            got = f"{self.group_fraction} ({self.groups} groups of {size} players)"
            expected = f"fewer than the {n} players, so that contexts remain"
            raise InputError("group_fraction", got, expected)
        return size

    def curve(self, n: int) -> dict[int, float]:
        size = self.size(n)
        contexts = range(n - self.groups * size + 1)  # their sizes, which are equally likely
        curve = dict.fromkeys(range(n + 1), 0.0)
        for s, (more, coefficient) in product(contexts, ((2, 1), (1, -2), (0, 1))):
            curve[s + more * size] += coefficient / len(contexts)
        return curve

    def draw(self, draws: Draws, n: int) -> Tensor:
        """The coalitions of every context, bool ``(n_samples, contexts, rows, n)``."""
        # The rank of a key decides its group, its low bits the context: they are independent.
        keys = draws.bits("contexts", self.contexts, n)
        group_keys = keys
        if self.fresh_groups == "sample":
            group_keys = draws.bits("groups", 1, n)
        elif self.fresh_groups == "batch":
            one = replace(draws, content=torch.zeros_like(draws.content[:1]))
            group_keys = one.bits("groups", 1, n)
        group = coalitions.disjoint_groups(group_keys, [self.size(n)] * self.groups)
        context = coalitions.bernoulli(keys, draws.uniform("keep", self.contexts, 1))
        return group_coalitions(group.expand_as(keys), context, self.groups)

    def differences(
        self, model: nn.Module, x: Tensor, y: Tensor, forward: ForwardRecord, step: int
    ) -> Tensor:
        """Δ ``(n_samples, contexts, pairs)``; ``classes`` is a last axis for the payoff ``all``."""
        n_samples = self.n_samples(len(x))
        x, y = x[:n_samples], y[:n_samples]
        build, present = self.place(model, x, forward)
        n = self.players.count(present.shape[1:])
        rivals = None
        if self.payoff is margin:
            logits = forward.logits
            if logits is None:
                everyone = torch.ones(1, n, dtype=torch.bool, device=x.device)
                logits = build(present, payoff="all")(everyone).squeeze(1)
            rivals = best_rival(logits[:n_samples].detach(), y)
        masks = self.draw(self.draws(x, step), n)
        game = build(present, payoff=self.payoff, labels=y, rivals=rivals)
        values = game(masks.flatten(1, 2), grad=True)
        delta = group_differences(values.unflatten(1, masks.shape[1:3]), self.groups)
        self.warn_of_nothing(
            model, x, [values], delta,
            lambda model, x: self.differences(model, x, y, ForwardRecord(), step),
        )  # fmt: skip
        return delta

    def compute(
        self, model: nn.Module, x: Tensor, y: Tensor, forward: ForwardRecord, step: int
    ) -> Tensor:
        checked_batch(x, y)
        delta = self.differences(model, x, hard(y), forward, step)
        if self.form == "squared":
            return delta.square().mean()
        if self.form == "abs_mean":
            return delta.mean(1).abs().mean()
        first, second = delta.chunk(2, dim=1)
        return (first.mean(1) * second.mean(1)).mean()
