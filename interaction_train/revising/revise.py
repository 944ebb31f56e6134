"""Revising images by gradient, so that prototypical sets of cells get stronger."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from interaction_train.concepts.features import feature_strengths
from interaction_train.errors import InputError, checked_images, in_range, one_of, whole
from interaction_train.game.absence import input_baseline
from interaction_train.game.evaluation import eval_logits
from interaction_train.game.layers import LayerPrefix
from interaction_train.game.masked import MaskedGame
from interaction_train.game.players import Players
from interaction_train.indices.exact import all_coalitions
from interaction_train.revising.changes import CHANGES, Kind
from interaction_train.revising.revision import Revision
from interaction_train.revising.sets import Choice, check_counts, choose_sets, without_interaction

_LEAST = 1e-3  # of an image's largest gradient: Adam would take rounding for a direction


@torch.inference_mode(False)
def revise_image(
    model: nn.Module,
    layer: str,
    x: Tensor,
    players: Players,
    strengthen: int = 20,
    weaken: int = 300,
    *,
    weight: float = 1.0,
    steps: int = 25,
    change: Kind = "colour",
    sets: Choice = "prototypical",
    step_size: float = 0.05,
    baseline: float | Sequence[float] | str | Path | None = None,
    seed: int = 0,
    chunk_size: int | None = None,
) -> Revision:
    """Strengthen an image's prototypical sets of cells and weaken the others (survey, Sec. 4.3).

    Of the originals the ``strengthen`` sets of two or more players with the largest ‖I(S)‖₂ in the
    layer's output are called prototypical, the ``weaken`` weakest are not, and these stay fixed
    while Adam minimises Σ_weakened ‖I(S)‖₂ − weight · Σ_strengthened ‖I(S)‖₂. Every step takes 2^n
    masked images of each image, forward and backward. An image without interaction in
    the layer stays as it is, with a warning.

    Args:
        model: the network, of pixels in [0, 1].
        layer: dotted name of the layer whose output is the feature.
        x: images ``(B, C, H, W)`` in [0, 1].
        players: n ≤ 16 players, of which the sets are.
        strengthen: m2 of the paper.
        weaken: m1; at most the 2^n − n − 1 − m2 sets that are left.
        weight: λ.
        steps: of Adam, after each of which the parameters are put back into their bounds.
        change: ``"colour"`` for a few settings of each cell
            (:class:`~interaction_train.revising.changes.ColourChange`), in which there is no room
            for adversarial noise; ``"pixels"`` for all pixels.
        sets: ``"random"`` for a control: as many random ones of the sets that are not weakened
            are strengthened in place of the strongest.
        step_size: Adam's, for parameters in [−1, 1] and pixels in [0, 1].
        baseline: of absent cells, as :func:`~interaction_train.game.absence.input_baseline` has it.
        seed: of random sets.
        chunk_size: rows sent through the network at once; with one, memory is flat but for the
            feature, B · d · 2^n numbers.

    Raises:
        InputError: an argument out of its range, images that are none, or a layer without gradient.

    Examples:
        >>> import interaction_train as it
        >>> network = it.pretrained(it.models.DigitsNet(), "digits_cnn")
        >>> x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> found = revise_image(network, "features.2", x, it.GridPlayers(2, 2), 3, 4, steps=5)
        >>> bool(found.ratio[0, -1] > found.ratio[0, 0])
        True
    """
    one_of("change", change, list(CHANGES))
    one_of("sets", sets, ("prototypical", "random"))
    whole("steps", steps, 1)
    in_range("weight", weight, 0, float("inf"), below=True)
    in_range("step_size", step_size, 0, float("inf"), above=True, below=True)
    x = checked_images(x, "x").detach()
    n = players.count(x.shape[1:])
    check_counts(n, strengthen, weaken)
    family = CHANGES[change](x, players)
    prefix, absent = LayerPrefix(model, layer), input_baseline(model, baseline, x)

    def strengths_of(image: Tensor, grad: bool = False) -> Tensor:
        game = MaskedGame(prefix, image, absent, players, "all", chunk_size=chunk_size)
        return feature_strengths(game, grad=grad)

    before = strengths_of(x)
    strong, weak = choose_sets(before, strengthen, weaken, sets, x, seed)

    def sums(strengths: Tensor) -> Tensor:
        return torch.stack([strengths.gather(1, chosen).sum(1) for chosen in (strong, weak)], 1)

    idle = without_interaction(before)
    if bool(idle.any()):
        warnings.warn(_unchanged(idle, layer), stacklevel=3)
    signs = (~idle).unsqueeze(1) * before.new_tensor([-weight, 1.0])
    parameters = family.start.clone().requires_grad_()
    optimizer, history = torch.optim.Adam([parameters], step_size, eps=_LEAST), []
    for _ in range(steps):
        with torch.enable_grad():
            found = sums(strengths_of(family.images(parameters), grad=True))
            gradient = None
            if found.requires_grad:  # not backward, which would leave gradients on the weights
                objective = (signs * found).sum()
                (gradient,) = torch.autograd.grad(objective, parameters, allow_unused=True)
        if gradient is None:
            got = f"{layer!r}, whose output has no gradient with respect to the input"
            raise InputError("layer", got, "one that can be differentiated")
        largest = gradient.abs().amax(tuple(range(1, gradient.dim())), keepdim=True)
        parameters.grad = gradient / largest.clamp(min=torch.finfo(largest.dtype).tiny)
        optimizer.step()
        parameters.data.clamp_(family.low, family.high)
        history.append(found.detach())
    image = family.images(parameters.detach())
    after = strengths_of(image)
    coalitions = all_coalitions(n, x.device)
    return Revision(
        original=x,
        image=image,
        strengthened=coalitions[strong],
        weakened=coalitions[weak],
        strengths=before,
        revised_strengths=after,
        history=torch.stack([*history, sums(after)], 1),
        logits=eval_logits(model, x),
        revised_logits=eval_logits(model, image),
    )


def _unchanged(idle: Tensor, layer: str) -> str:
    places = ", ".join(map(str, idle.nonzero().flatten().tolist()))
    return (
        f"revise_image: in {layer!r} no two cells interact, dividends of two or more players are "
        f"below rounding: unchanged are the samples {places}"
    )
