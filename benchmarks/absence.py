"""Learned baselines against the released recipe.

The recipe is rebuilt from its description: for every order and player its own contexts, which hold
each other player with probability m/n, v(S∪i) and v(S) of each; steps of plain gradient descent at
a rate of .01 from the mean, clamped to the mean ± .3 standard deviations. The data are the breast
cancer table's, the players ten measurements of three columns each.
"""

from __future__ import annotations

import math

import torch
from common import parse_arguments, report
from torch import Tensor

from interaction_train.baselines.learn import learn_baseline, mini_batches
from interaction_train.baselines.objectives import low_order_shapley
from interaction_train.baselines.problem import BaselineProblem
from interaction_train.data import TableDataModule
from interaction_train.game.masked import MaskedGame
from interaction_train.game.players import Players
from interaction_train.game.tabular import FeaturePlayers
from interaction_train.models import TableMLP, pretrained

RATE, BOUND, BATCH = 0.01, 0.3, 16
WANTED = {"evaluations_over_released": "≤ 0.6", "loss_after_over_released": "≤ 1"}


class Released:
    """The released loss and its descent."""

    def __init__(self, network: torch.nn.Module, players: Players, contexts: int) -> None:
        self.network, self.players, self.contexts = network, players, contexts
        self.evaluations = 0

    def count(self, rows: int) -> None:
        self.evaluations += rows

    def loss(self, x: Tensor, y: Tensor, baseline: Tensor, generator: torch.Generator) -> Tensor:
        """Σ_{m < ⌊n/2⌋} Σ_i |φ^(m)(i)|, the mean over samples."""
        game = MaskedGame(
            self.network, x, baseline, self.players, "log_odds", y, progress=self.count
        )
        n, total = game.n, x.new_zeros(())
        own = torch.eye(n, dtype=torch.bool, device=x.device)
        for m in range(n // 2):
            keep = torch.rand(len(x), self.contexts, n, n, generator=generator).to(x.device) < m / n
            without = keep & ~own
            rows = torch.stack([without | own, without], -2).flatten(1, 3)
            values = game(rows, grad=True).unflatten(1, (self.contexts, n, 2))
            total = total + (values[..., 0] - values[..., 1]).mean(1).abs().sum(-1).mean()
        return total

    def learn(self, x: Tensor, y: Tensor, steps: int) -> Tensor:
        """The baseline after so many steps."""
        std, mean = torch.std_mean(x, 0, correction=0)
        baseline, generator = mean.clone().requires_grad_(), torch.Generator().manual_seed(0)
        for places in mini_batches(len(x), BATCH, steps, 0):
            loss = self.loss(x[places], y[places], baseline, generator)
            (gradient,) = torch.autograd.grad(loss, baseline)
            stepped = baseline.detach() - RATE * gradient
            baseline = stepped.clamp(mean - BOUND * std, mean + BOUND * std).requires_grad_()
        return baseline.detach()


def evaluations(network: torch.nn.Module, players: Players, x: Tensor, y: Tensor, k: int) -> int:
    """How many coalitions the objective of k contexts evaluates."""
    rows: list[int] = []
    game = MaskedGame(
        network, x, x.mean(0), players, "log_odds", y, progress=rows.append, chunk_size=256
    )
    with torch.no_grad():
        low_order_shapley(game, k)
    return sum(rows)


def learning(device: str, quick: bool) -> dict[str, float]:
    """The two metrics of learned baselines."""
    network = pretrained(TableMLP(30, hidden=(32, 32)), "table_cancer").to(device)
    data = TableDataModule("breast_cancer")
    data.setup()
    part = data.parts["train"]
    x, y = part.rows.to(device), part.labels.to(device)
    players, contexts = FeaturePlayers([[k, k + 10, k + 20] for k in range(10)]), 20

    released = Released(network, players, contexts)
    steps = 10 if quick else 100
    theirs = released.learn(x, y, steps)
    # The same contexts for every player: 2 (n − m) evaluations each, of the n − m outside.
    n, one = players.count((30,)), x[:1]
    same = sum(2 * (n - m) * min(contexts, math.comb(n, m)) for m in range(n // 2))
    ours = evaluations(network, players, one, y[:1], contexts)
    affordable = released.evaluations // (ours * BATCH)
    found = learn_baseline(
        network, (x, y), players, steps=affordable, contexts=contexts, batch_size=BATCH,
        max_shift=BOUND, relative=False, samples=1,
    )  # fmt: skip
    problem = BaselineProblem(network, players, contexts=1000, relative=False)
    losses = [problem.measure(x[:64], y[:64], b).loss for b in (found.value, theirs, x.mean(0))]
    return {
        "evaluations_over_released": ours / same,
        "loss_after_over_released": losses[0] / losses[1],
        "released_loss_after_over_before": losses[1] / losses[2],
        "loss_after_over_before": losses[0] / losses[2],
    }


def main() -> None:
    arguments = parse_arguments(__doc__.splitlines()[0])
    metrics = learning(arguments.device, arguments.quick)
    report("absence", arguments.device, metrics, WANTED)


if __name__ == "__main__":
    main()
