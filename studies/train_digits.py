"""Trains the packaged digits networks: ``python studies/train_digits.py``.

A convolutional, a residual and a fully connected network, one process, fixed seeds, under a minute
on two cores. Writes ``<name>.safetensors`` with the plain state dict, float32, into the folder of
the packaged weights (or the one that is given), and prints accuracy on the test split, which
training does not see. The last weights count: nothing is chosen on the test split.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import DIGITS, ROOT, quiet, train_and_save


def main() -> None:
    """Train, save and print."""
    packaged = ROOT / "interaction_train" / "models" / "pretrained"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=packaged)
    folder = parser.parse_args().folder
    quiet()
    for seed, (name, build) in enumerate(DIGITS.items()):
        train_and_save(build, "digits", folder / f"digits_{name}.safetensors", seed, augment=True)


if __name__ == "__main__":
    main()
