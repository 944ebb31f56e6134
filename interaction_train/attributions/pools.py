"""Where the maxima of a max-pooling lie."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from interaction_train.attributions.functions import Call


def pooled(call: Call) -> tuple[int, Tensor, Tensor]:
    """How many last dimensions a call pools over; its values; and where in these they were found.

    Places count through the dimensions that are pooled over, in one number.
    """
    kind = call.name.removesuffix("_with_indices")
    kwargs = {name: value for name, value in call.kwargs.items() if name != "return_indices"}
    with torch.no_grad():
        value, places = getattr(F, f"{kind}_with_indices")(*call.args, **kwargs)
    return int(kind[-2]), value, places
