"""The interaction spectrum J(m) of a network, followed in training or measured once."""

from __future__ import annotations

from typing import ClassVar

from interaction_train.callbacks.sampled_metric import SampledMetric
from interaction_train.metrics import InteractionSpectrum


class SpectrumMonitor(SampledMetric):
    """Measures J(m) (:class:`~interaction_train.metrics.InteractionSpectrum`) on a fixed sample.

    - In ``fit``, after every k-th validation: ``val/interaction/J/<ratio>`` and the signed means
      ``val/interaction/signed/<ratio>``, each with ``…_stderr/<ratio>``, and a figure. At the end
      ``val/interaction/history``, a table of all of them, and a heat map (order × epoch).
    - In ``validate`` and ``test``: a table, ``spectrum.csv``, ``spectrum.json`` and
      ``spectrum.png`` in the run's folder, and the same keys (``test/…``) to the loggers.

    With an attack the same samples are measured in their adversarial versions too (survey,
    Sec. 5.2: which orders an attack changes): ``val/interaction/adv/…``. J(m) is relative to its
    own mean over orders; the signed means compare clean and adversarial images in the unit of the
    payoff. Samples that the attack fools stay in, also with ``only_correct``.

    Args: see :class:`~interaction_train.callbacks.sampled_metric.SampledMetric`.

    Raises:
        InputError: an argument out of its range.
    """

    keys_begin, stem, letter, title = ("interaction",), "spectrum", "J", "Interactions"
    metric_class = InteractionSpectrum
    shown: ClassVar = {
        "J_plug_in": "J plug-in",
        "J_split_sign": "J split",
        "J_rms": "J rms",
        "signed": "mean I",
    }
