"""The interaction-reduction loss against brute force, and its gradient inside the attack."""

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

from interaction_train.attacks import InteractionObjective, MaskedObjective, Part, TransferAttack
from interaction_train.errors import InputError
from interaction_train.game.masked import MaskedGame
from interaction_train.game.payoffs import best_rival
from interaction_train.game.players import GridPlayers
from interaction_train.indices.exact import (
    exact_values,
    multi_order_interactions,
    shapley_interactions,
)
from interaction_train.losses import GroupReduction, InteractionReduction, PartitionReduction
from interaction_train.models import CIFARThinResNet
from interaction_train.sampling.random import Draws, content_hash

GRID = GridPlayers(2, 3)  # six players


class Curved(nn.Module):
    """A small smooth network, in which cells do interact."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, classes)
        )
        self.double()

    def forward(self, x):
        return self.body(6 * x - 3)


def pair(batch=3, seed=0):
    """Adversarial and clean images ``(batch, 1, 4, 6)``, labels."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(batch, 1, 4, 6, generator=generator, dtype=torch.float64) * 0.4 + 0.3
    noise = torch.rand(batch, 1, 4, 6, generator=generator, dtype=torch.float64) - 0.5
    return clean + 0.4 * noise, clean, torch.arange(batch) % 4


def game(net, adversarial, clean, labels, players=GRID):
    with torch.no_grad():
        rivals = best_rival(net(adversarial), labels)
    # v(S) = rival's logit − label's logit
    return MaskedGame(net, adversarial, clean, players, "margin", rivals, rivals=labels)


def upper_mean(matrix):
    n = matrix.shape[-1]
    i, j = torch.triu_indices(n, n, 1)
    return matrix[..., i, j].mean(-1)


class Every(InteractionReduction):
    """Every group of a size, once."""

    def __init__(self, size):
        super().__init__(GRID)
        self.size = size

    def groups(self, draws, n):
        rows = [[p in chosen for p in range(n)] for chosen in combinations(range(n), self.size)]
        return torch.tensor(rows).expand(len(draws.content), -1, -1)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_over_all_groups_it_weighs_the_orders_as_formula_7_says(size):
    net = Curved()
    adversarial, clean, labels = pair()
    coalition_game = game(net, adversarial, clean, labels)
    got = Every(size)(coalition_game, Draws(content_hash(clean)))
    orders = upper_mean(multi_order_interactions(exact_values(coalition_game)))  # (B, n − 1)
    n = 6
    weights = [min(m + 1, size, n - 1 - m) for m in range(n - 1)]
    assert sum(weights) == size * (n - size)
    want = (orders * torch.tensor(weights)).sum(1)
    assert (got - want).abs().max() < 1e-10


def test_single_cells_give_the_mean_shapley_interaction_in_expectation():
    net = Curved()
    adversarial, clean, labels = pair(1)
    coalition_game = game(net, adversarial, clean, labels)
    want = 5 * upper_mean(shapley_interactions(exact_values(coalition_game))).item()
    reduction = GroupReduction(GRID, draws=20_000, size=1)
    values = [
        reduction(coalition_game, Draws(content_hash(clean), seed)).item() for seed in range(12)
    ]
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    assert abs(np.mean(values) - want) < 4 * error
    assert abs(want) > 20 * error


@pytest.mark.parametrize("blocks", [2, 3, 4, 6])
def test_a_partition_is_exact_with_its_blocks_as_players(blocks):
    net = Curved()
    adversarial, clean, labels = pair(1)
    reduction = PartitionReduction(GRID, blocks)
    draws = Draws(content_hash(clean), seed=5)
    inside = reduction.groups(draws, 6)
    assert bool((inside.sum(1) == 1).all())  # every cell in one block
    assert inside.sum(2).max() - inside.sum(2).min() <= 1
    coalition_game = game(net, adversarial, clean, labels)
    subsets = torch.tensor([[k >> b & 1 for b in range(blocks)] for k in range(2**blocks)]).bool()
    cells = (subsets.double() @ inside[0].double()) > 0
    want = (blocks - 1) * upper_mean(shapley_interactions(coalition_game(cells)))
    assert (reduction(coalition_game, draws) - want).abs().max() < 1e-10


def test_groups_have_their_size_and_differ_between_samples_and_steps():
    clean = torch.rand(50, 1, 16, 16)
    draws = Draws(content_hash(clean), step=1)
    inside = GroupReduction().groups(draws, 256)
    assert inside.shape == (50, 32, 256)
    assert bool((inside.sum(-1) == 32).all())
    assert (inside.float().mean((0, 1)) - 1 / 8).abs().max() < 0.04  # uniform over the cells
    later = GroupReduction().groups(Draws(draws.content, step=2), 256)
    assert (inside != later).any()
    assert (inside[0] != inside[1]).any()


@pytest.mark.parametrize("reduction", [GroupReduction(GRID, 5, 2), PartitionReduction(GRID, 3)])
def test_it_is_zero_for_a_linear_network(reduction):
    torch.manual_seed(1)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(24, 4)).double()
    adversarial, clean, labels = pair()
    value = reduction(game(linear, adversarial, clean, labels), Draws(content_hash(clean)))
    assert value.abs().max() < 1e-12


class At(Part):
    """Takes the gradient at a given point."""

    def __init__(self, point):
        self.point = point

    def lookahead(self, point, step):
        return self.point


