"""What all tests share."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # two workers share the cores; more threads would only wait for each other
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"


@pytest.fixture
def project_data() -> Path:
    """The folder with CIFAR-10 and trained networks that a developer may have."""
    folder = os.environ.get("INTERACTION_TRAIN_DATA")
    if not folder:
        pytest.skip("INTERACTION_TRAIN_DATA does not name a folder with cifar10_5k.npz and others")
    return Path(folder)
