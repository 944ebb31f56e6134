"""A user's LightningModule, the same with the loss written inside, and how both are fitted."""

from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from interaction_train.callbacks import InteractionRegularizer
from interaction_train.game.players import GridPlayers
from interaction_train.losses import BandLoss, InteractionLoss, OrderLoss
from interaction_train.training.objective import WeightedTerm

GRID = GridPlayers(4, 4)


def terms() -> dict:
    return {
        "low": OrderLoss(0.7, 1, "penalize", players=GRID, baseline=0.3),
        "band": BandLoss(0.5, 0.25, players=GRID, baseline=0.3),
        "units": InteractionLoss("1", group_fraction=0.1),
    }


FACTORS = {"low": 0.5, "band": 1.0, "units": 2.0}


def weighted() -> dict[str, WeightedTerm]:
    return {name: WeightedTerm(term, weight=FACTORS[name]) for name, term in terms().items()}


def network(norm: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    norms = [nn.BatchNorm1d(8)] if norm else []
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16, 8), *norms, nn.ReLU(inplace=True), nn.Linear(8, 3)
    )


def data(size: int = 48) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.rand(size, 1, 4, 4, generator=generator), torch.arange(size) % 3)


class Plain(L.LightningModule):
    """Knows nothing of interactions."""

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        self.net = network(norm)
        self.logged: dict[str, list] = {}

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.2, momentum=0.9)

    def log_dict(self, values: dict, **_: Any) -> None:
        for name, value in values.items():
            self.logged.setdefault(name, []).append(float(value))


class Inside(Plain):
    """The same losses, written inside ``training_step``."""

    def __init__(self, norm: bool = False) -> None:
        super().__init__(norm)
        self.terms = terms()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        for name, term in self.terms.items():
            loss = loss + FACTORS[name] * term(self.net, x, y)
        return loss


def fit(module: Any, *callbacks: L.Callback, batch_size: int = 8, **arguments: Any) -> Any:
    defaults = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "callbacks": list(callbacks),
    }
    resume = arguments.pop("ckpt_path", None)
    # Lightning would shuffle what each of two processes gets.
    sampler = arguments.pop("sampler", None)
    loader = DataLoader(data(), batch_size=batch_size, sampler=sampler)
    L.Trainer(**{**defaults, **arguments}).fit(module, loader, ckpt_path=resume)
    return module


def weights(module: nn.Module) -> Tensor:
    return torch.cat([value.detach().flatten().float() for value in module.parameters()])


def share() -> InteractionRegularizer:
    band = BandLoss(0.5, 0.25, players=GRID, baseline=0.3)
    return InteractionRegularizer({"band": WeightedTerm(band, loss_ratio=0.5)})


def both(batch_size: int, **arguments: Any) -> dict[str, Any]:
    """Weights after training with the losses inside, and from the regulariser."""
    result = {}
    for accumulate in (1, 2):
        arguments["accumulate_grad_batches"] = accumulate
        sizes = {"batch_size": batch_size}
        result[f"inside/{accumulate}"] = weights(fit(Inside(), **sizes, **arguments))
        regularizer = InteractionRegularizer(weighted())
        result[f"regularizer/{accumulate}"] = weights(
            fit(Plain(), regularizer, **sizes, **arguments)
        )
    module = fit(Plain(), share(), batch_size=batch_size, **arguments)
    result["share"], result["share/weight"] = weights(module), module.logged["train/weight/band"]
    return result
