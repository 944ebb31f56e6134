"""How strongly the units of an adversarial perturbation interact (survey, Sec. 5.1).

A present player, such as a cell of a grid, shows the adversarial image, an absent one the clean
image. The payoff is the attack's utility, v(S) = max_{y'≠y} h_{y'} − h_y with y' frozen to the best
other class of the full adversarial image, and for a targeted attack h_t − max_{y'≠t} h_{y'}
likewise (Wang et al., "A Unified Approach to … Adversarial Transferability", ICLR 2021).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from interaction_train.errors import InputError, checked_labels
from interaction_train.game.evaluation import eval_logits
from interaction_train.game.masked import MaskedGame
from interaction_train.game.payoffs import best_rival
from interaction_train.game.players import Players
from interaction_train.indices.curve import coalition_values, end_coalitions, mean_interaction
from interaction_train.indices.readings import READINGS
from interaction_train.indices.sampled_pairs import sample_shapley_pairs
from interaction_train.metrics.base import InteractionMetric
from interaction_train.metrics.rows import estimate_rows, perturbation_statistics
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
        model: the network, ``(rows, C, H, W)`` → logits ``(rows, classes)``.
        clean: ``(B, C, H, W)``.
        adversarial: the same images, perturbed.
        labels: ``(B,)`` int64, the true classes.
        players: how an image splits into players.
        targets: ``(B,)`` int64, the classes a targeted attack aimed at.
        chunk_size: rows sent through the network at once; default: the fastest.

    Raises:
        InputError: images, labels, targets, players or outputs that do not fit.
    """
    if clean.shape != adversarial.shape or clean.dtype != adversarial.dtype:
        got = f"{adversarial.dtype} {tuple(adversarial.shape)}"
        raise InputError("adversarial", got, f"{clean.dtype} {tuple(clean.shape)}, as clean")
    if len(clean) == 0:
        raise InputError("clean", f"shape {tuple(clean.shape)}", "at least one image")
    logits = eval_logits(model, adversarial)
    for name, classes in (("labels", labels), ("targets", targets)):
        if classes is not None:
            checked_labels(classes, len(clean), name)
            wrong = classes[(classes < 0) | (classes >= logits.shape[1])]
            if len(wrong):
                raise InputError(name, int(wrong[0]), f"classes 0 … {logits.shape[1] - 1}")
    # The utility is a margin: the target over its best rival, or the best rival over the label.
    if targets is None:
        ours, theirs = best_rival(logits, labels), labels
    else:
        ours, theirs = targets, best_rival(logits, targets)
    return MaskedGame(
        model, adversarial, clean, players, "margin", ours, rivals=theirs, chunk_size=chunk_size
    )


def perturbation_interaction(
    model: nn.Module, clean: Tensor, adversarial: Tensor, labels: Tensor, players: Players, *,
    targets: Tensor | None = None, chunk_size: int | None = None,
) -> Tensor:  # fmt: skip
    """The mean E_{i≠j} I^Shap(i,j) over all pairs of the n players of a perturbation, ``(B,)``.

    Exact, in 2n + 2 forward passes per image
    (:func:`~interaction_train.indices.curve.mean_interaction`). Args: as
    :func:`perturbation_game`, with at least 2 players.

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
    images = model, clean, adversarial, labels, players
    return mean_interaction(perturbation_game(*images, targets=targets, chunk_size=chunk_size))


class PerturbationInteraction(InteractionMetric):
    """How strongly the parts of perturbations interact, over a data set.

    ``compute()`` returns scalars, in the unit of the logits: ``mean``, E_x E_{i≠j} I^Shap(i,j|x)
    over all pairs, exact for every image; E_x E_ij |I^Shap(i,j|x)| over sampled pairs in the
    readings ``plug_in`` and ``split_sign``, which bracket it, and ``rms``; ``gain``, the mean of
    v(N) − v(∅), what the whole perturbation adds to the attack's utility; each with ``_stderr``
    over images; ``contexts`` per pair, and ``samples``. An image costs 2n + 5 forward passes and
    those of the sampled pairs, by default 517 and 27 400.

    Args: see :class:`~interaction_train.metrics.base.InteractionMetric`.
    """

    bars, ylabel = ("mean", *READINGS), "interactions inside the perturbation"
    statistics = staticmethod(perturbation_statistics)

    def update(
        self,
        model: nn.Module,
        clean: Tensor,
        adversarial: Tensor,
        labels: Tensor,
        targets: Tensor | None = None,
    ) -> None:
        """Measure the perturbations of a batch; arguments as in :func:`perturbation_game`."""
        if len(clean) == 0:
            return
        images = model, clean, adversarial, labels, self.players
        game = perturbation_game(*images, targets=targets, chunk_size=self.chunk_size)
        gain = coalition_values(game, end_coalitions(game)).diff(dim=1).squeeze(1)
        exact = mean_interaction(game)
        sampled = sample_shapley_pairs(game, self.pairs, self.contexts, seed=self.seed)
        aims = torch.full_like(labels, -1) if targets is None else targets
        parts = [content_hash(clean), content_hash(adversarial), labels, aims]
        rows = estimate_rows(sampled, gain, exact[:, None])
        self.add(content_hash(torch.stack(parts, 1)), rows)
