"""The interaction-reduction attacks by name: short constructors over the one loop."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from interaction_train.attacks.attack import TransferAttack
from interaction_train.attacks.objectives import InteractionObjective, Loss
from interaction_train.attacks.parts import (
    GaussianAveraging,
    InputDiversity,
    Momentum,
    TranslationInvariance,
)
from interaction_train.attacks.skip import SkipGradient
from interaction_train.game.players import GridPlayers
from interaction_train.losses.reduction import GroupReduction


class IRAttack(TransferAttack, sets=("objective", "parts")):
    """The interaction-reduced attack (survey, Sec. 5.1, Eq. 18 and 19).

    Maximises loss − λ·Î, with Î the interactions inside the perturbation. With the margin as loss
    this is (1 − λ)·v(N) + λ·E_A[v(N∖A) + v(A)] − λ·v(∅): at the default λ = 1 what remains is the
    masked ablation, :class:`~interaction_train.attacks.MaskedObjective` on the margin. Published:
    ``loss="cross_entropy"``, eps = 16/255, 100 steps, a 16 × 16 grid and 32 draws of 32 cells.

    Args:
        model: this, ``eps``, ``alpha`` and ``steps`` as in :class:`TransferAttack`.
        weight: λ.
        grid: cells along each side of the image.
        draws: groups per step; a step costs 2·draws + 1 forward passes.
        size: cells in a group.
        loss: ``"margin"`` or ``"cross_entropy"``.
        mix: ``"losses"`` or ``"gradients"``, as in :class:`InteractionObjective`.
        decay: of momentum; None for no momentum.
        common: the other settings of :class:`TransferAttack`.

    Examples:
        >>> import torch
        >>> from interaction_train.models import DigitsNet, pretrained
        >>> model = pretrained(DigitsNet(), "digits_cnn")
        >>> attack = IRAttack(model, eps=0.1, alpha=0.02, steps=3, grid=4, draws=4, size=4)
        >>> images, labels = torch.rand(2, 1, 8, 8), torch.tensor([3, 8])
        >>> float((attack(images, labels) - images).abs().max()) <= 0.1 + 1e-6
        True
    """

    def __init__(
        self,
        model: nn.Module,
        eps: float = 8 / 255,
        alpha: float = 2 / 255,
        steps: int = 20,
        weight: float = 1.0,
        grid: int = 16,
        draws: int = 32,
        size: int = 32,
        loss: Loss = "margin",
        mix: Literal["losses", "gradients"] = "losses",
        decay: float | None = None,
        **common: Any,
    ) -> None:
        reduction = GroupReduction(GridPlayers(grid, grid), draws, size)
        objective = InteractionObjective(loss, weight, mix, reduction)
        parts = [] if decay is None else [Momentum(decay)]
        super().__init__(model, eps, alpha, steps, objective=objective, parts=parts, **common)


class HybridIRAttack(IRAttack):
    """MI + VR + SGM + DI + TI + IR, the survey's strongest combination (Table 2).

    Costs ``samples`` forward passes for VR, 2·draws + 1 for IR, and none for the others.

    Args:
        model: a network with residual blocks, for SGM.
        decay: of momentum (MI).
        samples: noisy copies per step (VR).
        sigma: standard deviation of their noise (VR).
        gamma: share of the gradient through residual branches (SGM); 1 for networks without them.
        resize_rate: extreme scale (DI).
        probability: that an image is resized in a step (DI).
        kernel_size: width of the smoothing kernel in pixels (TI).
        common: the other arguments of :class:`IRAttack`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        decay: float = 1.0,
        samples: int = 20,
        sigma: float = 15 / 255,
        gamma: float = 0.5,
        resize_rate: float = 0.9,
        probability: float = 0.5,
        kernel_size: int = 15,
        **common: Any,
    ) -> None:
        super().__init__(model, decay=None, **common)
        self.parts = [] if gamma == 1 else [SkipGradient(gamma)]
        self.parts += [
            GaussianAveraging(samples, sigma),
            InputDiversity(resize_rate, probability),
            TranslationInvariance(kernel_size),
            Momentum(decay),
        ]
