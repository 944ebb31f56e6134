"""Sampled multivariate interactions B([S]) and their strength T([S])."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from interaction_train.errors import at_least, in_range
from interaction_train.game.masked import MaskedGame
from interaction_train.game.precision import wide, wide_dtype
from interaction_train.indices.curve import coalition_values
from interaction_train.indices.exact import all_coalitions
from interaction_train.indices.exact_sets import best_partition, checked_subset
from interaction_train.indices.stratified import stratified_mean
from interaction_train.sampling.coalitions import bernoulli
from interaction_train.sampling.random import Draws, content_hash


@dataclass(frozen=True)
class Multivariate:
    """B([S]) of B samples, in the unit of the payoff.

    Attributes:
        value: ``(B,)``, unbiased.
        stderr: ``(B,)``, standard errors over contexts.
        shapley: ``(B,)``, φ([S] | N∖S ∪ {[S]}), unbiased.
        shapley_stderr: ``(B,)``, standard errors over contexts.
        evaluations: coalitions evaluated per sample.
    """

    value: Tensor
    stderr: Tensor
    shapley: Tensor
    shapley_stderr: Tensor
    evaluations: int


@dataclass(frozen=True)
class Strength:
    """T([S]) of B samples, as a bracket; in the unit of the payoff.

    Attributes:
        lower: ``(B,)``: the partitions that look best and worst in one half of the contexts,
            evaluated in the other; in the mean at most T.
        lower_stderr: ``(B,)``, standard errors over contexts.
        search: ``(B,)``: where they were chosen; in the mean at least T if all took part.
        highest: ``(B, |S|)`` int64, the block of each player of S in the partition that maximises.
        lowest: ``(B, |S|)``, in the one that minimises.
        exhaustive: whether all partitions took part.
        evaluations: coalitions evaluated per sample.
    """

    lower: Tensor
    lower_stderr: Tensor
    search: Tensor
    highest: Tensor
    lowest: Tensor
    exhaustive: bool
    evaluations: int


def sample_multivariate(
    game: MaskedGame, subset: Sequence[int], contexts: int = 100, *, seed: int = 0
) -> Multivariate:
    """B([S]) = φ([S] | N∖S ∪ {[S]}) − Σ_{i∈S} φ(i | N∖S ∪ {i}) (survey, Eq. 8).

    All these Shapley values average over the same contexts T ⊆ N∖S, which hold each player with
    one probability from U(0, 1), at |S| + 2 evaluations. Args: as :func:`sample_strength`.
    """
    inside = _Subset(game, subset, contexts, seed, "multivariate")
    size = len(inside.players)
    single = torch.eye(size, dtype=torch.bool, device=inside.players.device)
    parts = torch.cat([torch.zeros_like(single[:1]), torch.ones_like(single[:1]), single])
    coefficients = torch.tensor([[size - 1, 1, *[-1] * size], [-1, 1, *[0] * size]]).T
    mean, error = inside.moments(parts.expand(len(game.present), -1, -1), coefficients, "contexts")
    (value, shapley), (stderr, shapley_stderr) = mean.unbind(1), error.unbind(1)
    return Multivariate(value, stderr, shapley, shapley_stderr, contexts * (size + 2))


def sample_strength(
    game: MaskedGame,
    subset: Sequence[int],
    contexts: int = 100,
    *,
    enumerate_up_to: int = 8,
    candidates: int = 64,
    rounds: int = 8,
    seed: int = 0,
) -> Strength:
    """T([S]) = max_Ω − min_Ω of Σ_{C∈Ω} φ([C] | N∖S ∪ {[C]}) over partitions Ω (survey, Eq. 10).

    Of small sets all partitions are compared, by dynamic programming over all 2^|S| blocks; those
    of larger ones are sampled (survey, Sec. 2.2.3), by the cross-entropy method. A maximum over
    noisy values is biased up, so they are chosen in one half of the contexts and evaluated in the
    other.

    Args:
        game: the game of B samples, whose payoffs are one number, which is finite.
        subset: S, distinct players.
        contexts: contexts of each half, at least 2.
        enumerate_up_to: the largest |S| whose blocks are all evaluated, at most 12.
        candidates: partitions per round of the search, 8 or more, for each of maximum and minimum.
        rounds: rounds of the search, at least 1.
        seed: seed of the draws.

    Raises:
        InputError: an argument out of its range, players that repeat, or a bad payoff.
    """
    at_least("candidates", candidates, 8)
    at_least("rounds", rounds, 1)
    in_range("enumerate_up_to", enumerate_up_to, 0, 12)
    inside = _Subset(game, subset, contexts, seed, "strength")
    size = len(inside.players)
    if exhaustive := size <= enumerate_up_to:
        best, found = inside.enumerate()
        evaluations = contexts << size
    else:
        best, found = inside.search(candidates, rounds)
        evaluations = 2 * candidates * rounds * contexts * (size + 1)
    parts, sums = inside.partitions(best)
    lower, error = inside.moments(parts, sums @ inside.sign[:, None], "confirm")
    evaluations += 2 * contexts * (size + 1)
    high, low = best.unbind(1)
    return Strength(lower[:, 0], error[:, 0], found, high, low, exhaustive, evaluations)


class _Subset:
    """S and the contexts around it."""

    def __init__(
        self, game: MaskedGame, subset: Sequence[int], contexts: int, seed: int, name: str
    ) -> None:
        players = checked_subset(subset, game.n)
        at_least("contexts", contexts, 2)
        self.game, self.contexts = game, contexts
        self.draws = Draws(content_hash(game.present), seed, name)
        self.players = torch.tensor(players, device=game.present.device)
        self.dtype = wide_dtype(self.players.device)
        # Of the maximum and the minimum over partitions.
        self.sign = torch.tensor([1, -1], dtype=self.dtype, device=self.players.device)

    def moments(self, parts: Tensor, coefficients: Tensor, stream: str) -> tuple[Tensor, Tensor]:
        """Mean and standard error over contexts T of F sums Σ_k c_k v(T ∪ C_k), ``(B, F)`` each.

        ``parts`` are the C_k, bool ``(B, K, |S|)``; ``coefficients`` ``(K, F)`` or ``(B, K, F)``.
        """
        count = parts.shape[1]
        coefficients = coefficients.to(self.players.device, self.dtype).unsqueeze(-3)

        def found(span: range) -> Tensor:
            place = torch.tensor(span, device=self.players.device)
            keep = (place + self.draws.uniform(f"keep {stream}", span)) / self.contexts
            keys = self.draws.bits(f"players {stream}", span, self.game.n)
            rows = bernoulli(keys, keep.unsqueeze(-1)).unsqueeze(2).repeat(1, 1, count, 1)
            rows[..., self.players] = parts.unsqueeze(1)
            v = coalition_values(self.game, rows.flatten(1, 2)).unflatten(1, (len(span), 1, -1))
            return (v @ coefficients).squeeze(2)

        return stratified_mean(map(found, self.game.spans(self.contexts, count)), self.contexts)

    def partitions(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The blocks of R partitions ``(B, R, |S|)``, then ∅; what each counts in their Σ_C φ([C]).

        bool ``(B, K, |S|)`` and ``(B, K, R)``, as :meth:`moments` takes them.
        """
        names = torch.arange(labels.shape[-1], device=labels.device)
        blocks = labels.unsqueeze(-2) == names[:, None]
        used = blocks.any(-1).to(self.dtype)
        own = torch.eye(labels.shape[1], dtype=self.dtype, device=labels.device)[:, None]
        # Blocks without a player stand for v(T), which every used block subtracts.
        weights = [(used.unsqueeze(-1) * own).flatten(1, 2), -used.sum(-1).unsqueeze(1)]
        return nn.functional.pad(blocks.flatten(1, 2), (0, 0, 0, 1)), torch.cat(weights, 1)

    def enumerate(self) -> tuple[Tensor, Tensor]:
        """The best and worst of all partitions, ``(B, 2, |S|)``, and their difference ``(B,)``."""
        batch, size = len(self.game.present), len(self.players)
        parts = all_coalitions(size, self.players.device)
        g, _ = self.moments(parts.expand(batch, -1, -1), torch.eye(len(parts)), "search")
        phi = g - g[:, :1]
        best, block = best_partition(torch.stack([phi, -phi], 1))
        label = torch.zeros_like(block[..., :size])
        rest = torch.full_like(label[..., :1], (1 << size) - 1)
        for k in range(size):
            taken = block.gather(-1, rest)
            label = torch.where(parts[taken.squeeze(-1)], k, label)
            rest = rest ^ taken
        return label, best.sum(1)

    def search(self, candidates: int, rounds: int) -> tuple[Tensor, Tensor]:
        """The best and worst partitions found by the cross-entropy method, as in enumerate."""
        batch, size = len(self.game.present), len(self.players)
        device = self.players.device
        # The probabilities of each player's block, for the maximum and the minimum.
        law = torch.full((batch, 2, size, size), 1 / size, dtype=self.dtype, device=device)
        best = torch.arange(size, device=device).expand(batch, 2, -1)
        value = torch.zeros(batch, 2, dtype=self.dtype, device=device)
        whole = torch.zeros_like(best).unsqueeze(2)
        for step in range(rounds):
            noise = wide(self.draws.uniform(f"round {step}", 2, candidates, size, size))
            gumbel = -(-noise.clamp(min=1e-9).log()).log()
            drawn = (law.log().unsqueeze(2) + gumbel).argmax(-1)
            labels = torch.cat([drawn[:, :, 2:], best.unsqueeze(2), whole], 2)
            sums, _ = self.moments(*self.partitions(labels.flatten(1, 2)), "search")
            scores = self.sign[:, None] * sums.unflatten(1, labels.shape[1:3])
            top, at = scores.topk(max(2, candidates // 8), -1)
            elite = labels.gather(2, at.unsqueeze(-1).expand(-1, -1, -1, size))
            best, value = elite[:, :, 0], self.sign * top[:, :, 0]
            held = torch.nn.functional.one_hot(elite, size).to(self.dtype).mean(2)
            law = (0.3 * law + 0.7 * held).clamp(min=0.02 / size)
        return best, value[:, 0] - value[:, 1]
