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
from collections.abc import Callable
from pathlib import Path

import lightning as L
import torch
from safetensors.torch import save_file
from torch import nn

from interaction_train.data import DigitsDataModule
from interaction_train.models import DIGITS_MEAN, DIGITS_STD, CIFARThinResNet, DigitsMLP, DigitsNet
from interaction_train.training.module import InteractionClassifier

EPOCHS = 30
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "digits_cnn": DigitsNet,
    "digits_resnet": lambda: CIFARThinResNet(8, mean=DIGITS_MEAN, std=DIGITS_STD, width=8),
    "digits_mlp": DigitsMLP,
}


def train(build: Callable[[], nn.Module], seed: int) -> tuple[nn.Module, float]:
    """Train one network; returns it with its test accuracy."""
    L.seed_everything(seed, verbose=False)
    module = InteractionClassifier(
        build(),
        optimizer=lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=5e-4),
        lr_scheduler=lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=EPOCHS),
    )
    data = DigitsDataModule(seed=seed, augment=True)
    trainer = L.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, data)
    accuracy = trainer.test(module, data, verbose=False)[0]["test/acc"]
    return module.model.eval(), accuracy


def main() -> None:
    """Train, save and print."""
    packaged = Path(__file__).parent.parent / "interaction_train" / "models" / "pretrained"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=packaged)
    folder = parser.parse_args().folder
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, build) in enumerate(NETWORKS.items()):
        network, accuracy = train(build, seed)
        state = {key: value.contiguous() for key, value in network.state_dict().items()}
        path = folder / f"{name}.safetensors"
        save_file(state, path)
        print(f"{name}: test accuracy {accuracy:.4f}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
