"""Learned baselines against the released recipe, sentences of many lengths, and sampled trees.

The recipe is rebuilt from its description: for every order and player its own contexts, which hold
each other player with probability m/n, v(S∪i) and v(S) of each; steps of plain gradient descent at
a rate of .01 from the mean, clamped to the mean ± .3 standard deviations. The data are the breast
cancer table's, the players ten measurements of three columns each.

Sentences of 4 to 12 words in one batch are compared with the bare network on the rows that the
batch sends through it, ready made and in the same chunks. The tree's evaluations are those over
what measuring all pairs of nodes at each level would take.
"""

from __future__ import annotations

import math

import torch
from common import interleaved, parse_arguments, report
from torch import Tensor

from interaction_train.baselines.learn import learn_baseline, mini_batches
from interaction_train.baselines.objectives import low_order_shapley
from interaction_train.baselines.problem import BaselineProblem
from interaction_train.concepts import interaction_tree
from interaction_train.data import TableDataModule
from interaction_train.game.batch import GameBatch
from interaction_train.game.masked import MaskedGame
from interaction_train.game.players import Players
from interaction_train.game.tabular import FeaturePlayers
from interaction_train.game.tokens import TokenPlayers
from interaction_train.indices import exact_values
from interaction_train.models import TableMLP, TextTransformer, pretrained

RATE, BOUND, BATCH = 0.01, 0.3, 16
WANTED = {
    "evaluations_over_released": "≤ 0.6",
    "loss_after_over_released": "≤ 1",
    "batch_of_lengths_over_padded": "≥ 0.9",
    "tree_evaluations_over_all_pairs": "< 1",
}


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


def lengths(device: str, quick: bool) -> dict[str, float]:
    """The metric of sentences of different lengths."""
    torch.manual_seed(0)
    network = TextTransformer(2000).to(device).eval()
    label = torch.zeros(1, dtype=torch.int64, device=device)
    games = [
        MaskedGame(
            network, torch.randint(3, 2000, (1, 4 + k % 9), device=device), network.mask_id,
            TokenPlayers(), "log_odds", label,
        )
        for k in range(12 if quick else 48)
    ]  # fmt: skip
    batch, chunks = GameBatch(games, pad=network.pad_id), list[Tensor]()
    exact_values(batch)  # which chooses the size of chunks
    keep = network.register_forward_pre_hook(lambda _, inputs: chunks.append(inputs[0].clone()))
    exact_values(batch)
    keep.remove()

    @torch.no_grad()
    def bare() -> None:
        for rows in chunks:
            network(rows)

    seconds = interleaved({"bare": bare, "batch": lambda: exact_values(batch)}, 11, device)
    return {"batch_of_lengths_over_padded": seconds["bare"] / seconds["batch"]}


class Analytic(torch.nn.Module):
    """Logits of products of neighbours, and 0."""

    def forward(self, x: Tensor) -> Tensor:
        z = (x[:, 1:] * x[:, :-1]).sum(1) + x.cumprod(1).sum(1)
        return torch.stack([z, torch.zeros_like(z)], 1)


def tree(device: str, quick: bool) -> dict[str, float]:
    """The metric of the sampled tree."""
    n, contexts = 20, 10 if quick else 100
    x, label = torch.ones(1, n, device=device), torch.zeros(1, dtype=torch.int64, device=device)
    game = MaskedGame(Analytic(), x, 0.0, FeaturePlayers(), "log_odds", label)
    found = interaction_tree(game, contexts=contexts)
    # k nodes have k (k − 1) / 2 pairs: summed over the levels k = n … 2, (n + 1)! / (3! (n − 2)!).
    pairs = math.comb(n + 1, 3)
    return {"tree_evaluations_over_all_pairs": found.evaluations / (4 * contexts * pairs)}


def main() -> None:
    arguments = parse_arguments(__doc__.splitlines()[0])
    metrics = {
        name: value
        for part in (learning, lengths, tree)
        for name, value in part(arguments.device, arguments.quick).items()
    }
    report("absence", arguments.device, metrics, WANTED)


if __name__ == "__main__":
    main()
