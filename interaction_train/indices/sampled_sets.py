"""Sampled multivariate interactions B([S]) and their strength T([S])."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interaction_train.errors import InputError
from interaction_train.game.masked import MaskedGame
from interaction_train.indices.curve import require_finite
from interaction_train.sampling import coalitions
from interaction_train.sampling.random import Draws, content_hash

_ROWS = 8192


@dataclass(frozen=True)
class Multivariate:
    """B([S]) of B samples, in the unit of the payoff; float64.

    Attributes:
        value: ``(B,)``, unbiased.
        stderr: ``(B,)``, standard errors over contexts.
        contexts: number of contexts.
        evaluations: coalitions evaluated per sample.
    """

    value: Tensor
    stderr: Tensor
    contexts: int
    evaluations: int


@dataclass(frozen=True)
class Strength:
    """T([S]) of B samples, as a bracket; in the unit of the payoff, float64.

    Attributes:
        lower: ``(B,)``: the partitions that look best and worst in one half of the contexts,
            evaluated in the other. Unbiased for those two partitions, so in the mean at most T.
        lower_stderr: ``(B,)``, standard errors over contexts.
        search: ``(B,)``: the same partitions in the half that they were chosen in, which favours
            them. Where partitions are enumerated its mean is at least T.
        highest: ``(B, |S|)`` int64, the block of each player of S in the partition that maximises.
        lowest: ``(B, |S|)``, in the one that minimises.
        exhaustive: whether all partitions took part.
        contexts: number of contexts of each half.
        evaluations: coalitions evaluated per sample.
    """

    lower: Tensor
    lower_stderr: Tensor
    search: Tensor
    highest: Tensor
    lowest: Tensor
    exhaustive: bool
    contexts: int
    evaluations: int


def sample_multivariate(
    game: MaskedGame,
    subset: Sequence[int],
    contexts: int = 100,
    *,
    seed: int = 0,
    name: str = "multivariate",
) -> Multivariate:
    """B([S]) = φ([S] | N∖S ∪ {[S]}) − Σ_{i∈S} φ(i | N∖S ∪ {i}) (survey, Eq. 8).

    All these Shapley values average over the same contexts T ⊆ N∖S, which hold each player with
    one probability from U(0, 1): a context costs |S| + 2 evaluations.

    Args:
        game: the game of B samples, with one number per coalition.
        subset: S, distinct players.
        contexts: number of contexts, at least 2.
        seed: seed of the draws.
        name: name of the draws.

    Raises:
        InputError: fewer than 2 contexts, players that repeat or do not exist, several numbers per
            coalition, or a payoff that is not finite.
    """
    inside = _Subset(game, subset, contexts, Draws(content_hash(game.present), seed, name))
    size = len(inside.players)
    single = torch.eye(size, dtype=torch.bool, device=inside.players.device)
    parts = torch.cat([torch.zeros_like(single[:1]), torch.ones_like(single[:1]), single])
    coefficients = torch.tensor([size - 1, 1, *[-1] * size], dtype=torch.float64)
    mean, error = inside.moments(
        parts.expand(len(game.present), -1, -1), coefficients[:, None], "contexts", contexts
    )
    return Multivariate(mean[:, 0], error[:, 0], contexts, contexts * (size + 2))


def sample_strength(
    game: MaskedGame,
    subset: Sequence[int],
    contexts: int = 100,
    *,
    enumerate_up_to: int = 8,
    candidates: int = 64,
    rounds: int = 8,
    seed: int = 0,
    name: str = "strength",
) -> Strength:
    """T([S]) = max_Ω − min_Ω of Σ_{C∈Ω} φ([C] | N∖S ∪ {[C]}) over partitions Ω (survey, Eq. 10).

    Small sets: all 2^|S| blocks are evaluated in every context and all partitions compared, by
    dynamic programming. Larger ones: partitions are sampled (survey, Sec. 2.2.3), by the
    cross-entropy method, each round from the blocks that the best ones of the last gave their
    players.

    A maximum over noisy values is biased up. So the partitions are chosen in one half of the
    contexts and evaluated in the other (:class:`Strength`).

    Args:
        game: the game of B samples, with one number per coalition.
        subset: S, distinct players.
        contexts: contexts of each half, at least 2.
        enumerate_up_to: the largest |S| whose blocks are all evaluated, at most 12.
        candidates: partitions per round of the search, for each of the maximum and the minimum.
        rounds: rounds of the search.
        seed: seed of the draws.
        name: name of the draws.

    Raises:
        InputError: an argument out of its range, players that repeat or do not exist, several
            numbers per coalition, or a payoff that is not finite.
    """
    for argument, value, least in (("candidates", candidates, 8), ("rounds", rounds, 1)):
        if value < least:
            raise InputError(argument, value, f"at least {least}")
    if not 0 <= enumerate_up_to <= 12:
        raise InputError("enumerate_up_to", enumerate_up_to, "0 … 12")
    inside = _Subset(game, subset, contexts, Draws(content_hash(game.present), seed, name))
    size = len(inside.players)
    exhaustive = size <= enumerate_up_to
    if exhaustive:
        best, found = inside.enumerate(contexts)
        evaluations = contexts << size
    else:
        best, found = inside.search(contexts, candidates, rounds)
        evaluations = 2 * candidates * rounds * contexts * (size + 1)
    lower, error = inside.difference(best, contexts, "confirm")
    return Strength(
        lower,
        error,
        found,
        best[:, 0],
        best[:, 1],
        exhaustive,
        contexts,
        evaluations + 2 * contexts * (size + 1),
    )


class _Subset:
    """S and the contexts around it."""

    def __init__(
        self, game: MaskedGame, subset: Sequence[int], contexts: int, draws: Draws
    ) -> None:
        players = [int(i) for i in subset]
        if (
            not players
            or len(set(players)) < len(players)
            or not set(players) <= set(range(game.n))
        ):
            raise InputError("subset", tuple(players), f"distinct players out of 0 … {game.n - 1}")
        if contexts < 2:
            raise InputError("contexts", contexts, "at least 2")
        self.game, self.draws = game, draws
        self.players = torch.tensor(players, device=game.present.device)

    def moments(
        self, parts: Tensor, coefficients: Tensor, stream: str, contexts: int
    ) -> tuple[Tensor, Tensor]:
        """Mean and standard error over contexts T of Σ_k c_k v(T ∪ C_k).

        Args:
            parts: the C_k, bool ``(B, K, |S|)``.
            coefficients: ``(K, F)`` or ``(B, K, F)``, for F such sums.
            stream: name of the contexts' draws.
            contexts: number of contexts.

        Returns:
            ``(B, F)`` twice.
        """
        batch, count, _ = parts.shape
        coefficients = coefficients.to(self.players.device)
        block = max(1, _ROWS // (batch * count))
        total: Tensor | None = None
        last: Tensor | None = None
        self.game.choose_chunk(batch * count * contexts)
        for start in range(0, contexts, block):
            span = range(start, min(start + block, contexts))
            values = self._values(parts, stream, span, contexts) @ coefficients.unsqueeze(-3)
            values = values.squeeze(2)
            # Keep rates are stratified, one from each slice of (0, 1): neighbours differ by as much
            # as two draws from one slice, all together by more.
            steps = (values if last is None else torch.cat([last, values], 1)).diff(dim=1)
            last = values[:, -1:]
            now = torch.stack([values.sum(1), steps.square().sum(1)])
            total = now if total is None else total + now
        assert total is not None
        mean = total[0] / contexts
        require_finite(mean)
        return mean, (total[1] / (2 * (contexts - 1) * contexts)).sqrt()

    def _values(self, parts: Tensor, stream: str, span: range, contexts: int) -> Tensor:
        """v(T ∪ C_k), ``(B, contexts of the span, 1, K)`` float64."""
        place = torch.tensor(span, device=self.players.device)
        keep = (place + self.draws.uniform(f"keep {stream}", span)) / contexts
        keys = self.draws.bits(f"players {stream}", span, self.game.n)
        rows = coalitions.bernoulli(keys, keep.unsqueeze(-1))
        rows = rows.unsqueeze(2).repeat(1, 1, parts.shape[1], 1)
        rows[..., self.players] = parts.unsqueeze(1)
        values = self.game(rows.flatten(1, 2))
        if values.dim() != 2:
            raise InputError("payoff", "one value per class", "one number per coalition")
        return values.double().unflatten(1, (len(span), 1, -1))

    def difference(self, labels: Tensor, contexts: int, stream: str) -> tuple[Tensor, Tensor]:
        """The sums over the blocks of two partitions ``(B, 2, |S|)``, their difference."""
        blocks = self._blocks(labels)
        size = blocks.shape[-1]
        used = blocks.any(-1).double()
        sign = torch.tensor([1.0, -1.0], dtype=torch.float64, device=used.device)
        weights = (used * sign[:, None]).flatten(1)
        # Blocks without a player stand for v(T), which every used block subtracts.
        empty = (used.sum(-1) * sign).sum(-1, keepdim=True)
        parts = torch.cat([blocks.flatten(1, 2), blocks.new_zeros(len(blocks), 1, size)], 1)
        coefficients = torch.cat([weights, -empty], 1).unsqueeze(-1)
        mean, error = self.moments(parts, coefficients, stream, contexts)
        return mean[:, 0], error[:, 0]

    def _blocks(self, labels: Tensor) -> Tensor:
        """The blocks of partitions ``(..., |S|)``: bool ``(..., |S| blocks, |S|)``."""
        names = torch.arange(labels.shape[-1], device=labels.device)
        return labels.unsqueeze(-2) == names[:, None]

    def enumerate(self, contexts: int) -> tuple[Tensor, Tensor]:
        """The best and worst of all partitions, ``(B, 2, |S|)``, and their difference ``(B,)``."""
        batch, size = len(self.game.present), len(self.players)
        device = self.players.device
        numbers = torch.arange(1 << size, device=device)
        parts = (numbers[:, None] >> torch.arange(size, device=device)).bitwise_and(1).bool()
        identity = torch.eye(len(parts), dtype=torch.float64)
        g, _ = self.moments(parts.expand(batch, -1, -1), identity, "search", contexts)
        phi = g - g[:, :1]
        labels, values = [], []
        for sign in (1, -1):
            best = torch.zeros_like(phi)
            block = torch.zeros_like(phi, dtype=torch.int64)
            for m in range(1, 1 << size):  # every block with the lowest player of m, then the rest
                inside = numbers[1 : m + 1]
                inside = inside[((inside & ~m) == 0) & ((inside & (m & -m)) != 0)]
                value, at = (sign * phi[:, inside] + best[:, m ^ inside]).max(-1)
                best[:, m], block[:, m] = value, inside[at]
            label = torch.zeros(batch, size, dtype=torch.int64, device=device)
            rest = torch.full((batch, 1), (1 << size) - 1, device=device)
            for k in range(size):
                taken = block.gather(1, rest)
                label = torch.where(parts[taken.squeeze(1)], k, label)
                rest = rest ^ taken
            labels.append(label)
            values.append(best[:, -1])
        return torch.stack(labels, 1), values[0] + values[1]

    def search(self, contexts: int, candidates: int, rounds: int) -> tuple[Tensor, Tensor]:
        """The best and worst partitions found by the cross-entropy method, as in enumerate."""
        batch, size = len(self.game.present), len(self.players)
        device = self.players.device
        # The probabilities of each player's block, for the maximum and the minimum.
        law = torch.full((batch, 2, size, size), 1 / size, dtype=torch.float64, device=device)
        sign = torch.tensor([1.0, -1.0], dtype=torch.float64, device=device)[:, None]
        best = torch.arange(size, device=device).expand(batch, 2, -1)
        value = torch.zeros(batch, 2, dtype=torch.float64, device=device)
        whole = torch.zeros_like(best).unsqueeze(2)
        for step in range(rounds):
            noise = self.draws.uniform(f"round {step}", 2, candidates, size, size).double()
            gumbel = -(-noise.clamp(min=1e-9).log()).log()
            drawn = (law.log().unsqueeze(2) + gumbel).argmax(-1)
            labels = torch.cat([drawn[:, :, 2:], best.unsqueeze(2), whole], 2)
            scores = sign * self._scores(labels, contexts)
            top, at = scores.topk(max(2, candidates // 8), -1)
            elite = labels.gather(2, at.unsqueeze(-1).expand(-1, -1, -1, size))
            best, value = elite[:, :, 0], sign.squeeze(-1) * top[:, :, 0]
            held = torch.nn.functional.one_hot(elite, size).double().mean(2)
            law = (0.3 * law + 0.7 * held).clamp(min=0.02 / size)
        return best, value[:, 0] - value[:, 1]

    def _scores(self, labels: Tensor, contexts: int) -> Tensor:
        """Σ_C φ([C]) of partitions ``(B, 2, R, |S|)`` over the contexts of the search."""
        batch, size = labels.shape[0], labels.shape[-1]
        blocks = self._blocks(labels).flatten(1, 2)
        used = blocks.any(-1).double()
        count = used.shape[1]
        parts = torch.cat([blocks.flatten(1, 2), blocks.new_zeros(batch, 1, size)], 1)
        weights = torch.zeros(batch, count, size, count, dtype=torch.float64, device=used.device)
        places = torch.arange(count, device=used.device)
        weights[:, places, :, places] = used.movedim(1, 0)
        empty = -used.sum(-1).unsqueeze(1)
        mean, _ = self.moments(
            parts, torch.cat([weights.flatten(1, 2), empty], 1), "search", contexts
        )
        return mean.unflatten(1, labels.shape[1:3])
