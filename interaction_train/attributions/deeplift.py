from __future__ import annotations
from torch import Tensor
from interaction_train.attributions.backpropagation import pair_attributions
from interaction_train.attributions.secant import Secant
from interaction_train.game.masked import MaskedGame


def deeplift_rescale(game: MaskedGame) -> Tensor:
    return pair_attributions(game, Secant)
