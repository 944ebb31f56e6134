"""Trains networks with each order-targeted loss and measures their exact spectra J(m).

``python studies/order_spectra.py digits --seeds 0 1 2`` or, with a CIFAR-10 .npz file,
``python studies/order_spectra.py /path/to/cifar10_5k.npz``. Prints a table in Markdown.

Digits: 4 x 4 cells, all 65,536 coalitions. CIFAR-10: 3 x 3 cells, all 512 coalitions. The losses
are trained on the same cells that the spectra are measured on. Measured are correctly classified
test images, with the payoff log p/(1 - p) of the true class and the training mean as baseline.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
import warnings

import lightning as L
import torch
from torch import Tensor, nn

from interaction_train.baselines import input_baseline
from interaction_train.data import DigitsDataModule, ImageDataModule
from interaction_train.game import MaskedGame
from interaction_train.indices import exact_values, multi_order_interactions
from interaction_train.losses import BandLoss, OrderLoss
from interaction_train.models import CIFAR10_MEAN, CIFAR10_STD, DigitsNet, Normalize
from interaction_train.module import InteractionClassifier
from interaction_train.players import GridPlayers
from interaction_train.terms import InteractionTerm, WeightedTerm


def terms(grid: GridPlayers) -> dict[str, InteractionTerm | None]:
    """The papers' settings, and two bands."""
    return {
        "L−(0, .5)": OrderLoss(0, 0.5, "penalize", players=grid),
        "none": None,
        "L+(.3, .7)": OrderLoss(0.3, 0.7, "encourage", players=grid),
        "L−(.7, 1)": OrderLoss(0.7, 1, "penalize", players=grid),
        "band+(.5, .25)": BandLoss(0.5, 0.25, "encourage", players=grid),
        "band−(.5, .25)": BandLoss(0.5, 0.25, "penalize", players=grid),
    }


def cifar_network(width: int = 16) -> nn.Sequential:
    """Five convolutions, no BatchNorm."""
    layers: list[nn.Module] = [Normalize(CIFAR10_MEAN, CIFAR10_STD)]
    before = 3
    for factor, pool in ((1, True), (2, False), (2, True), (4, False), (4, True)):
        layers += [nn.Conv2d(before, factor * width, 3, padding=1), nn.ReLU(inplace=True)]
        before = factor * width
        layers += [nn.MaxPool2d(2)] if pool else []
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * before, 10))


def train(
    source: str, term: InteractionTerm | None, seed: int, epochs: int
) -> InteractionClassifier:
    """Train one network; the last weights count."""
    L.seed_everything(seed, verbose=False)
    if source == "digits":
        network: nn.Module = DigitsNet()
        data: L.LightningDataModule = DigitsDataModule(seed=seed)
        rate = 0.05
    else:
        network = cifar_network()
        data = ImageDataModule(source, batch_size=64, augment=False, seed=seed)
        rate = 0.03
    losses = {} if term is None else {"term": WeightedTerm(term)}
    module = InteractionClassifier(
        network,
        losses=losses,
        optimizer=lambda p: torch.optim.SGD(p, lr=rate, momentum=0.9, weight_decay=5e-4),
        lr_scheduler=lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=epochs),
    )
    trainer = L.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, data)
    data.setup("test")
    module.loader = data.test_dataloader()
    return module.eval()


def spectrum(
    module: InteractionClassifier, grid: GridPlayers, samples: int
) -> tuple[float, float, Tensor, Tensor]:
    """Test accuracy, mean strength, J(m) and its standard error over images."""
    x, y = (torch.cat(parts) for parts in zip(*module.loader, strict=True))
    with torch.no_grad():
        right = module.model(x).argmax(1) == y
    places = right.nonzero().flatten()
    places = places[torch.arange(samples) * len(places) // samples]
    x_some, y_some = x[places], y[places]
    absent = input_baseline(module.model, None, x)
    game = MaskedGame(module.model, x_some, absent, grid, "log_odds", y_some)
    orders = multi_order_interactions(exact_values(game).double())
    upper = torch.triu_indices(game.n, game.n, 1)
    strength = orders[:, :, upper[0], upper[1]].abs().mean(-1)  # (samples, orders)
    total = strength.mean()
    j = strength.mean(0) / total
    residual = (strength - j * strength.mean(1, keepdim=True)) / total
    return float(right.float().mean()), float(total), j, residual.std(0) / samples**0.5


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="'digits', or an .npz file of CIFAR-10")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=24, help="images that are measured")
    parser.add_argument("--epochs", type=int, default=30)
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    grid = GridPlayers(4, 4) if arguments.source == "digits" else GridPlayers(3, 3)
    n = grid.rows * grid.cols
    shown = list(range(0, n - 1, 2 if n > 10 else 1))
    print(
        "| trained with | accuracy | mean \\|I\\| | " + " | ".join(f"J({m})" for m in shown) + " |"
    )
    print("|---" * (3 + len(shown)) + "|")
    for name, term in terms(grid).items():
        start = time.perf_counter()
        runs = [
            spectrum(train(arguments.source, term, seed, arguments.epochs), grid, arguments.samples)
            for seed in arguments.seeds
        ]
        accuracy, strength = (sum(run[i] for run in runs) / len(runs) for i in (0, 1))
        j = torch.stack([run[2] for run in runs])
        error = torch.stack([run[3] for run in runs]).square().mean(0) / len(runs)
        if len(runs) > 1:  # what varies between images, and what varies between seeds
            error = error + j.var(0) / len(runs)
        cells = (f"{j.mean(0)[m]:.2f} ± {error[m].sqrt():.2f}" for m in shown)
        row = f"| {name} | {accuracy:.3f} | {strength:.3g} | " + " | ".join(cells) + " |"
        print(row, flush=True)
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
