"""How strongly the units of an adversarial perturbation interact (survey, Sec. 5.1).

The players are parts of a perturbation δ = adversarial − clean, such as the cells of a grid: a
present part shows the adversarial image, an absent one the clean image. The payoff is the attack's
utility, v(S) = max_{y'≠y} h_{y'} − h_y with y' frozen to the best other class of the full
adversarial image, and for a targeted attack h_t − max_{y'≠t} h_{y'}, y' frozen likewise. The paper
behind it is Wang et al., "A Unified Approach to Interpreting and Boosting Adversarial
Transferability", ICLR 2021.
"""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from interaction_train import indices
from interaction_train.errors import InputError
from interaction_train.game.evaluation import eval_logits
from interaction_train.game.masked import MaskedGame
from interaction_train.game.payoffs import best_rival
from interaction_train.game.players import GridPlayers, Players
from interaction_train.indices import PairEstimates, sample_shapley_pairs
from interaction_train.indices.readings import READINGS
from interaction_train.metrics.base import InteractionMetric
from interaction_train.metrics.rows import (
    Statistics,
    column,
    estimate_rows,
    standard_error,
    strengths,
)
from interaction_train.sampling.pairs import PairSampler, RandomPairs
from interaction_train.sampling.random import content_hash


def perturbation_game(
    model: nn.Module,
    clean: Tensor,
    adversarial: Tensor,
    labels: Tensor,
    players: Players,
    *,
    targets: Tensor | None = None,
    chunk_size: int | None = None,
) -> MaskedGame:
    """The game whose players are the parts of a perturbation; v is the attack's utility.

    Args:
        model: the network, ``(rows, C, H, W)`` → logits ``(rows, classes)``; its modes, statistics
            and gradients stay as they are.
        clean: ``(B, C, H, W)``.
        adversarial: the same images, perturbed.
        labels: ``(B,)`` int64, the true classes.
        players: how an image splits into players.
        targets: ``(B,)`` int64, the classes a targeted attack aimed at.
        chunk_size: rows sent through the network at once; default: the fastest.

    Returns:
        a game whose v(N) is the utility of the whole perturbation, v(∅) that of none.

    Raises:
        InputError: images, labels, targets, players or outputs of the network that do not fit.
    """
    if clean.shape != adversarial.shape or clean.dtype != adversarial.dtype:
        got = f"{adversarial.dtype} {tuple(adversarial.shape)}"
        raise InputError("adversarial", got, f"{clean.dtype} {tuple(clean.shape)}, as clean")
    if len(clean) == 0:
        raise InputError("clean", f"shape {tuple(clean.shape)}", "at least one image")
    logits = eval_logits(model, adversarial)
    for name, classes in (("labels", labels), ("targets", targets)):
        if classes is not None:
            _check_classes(name, classes, logits)
    # The utility is a margin: the target over its best rival, or the best rival over the label.
    ours = targets if targets is not None else best_rival(logits, labels)
    theirs = best_rival(logits, targets) if targets is not None else labels
    return MaskedGame(
        model,
        adversarial,
        clean,
        players,
        "margin",
        ours,
        rivals=theirs,
        chunk_size=chunk_size,
    )


def _check_classes(name: str, classes: Tensor, logits: Tensor) -> None:
    count, number = logits.shape
    if classes.shape != (count,) or classes.dtype != torch.int64:
        raise InputError(name, f"{classes.dtype} {tuple(classes.shape)}", f"int64 ({count},)")
    wrong = classes[(classes < 0) | (classes >= number)]
    if len(wrong):
        raise InputError(name, int(wrong[0]), f"classes 0 … {number - 1}")


def perturbation_interaction(
    model: nn.Module,
    clean: Tensor,
    adversarial: Tensor,
    labels: Tensor,
    players: Players,
    *,
    targets: Tensor | None = None,
    chunk_size: int | None = None,
) -> Tensor:
    """The mean E_{i≠j} I^Shap(i,j) over all pairs of the n players of a perturbation; exact.

    By the closed form E_i[v(N) − v(N∖i) − v({i}) + v(∅)]/(n − 1), in 2n + 2 forward passes per
    image (formula sheet, item 6).

    Args: as :func:`perturbation_game`.

    Returns:
        ``(B,)`` float64, in the unit of the logits.

    Raises:
        InputError: as :func:`perturbation_game`; fewer than 2 players, or a utility that is not
            finite.

    Examples:
        >>> from interaction_train.game.players import UnitPlayers
        >>> def network(x):  # logits 0 and x0 x1: the two units interact
        ...     return torch.stack([torch.zeros(len(x)), x[:, 0, 0, 0] * x[:, 0, 0, 1]], 1)
        >>> model = nn.Module()
        >>> model.forward = network
        >>> clean, adversarial = torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 1, 2)
        >>> perturbation_interaction(model, clean, adversarial, torch.tensor([0]), UnitPlayers())
        tensor([1.], dtype=torch.float64)
    """
    game = perturbation_game(
        model, clean, adversarial, labels, players, targets=targets, chunk_size=chunk_size
    )
    return indices.mean_interaction(game)


