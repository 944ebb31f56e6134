"""Trains the packaged digits networks: ``python studies/train_digits.py``.

A convolutional, a residual and a fully connected network, one process, fixed seeds, under a minute
on two cores. Writes ``<name>.safetensors`` with the plain state dict, float32, into the folder of
the packaged weights (or the one that is given), and prints accuracy on the test split, which
training does not see. The last weights count: nothing is chosen on the test split.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path

from common import DIGITS, ROOT, accuracy, fit, save, splits


def main() -> None:
    """Train, save and print."""
    packaged = ROOT / "interaction_train" / "models" / "pretrained"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=packaged)
    folder = parser.parse_args().folder
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    for seed, (name, build) in enumerate(DIGITS.items()):
        data = splits({"augment": True}, seed)
        network = fit(build, data, seed=seed, epochs=30, lr=0.05, clip=None)
        path = save(network, folder / f"digits_{name}.safetensors")
        shown = f"test accuracy {accuracy(network, data, 'test'):.4f}"
        print(f"digits_{name}: {shown}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
