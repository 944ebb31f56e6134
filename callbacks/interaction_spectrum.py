"""The interaction spectrum J(m) of a network, followed in training or measured once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from interaction_train.callbacks.monitor import Result
from interaction_train.callbacks.sampled_metric import SampledMetric, contexts_range
from interaction_train.indices.readings import READINGS
from interaction_train.metrics import InteractionSpectrum
from interaction_train.tracking.figures import spectrum_figure


class SpectrumMonitor(SampledMetric):
    """Measures J(m) (:class:`~interaction_train.metrics.InteractionSpectrum`) on a fixed sample.

    The samples are spread evenly over the first validation (or test) loader's data set, the same
    ones every time; each process measures its share. Training is not touched: neither the network
    nor the global RNG state keeps a trace.

    - In ``fit``, after every k-th validation: ``val/interaction/J/<ratio>`` and the signed means
      ``val/interaction/signed/<ratio>``, each with ``…_stderr/<ratio>``, and a figure. At the end
      ``val/interaction/history``, a table of all of them, and a heat map (order × epoch). The
      history is part of checkpoints.
    - In ``validate`` and ``test``: a table, ``spectrum.csv``, ``spectrum.json`` and
      ``spectrum.png`` in the run's folder, and the same keys (``test/…``) to the loggers.

    With an attack the same samples are measured in their adversarial versions too, for their true
    labels (survey, Sec. 5.2: which orders an attack changes): ``val/interaction/adv/…``. J(m) is
    relative to its own mean over orders; the signed means compare clean and adversarial images in
    the unit of the payoff. Samples that the attack fools stay in, also with ``only_correct``.

    ``fast_dev_run`` measures one sample, right or wrong, with two contexts, at three orders.

    Args: see :class:`~interaction_train.callbacks.sampled_metric.SampledMetric`.

    Raises:
        InputError: an argument out of its range.
    """

    name, letter, stem, signed = "interaction", "J", "spectrum", True
    metric_class = InteractionSpectrum

    @property
    def shown(self) -> Mapping[str, str]:
        return {
            "J_plug_in": "J plug-in",
            "J_split_sign": "J split",
            "J_rms": "J rms",
            "signed": "mean I",
        }

    def figures(self, result: Result) -> Mapping[str, Figure]:
        title = f"Interactions, {self._grid}, {result['samples']} samples"
        return {"interaction/spectrum": spectrum_figure(self.curves(result), title)}

    def curves(self, result: Result) -> dict[str, dict[str, Any]]:
        wanted = [(result, reading, "") for reading in READINGS]
        if "adversarial" in result:
            # All three of both would be six bands on top of each other.
            wanted = [(result, self.reading, "clean, ")]
            wanted += [(result["adversarial"], self.reading, "adversarial, ")]
        return {
            images + reading.replace("_", "-"): {
                "orders": result["orders"],
                "value": part[f"J_{reading}"],
                "stderr": part[f"J_{reading}_stderr"],
            }
            for part, reading, images in wanted
        }

    def caption(self, result: Result) -> str:
        return (
            "± one standard error over samples; plug-in is biased up, split-sign down, each most "
            f"where |I| is small ({contexts_range(result)} contexts per pair)"
        )
