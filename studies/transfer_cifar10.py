"""The transfer table on CIFAR-10: ``python studies/transfer_cifar10.py``.

Runs ``configs/transfer_cifar10.yaml`` with trained networks: the published ResNet-20 and -32 from
the folder that INTERACTION_TRAIN_DATA names, ``cifar10_5k.npz`` beside them, and a small VGG that
this script trains first (30 epochs, a few minutes on two cores) and keeps in ``runs``. Further
arguments go to ``interaction-train test``:

- ``--model.steps 2 --data.batch_size 2``: a quick look at four images;
- ``--model.first_batch 2 --trainer.limit_test_batches 4``: the 100 test images after those of the
  table, to choose settings on.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from pathlib import Path

from common import accuracy, fit, save, splits

from interaction_train.cli.main import main as command_line
from interaction_train.models import CIFARVGG

VGG = Path("runs", "transfer_cifar10", "vgg.safetensors")


def train_vgg(source: str) -> None:
    """Train the small VGG; the last weights count. Prints its test accuracy."""
    data = splits({"source": source, "batch_size": 64})
    network = fit(lambda: CIFARVGG(7, batch_norm=True), data, seed=0, epochs=30, lr=0.05, clip=None)
    save(network, VGG)
    print(f"VGG: test accuracy {accuracy(network, data, 'test'):.3f}")


def networks(folder: Path) -> dict[str, object]:
    """The configuration's networks, trained."""

    def network(name: str, **settings: object) -> dict[str, object]:
        return {"class_path": f"interaction_train.models.{name}", "init_args": settings}

    def resnet(depth: int) -> dict[str, object]:
        weights = str(folder / f"cifar_resnet{depth}.safetensors")
        return network("CIFARThinResNet", depth=depth, weights=weights)

    vgg = network(
        "pretrained", model=network("CIFARVGG", depth=7, batch_norm=True), weights=str(VGG)
    )
    return {"resnet20": resnet(20), "vgg": vgg, "resnet32": resnet(32)}


def main() -> None:
    """Train what is missing, and measure."""
    folder = Path(os.environ.get("INTERACTION_TRAIN_DATA", ""))
    source = folder / "cifar10_5k.npz"
    if not source.is_file():
        sys.exit("Set INTERACTION_TRAIN_DATA to a folder with cifar10_5k.npz and the ResNets.")
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if not VGG.is_file():
        train_vgg(str(source))
    command_line([
        "test", "--config", "transfer_cifar10.yaml", "--data.source", str(source),
        "--model.networks", json.dumps(networks(folder)), *sys.argv[1:],
    ])  # fmt: skip


if __name__ == "__main__":
    main()
