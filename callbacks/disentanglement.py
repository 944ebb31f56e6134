"""The disentanglement D(m) of a network's interactions, followed in training or measured once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L
from matplotlib.figure import Figure

from interaction_train.callbacks.monitor import Result
from interaction_train.callbacks.sampled_metric import SampledMetric, contexts_range
from interaction_train.errors import InputError
from interaction_train.indices.readings import READINGS, Reading
from interaction_train.metrics import Disentanglement
from interaction_train.tracking.figures import spectrum_figure


class DisentanglementMonitor(SampledMetric):
    """Measures D(m) (:class:`~interaction_train.metrics.Disentanglement`) on a fixed sample.

    D(m) is 1 where interactions of order m have one sign in all contexts. With K contexts the
    plug-in reading cannot fall below a floor of about 1/√K (exactly that for normal Δ of mean 0),
    which the figure, the table and the files show beside it; it is 1 at the end orders, which have
    one context.

    Samples, keys and files are as with
    :class:`~interaction_train.callbacks.interaction_spectrum.SpectrumMonitor`:
    ``val/disentanglement/D/<ratio>`` with ``D_stderr/<ratio>``, ``disentanglement.csv`` and so on.

    Args:
        samples: number of samples, over all processes.
        contexts: contexts per pair and order, in the mean; at least 2. The floor falls with them.
        payoff: what the game reads off the logits.
        reading: which reading is logged, ``plug_in`` or ``split_sign``.
        more: see :class:`~interaction_train.callbacks.sampled_metric.SampledMetric`.

    Raises:
        InputError: an argument out of its range.
    """

    name, letter, stem = "disentanglement", "D", "disentanglement"
    metric_class = Disentanglement

    def __init__(
        self,
        samples: int = 8,
        contexts: int = 8,
        payoff: str = "log_prob",
        reading: Reading = "plug_in",
        **more: Any,
    ) -> None:
        if reading == "rms":
            raise InputError("reading", repr(reading), "'plug_in' or 'split_sign'")
        super().__init__(samples=samples, contexts=contexts, payoff=payoff, reading=reading, **more)

    @property
    def shown(self) -> Mapping[str, str]:
        return {"D_plug_in": "D plug-in", "D_split_sign": "D split"}

    def measure(self, trainer: L.Trainer, pl_module: L.LightningModule, loader: Any) -> Result:
        result = super().measure(trainer, pl_module, loader)
        return {**result, "floor": [count**-0.5 for count in result["contexts"]]}

    def figures(self, result: Result) -> Mapping[str, Figure]:
        title = f"Disentanglement, {self._grid}, {result['samples']} samples"
        return {"disentanglement/spectrum": spectrum_figure(self.curves(result), title, "D(m)")}

    def curves(self, result: Result) -> dict[str, dict[str, Any]]:
        wanted = [(result, reading, "") for reading in READINGS[:2]]
        if "adversarial" in result:
            wanted = [(result, self.reading, "clean, ")]
            wanted += [(result["adversarial"], self.reading, "adversarial, ")]
        return {
            images + reading.replace("_", "-"): {
                "orders": result["orders"],
                "value": part[f"D_{reading}"],
                "stderr": part[f"D_{reading}_stderr"],
            }
            for part, reading, images in wanted
        } | {
            "floor of plug-in, 1/√contexts": {
                "orders": result["orders"],
                "value": result["floor"],
                "stderr": [0.0] * len(result["floor"]),
            }
        }

    def caption(self, result: Result) -> str:
        return (
            "± one standard error over samples; plug-in is biased up, with a floor of about "
            f"1/√contexts, split-sign down ({contexts_range(result)} contexts per pair)"
        )
