"""The figure of interaction maps over their images."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from interaction_train.indices.maps import InteractionMaps
from interaction_train.tracking.cell_maps import cell_maps_figure


def interaction_maps_figure(
    images: Tensor, cells: Tensor, maps: InteractionMaps, rows: Sequence[str], title: str
) -> Figure:
    """The plug-in maps Σ_j |I^(m)(i,j)| of every order, and how each came about.

    Arguments and errors: :func:`~interaction_train.tracking.cell_maps.cell_maps_figure`.
    """
    last = maps.plug_in.shape[-1] - 2
    named = {
        f"order {m} of {last}, {maps.told(k)}": maps.plug_in[:, k]
        for k, m in enumerate(maps.orders)
    }
    return cell_maps_figure(images, cells, named, rows, title, signed=False)