def direction(net, adversarial, clean, labels, objective, **more):
    """The unit gradient that the attack follows at ``adversarial``."""
    attack = TransferAttack(
        net, 100, 1e-3, 1, objective=objective, norm="L2", parts=[At(adversarial)], **more
    )
    return (attack(clean, labels) - clean) / 1e-3


def unit(gradient):
    return gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
@pytest.mark.parametrize("reduction", [GroupReduction(GRID, 5, 2), PartitionReduction(GRID, 3)])
def test_the_attack_follows_the_gradient_of_loss_minus_interaction(loss, reduction, targeted):
    net = Curved()
    adversarial, clean, labels = pair()
    attack = InteractionObjective(loss, 0.7, "losses", reduction)
    point = adversarial.clone().requires_grad_()
    logits = net(point)
    sign = -1 if targeted else 1
    rivals = best_rival(logits.detach(), labels)
    if loss == "cross_entropy":
        value = sign * nn.functional.cross_entropy(logits, labels, reduction="sum")
    else:
        value = sign * (logits.gather(1, rivals[:, None]) - logits.gather(1, labels[:, None])).sum()
    draws = Draws(content_hash(clean), 0, "attack", 1)
    coalition_game = MaskedGame(net, point, clean, GRID, "margin", rivals, rivals=labels)
    value = value - 0.7 * sign * reduction(coalition_game, draws).sum()
    (want,) = torch.autograd.grad(value, point)
    crafter = TransferAttack(
        net, 100, 1e-3, 1, objective=attack, norm="L2", parts=[At(adversarial)], chunk_size=3
    )
    if targeted:
        crafter.set_mode_targeted_by_label(quiet=True)
    got = (crafter(clean, labels) - clean) / 1e-3
    assert (got - unit(want)).abs().max() < 1e-9


def test_normalized_gradients_are_mixed_per_sample():
    net = Curved()
    adversarial, clean, labels = pair()
    reduction = GroupReduction(GRID, 5, 2)
    loss = direction(net, adversarial, clean, labels, InteractionObjective("cross_entropy", 0))
    point = adversarial.clone().requires_grad_()
    rivals = best_rival(net(point).detach(), labels)
    coalition_game = MaskedGame(net, point, clean, GRID, "margin", rivals, rivals=labels)
    value = reduction(coalition_game, Draws(content_hash(clean), 0, "attack", 1)).sum()
    (interaction,) = torch.autograd.grad(value, point)

    def level(gradient):
        return gradient / gradient.abs().mean((1, 2, 3), keepdim=True)

    want = unit(level(loss) - 0.7 * level(interaction))
    mixed = InteractionObjective("cross_entropy", 0.7, "gradients", reduction)
    got = direction(net, adversarial, clean, labels, mixed)
    assert (got - want).abs().max() < 1e-9


def test_at_the_clean_image_interactions_have_no_gradient_and_no_say():
    net = Curved()
    _, clean, labels = pair()
    reduction = GroupReduction(GRID, 5, 2)
    plain = direction(net, clean, clean, labels, InteractionObjective("cross_entropy", 0))
    for mix in ("losses", "gradients"):
        mixed = InteractionObjective("cross_entropy", 50.0, mix, reduction)
        got = direction(net, clean, clean, labels, mixed)
        assert (got - plain).abs().max() < 1e-9


def test_the_ablation_follows_the_mean_loss_of_both_halves():
    net = Curved()
    adversarial, clean, labels = pair()
    reduction = GroupReduction(GRID, 5, 2)
    point = adversarial.clone().requires_grad_()
    inside = reduction.groups(Draws(content_hash(clean), 0, "attack", 1), 6)
    total = 0
    for k in range(5):
        for group in (inside[:, k], ~inside[:, k]):
            shown = torch.where(GRID.mask(group, clean.shape[1:]), point, clean)
            total = total + nn.functional.cross_entropy(net(shown), labels, reduction="sum")
    (want,) = torch.autograd.grad(total, point)
    got = direction(net, adversarial, clean, labels, MaskedObjective(reduction=reduction))
    assert (got - unit(want)).abs().max() < 1e-9


def test_the_measured_interaction_falls_as_lambda_rises(project_data):
    net = CIFARThinResNet(20, weights=project_data / "cifar_resnet20.safetensors").eval()
    stored = np.load(project_data / "cifar10_5k.npz")
    images = torch.from_numpy(stored["x_test"][:8]).permute(0, 3, 1, 2).float() / 255
    labels = torch.from_numpy(stored["y_test"][:8]).long()
    grid = GridPlayers(4, 4)
    found = []
    for weight in (0.0, 1.0, 3.0):
        objective = InteractionObjective("margin", weight, "losses", PartitionReduction(grid, 4))
        adversarial = TransferAttack(net, 8 / 255, 2 / 255, 6, objective=objective)(images, labels)
        coalition_game = game(net, adversarial, images, labels, grid)
        measure = PartitionReduction(grid, 16)
        with torch.no_grad():
            found.append(measure(coalition_game, Draws(content_hash(images), 9)).mean().item())
    assert found[0] > found[1] > found[2]


def test_groups_that_do_not_fit_are_refused():
    draws = Draws(torch.zeros(1, dtype=torch.int64))
    with pytest.raises(InputError, match="fewer than the 6 cells"):
        GroupReduction(GRID, size=6).groups(draws, 6)
    with pytest.raises(InputError, match="at most the 6 cells"):
        PartitionReduction(GRID, blocks=7).groups(draws, 6)
