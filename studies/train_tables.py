"""Trains the packaged network of the breast cancer table: ``python studies/train_tables.py``.

A perceptron with dropout and a strong weight decay, so that its log odds stay moderate; seconds on
one core, fixed seed. Writes ``table_cancer.safetensors`` with the plain state dict, float32, into
the folder of the packaged weights (or the one that is given), and prints accuracy on the test rows,
which training does not see. The last weights count: nothing is chosen on the test rows.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import lightning as L
import torch
from common import ROOT, accuracy, quiet
from safetensors.torch import save_file

import interaction_train as it
from interaction_train.data import TableDataModule
from interaction_train.models import TableMLP


def main() -> None:
    """Train, save and print."""
    packaged = ROOT / "interaction_train" / "models" / "pretrained"
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=packaged)
    folder = parser.parse_args().folder
    quiet()
    L.seed_everything(0, verbose=False)
    module = it.InteractionClassifier(
        TableMLP(30, 2, (32, 32), dropout=0.2),
        2,
        optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=1.0),
    )
    data = TableDataModule("breast_cancer")
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    options: dict[str, Any] = {"max_epochs": 20, "accelerator": "cpu", **dict.fromkeys(off, False)}
    L.Trainer(**options).fit(module, data)
    network, path = module.model.eval(), folder / "table_cancer.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    found = accuracy(network, data.parts["test"].rows, data.parts["test"].labels)
    print(f"{path.stem}: test accuracy {found:.4f}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