def sampled_interactions(
    model: nn.Module,
    clean: Tensor,
    adversarial: Tensor,
    labels: Tensor,
    players: Players,
    *,
    pairs: PairSampler | None = None,
    contexts: int = 100,
    targets: Tensor | None = None,
    seed: int = 0,
    chunk_size: int | None = None,
) -> PairEstimates:
    """I^Shap(i,j) of single pairs of a perturbation's players, sampled.

    ``estimates.over_pairs(plug_in(estimates))`` is the mean of |I| in one of the three readings of
    :mod:`interaction_train.indices.readings`.

    Args:
        model: as in :func:`perturbation_game`, like those not listed here.
        clean: see there.
        adversarial: see there.
        labels: see there.
        players: see there.
        pairs: which pairs; default: random ones.
        contexts: contexts of every pair, at least 2.
        targets: see there.
        seed: seed of the draws, which depend on it and on the adversarial image alone.
        chunk_size: see there.

    Returns:
        estimates with one order, M = 1.

    Raises:
        InputError: as :func:`perturbation_game`; ``contexts`` below 2, or a utility that is not
            finite.
    """
    game = perturbation_game(
        model, clean, adversarial, labels, players, targets=targets, chunk_size=chunk_size
    )
    return sample_shapley_pairs(game, _default(pairs), contexts, seed=seed)


class PerturbationInteraction(InteractionMetric):
    """How strongly the parts of perturbations interact, over a data set.

    ``compute()`` returns scalars, in the unit of the logits: ``mean``, E_x E_{i≠j} I^Shap(i,j|x)
    over all pairs, exact for every image; E_x E_ij |I^Shap(i,j|x)| over sampled pairs in the
    readings ``plug_in`` and ``split_sign``, which bracket it, and ``rms``; ``gain``, the mean of
    v(N) − v(∅), what the whole perturbation adds to the attack's utility; each with ``_stderr``
    over images; ``contexts`` per pair, and ``samples``. NaN without samples.

    An image costs 2n + 5 forward passes and those of the sampled pairs: with the defaults 517 and
    27 400. Where the exact mean is all that is wanted, :func:`perturbation_interaction` gives it
    alone.

    Args:
        players: how an image splits into n players; default: a 16 × 16 grid.
        pairs: which pairs are sampled; default: random ones.
        contexts: contexts of every pair, at least 2.
        seed: seed of the draws.
        chunk_size: rows sent through the network at once; default: the fastest, timed once.
        kwargs: those of ``torchmetrics.Metric``.

    Raises:
        InputError: ``contexts`` below 2.
    """

    def __init__(
        self,
        players: Players | None = None,
        pairs: PairSampler | None = None,
        contexts: int = 100,
        seed: int = 0,
        chunk_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if contexts < 2:
            raise InputError("contexts", contexts, "at least 2")
        self.players = GridPlayers(16, 16) if players is None else players
        self.pairs, self.contexts = _default(pairs), contexts
        self.seed, self.chunk_size = seed, chunk_size

    @property
    def width(self) -> int:
        return 1

    def update(
        self,
        model: nn.Module,
        clean: Tensor,
        adversarial: Tensor,
        labels: Tensor,
        targets: Tensor | None = None,
    ) -> None:
        """Measure the perturbations of a batch.

        Args: as :func:`perturbation_game`.

        Raises:
            InputError: as :func:`perturbation_interaction`.
        """
        if len(clean) == 0:
            return
        game = perturbation_game(
            model,
            clean,
            adversarial,
            labels,
            self.players,
            targets=targets,
            chunk_size=self.chunk_size,
        )
        ends = torch.zeros(2, game.n, dtype=torch.bool, device=clean.device)
        ends[1] = True
        gain = game(ends).double().diff(dim=1).squeeze(1)
        exact = indices.mean_interaction(game)
        sampled = sample_shapley_pairs(game, self.pairs, self.contexts, seed=self.seed)
        aims = torch.full_like(labels, -1) if targets is None else targets
        parts = [content_hash(clean), content_hash(adversarial), labels, aims]
        content = content_hash(torch.stack(parts, 1))
        self.add(content, estimate_rows(sampled, gain, exact[:, None]))

    def statistics(self, rows: Tensor) -> Statistics:
        result: Statistics = {}
        for key, name in (("mean", "signed"), ("gain", "scale")):
            values = column(rows, name)
            result[key], result[f"{key}_stderr"] = values.mean(0), standard_error(values)
        for reading in READINGS:
            value, deviations = strengths(rows, reading)
            result[reading], result[f"{reading}_stderr"] = value, standard_error(deviations)
        result["contexts"] = column(rows, "count").mean(0)
        result = {key: value.squeeze(-1) for key, value in result.items()}
        result["samples"] = torch.tensor(len(rows), device=rows.device)
        return result

    def plot(self, val: Statistics | None = None, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """The mean and the three readings with bars of one standard error.

        Args:
            val: a result of ``compute()``; default: the present one.
            ax: where to draw; default: a new figure.
        """
        val = self.compute() if val is None else val
        figure, axes = self._axes(ax)
        keys = ["mean", *READINGS]
        values = [float(val[key]) for key in keys]
        axes.bar(keys, values, yerr=[float(val[f"{key}_stderr"]) for key in keys])
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set(ylabel="interactions inside the perturbation")
        return figure, axes


def _default(pairs: PairSampler | None) -> PairSampler:
    return RandomPairs() if pairs is None else pairs
