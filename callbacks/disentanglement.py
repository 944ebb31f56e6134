"""The disentanglement D(m) of a network's interactions, followed in training or measured once."""

from __future__ import annotations

from typing import Any, ClassVar

import lightning as L

from interaction_train.callbacks.monitor import Result
from interaction_train.callbacks.sampled_metric import SampledMetric
from interaction_train.errors import one_of
from interaction_train.indices.readings import READINGS, Reading
from interaction_train.metrics import Disentanglement


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
        n_samples: number of samples, over all processes.
        contexts: contexts per pair and order, in the mean; at least 2. The floor falls with them.
        payoff: what the game reads off the logits.
        reading: which reading is logged, ``plug_in`` or ``split_sign``.
        more: see :class:`~interaction_train.callbacks.sampled_metric.SampledMetric`.

    Raises:
        InputError: an argument out of its range.
    """

    keys_begin, stem, letter = ("disentanglement",), "disentanglement", "D"
    title, floor = "Disentanglement", ", with a floor of about 1/√contexts"
    metric_class = Disentanglement
    shown: ClassVar = {"D_plug_in": "D plug-in", "D_split_sign": "D split"}

    def __init__(
        self,
        n_samples: int = 8,
        contexts: int = 8,
        payoff: str = "log_prob",
        reading: Reading = "plug_in",
        **more: Any,
    ) -> None:
        one_of("reading", reading, READINGS[:2])
        super().__init__(
            n_samples=n_samples, contexts=contexts, payoff=payoff, reading=reading, **more
        )

    def measure(self, trainer: L.Trainer, loader: Any) -> Result:
        result = super().measure(trainer, loader)
        return {**result, "floor": [count**-0.5 for count in result["contexts"]]}

    def curves(self, result: Result) -> dict[str, dict[str, Any]]:
        orders, floor = result["orders"], result["floor"]
        bound = {"orders": orders, "value": floor, "stderr": [0.0] * len(floor)}
        return {**super().curves(result), "floor of plug-in, 1/√contexts": bound}
