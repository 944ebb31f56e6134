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
import os
import sys
from functools import partial
from pathlib import Path

from common import quiet, train_and_save

from interaction_train.cli.main import main as command_line
from interaction_train.models import CIFARVGG

VGG = Path("runs", "transfer_cifar10", "vgg.safetensors")


def entry(name: str, **settings: object) -> dict[str, object]:
    """A network of the configuration."""
    return {"class_path": f"interaction_train.models.{name}", "init_args": settings}


def main() -> None:
    """Train what is missing, and measure."""
    folder = Path(os.environ.get("INTERACTION_TRAIN_DATA", ""))
    source = folder / "cifar10_5k.npz"
    if not source.is_file():
        sys.exit("Set INTERACTION_TRAIN_DATA to a folder with cifar10_5k.npz and the ResNets.")
    quiet()
    if not VGG.is_file():
        train_and_save(partial(CIFARVGG, 7, batch_norm=True), str(source), VGG, batch_size=64)
    resnet20, resnet32 = (
        entry("CIFARThinResNet", depth=d, weights=str(folder / f"cifar_resnet{d}.safetensors"))
        for d in (20, 32)
    )
    vgg = entry("pretrained", model=entry("CIFARVGG", depth=7, batch_norm=True), weights=str(VGG))
    networks = {"resnet20": resnet20, "vgg": vgg, "resnet32": resnet32}
    command_line([
        "test", "--config", "transfer_cifar10.yaml", "--data.source", str(source),
        "--model.networks", json.dumps(networks), *sys.argv[1:],
    ])  # fmt: skip


if __name__ == "__main__":
    main()
