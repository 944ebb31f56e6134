"""Small networks, data and attacks for the transfer evaluation, in one process or several."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
import torchattacks
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from interaction_train.attacks import Momentum, TransferAttack, TransferEvaluation
from interaction_train.models import Normalize

EPS, ALPHA, STEPS = 0.15, 0.15, 5


def network(seed: int) -> nn.Sequential:
    """One common network and noise on its weights, so that attacks transfer to some extent."""
    generator = torch.Generator()
    with torch.random.fork_rng():
        net = nn.Sequential(
            Normalize([0.5], [0.3]), nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 3)
        )
    with torch.no_grad():
        for k, weight in enumerate(net.parameters()):
            common = torch.randn(weight.shape, generator=generator.manual_seed(k))
            own = torch.randn(weight.shape, generator=generator.manual_seed(100 + 10 * seed + k))
            weight.copy_((0.9 * common + 0.4 * own) * 0.5)
    return net


def networks() -> dict[str, nn.Module]:
    return {"a": network(0), "b": network(1), "c": network(2)}


def images(count: int = 11) -> tuple[torch.Tensor, torch.Tensor]:
    """Labelled so that every network is right about most images, and wrong about some."""
    x = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        y = torch.stack([net(x) for net in networks().values()]).sum(0).argmax(1)
    return x, y


def loader(count: int = 11, batch_size: int = 4) -> DataLoader:
    return DataLoader(TensorDataset(*images(count)), batch_size=batch_size)


def pgd(model: nn.Module) -> torchattacks.PGD:
    return torchattacks.PGD(model, EPS, ALPHA, STEPS, random_start=False)


def momentum(model: nn.Module) -> TransferAttack:
    return TransferAttack(model, EPS, ALPHA, STEPS, parts=[Momentum()])


def evaluation(**changes: Any) -> TransferEvaluation:
    options = {"networks": networks(), "attacks": {"PGD": pgd, "MI": momentum}, "sources": ["a"]}
    return TransferEvaluation(**{**options, **changes})


def trainer(folder: Path, **changes: Any) -> L.Trainer:
    options = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "default_root_dir": folder,
    }
    return L.Trainer(**{**options, **changes})


class Probabilities(nn.Sequential):
    """A network that forgot to leave its softmax out."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 10), nn.Softmax(1))
