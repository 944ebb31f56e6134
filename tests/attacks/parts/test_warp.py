"""The adaptive warp: whose radius grows and when, and the logits that parts are shown."""

import pytest
import torch

import interaction_train as it
from interaction_train.attacks import AdaptiveWarp, MaskedObjective, Objective, Part, RandomWarp
from interaction_train.errors import InputError
from tests.attacks.parts.steps import images, network, step_of

LOGITS = torch.tensor([
    [[0.0, 4.0, 2.0, -2.0], [1.0, 2.0, 0.0, 1.0]],
    [[0.0, 4.0, 2.0, -2.0], [1.0, 2.0, 0.0, 1.0]],
    [[3.0, -1.0, 0.0, -2.0], [3.0, 3.0, 3.0, 3.1]],
])  # fmt: skip


def mean(values):
    return sum(values) / len(values)


def wrong_and_spread(logits, label, targeted=False):
    """In plain Python: of one sample's copies, the mean margin and the spread of the logits."""
    margins = [row[label] - max(row[:label] + row[label + 1 :]) for row in logits.tolist()]
    spreads = [max(row) - mean(row) for row in logits.tolist()]
    return mean(margins) * (1 if targeted else -1), mean(spreads)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("need", [0.0, 0.3, 0.9])
def test_the_radius_grows_where_the_copies_are_clearly_wrong(need, targeted):
    part = AdaptiveWarp(radius=0.7, rate=0.3, need=need)
    step = step_of(images(3), labels=torch.tensor([0, 1, 2]))
    step.targeted = targeted
    assert part.reach(step) == 0
    wanted = [0.0] * 3
    for flip in (False, False, True, False, False, False, False):
        logits = LOGITS.flip(0) if flip else LOGITS
        for one in logits.split(1, 1):  # as chunks, or networks, show them
            part.observe(one, step)
        assert torch.equal(part.update(step.adversarial, step), step.adversarial)
        for i in range(3):
            wrong, _ = wrong_and_spread(logits[i], i, targeted)
            _, spread = wrong_and_spread(LOGITS[i], i)
            change = 0.3 if wrong > need * spread else -0.3
            wanted[i] = min(1.0, max(0.0, wanted[i] + change))
        reach = part.reach(step)
        assert reach.shape == (3, 1, 1, 1)
        assert torch.allclose(reach.flatten(), 0.7 * torch.tensor(wanted))
    assert wanted != [0.0] * 3 or need == 0.9


def test_a_step_without_passes_changes_nothing():
    part, step = AdaptiveWarp(rate=0.5, need=0.0), step_of(images(3))
    part.observe(LOGITS, step)
    part.update(step.adversarial, step)
    before = part.reach(step)
    part.update(step.adversarial, step)
    assert torch.equal(part.reach(step), before)


class LateWarp(RandomWarp):
    """A warp from the second step on."""

    def reach(self, step):
        return 0.0 if step.number == 1 else super().reach(step)


GROUPS = it.GroupReduction(it.GridPlayers(3, 3), 2, 3)


@pytest.mark.parametrize("objective", [Objective("margin"), MaskedObjective("margin", GROUPS)])
def test_the_attack_of_what_is_wrong_already_warps_in_full_and_of_what_never_is_not(objective):
    x, net = images(), network().double()
    worst = net(x).argmin(1)
    settings = {"eps": 0.05, "alpha": 0.02, "steps": 3, "objective": objective}

    def crafted(part):
        return it.TransferAttack(net, parts=[part], **settings)(x, worst)

    fast = crafted(AdaptiveWarp(rate=1.0, need=0.0))
    assert (fast - crafted(LateWarp(radius=0.6))).abs().max() < 1e-12
    never = crafted(AdaptiveWarp(need=1e6))
    assert (never - crafted(RandomWarp(radius=0.0))).abs().max() < 1e-12
    assert not torch.equal(fast, never)


def test_the_default_dtype_does_not_matter():
    x, y, net = images().float(), torch.arange(4), network().float()
    attack = it.TransferAttack(net, steps=3, parts=[AdaptiveWarp(rate=1.0, need=0.0)])
    plain = attack(x, y)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(attack(x, y), plain)
    finally:
        torch.set_default_dtype(torch.float32)


class Spy(Part):
    """Keeps what it is shown."""

    def __init__(self):
        self.seen = []

    def observe(self, logits, step):
        assert not logits.requires_grad
        self.seen.append((step.number, logits))


def test_parts_see_the_logits_of_all_networks_and_chunks():
    x, y = images(4), torch.arange(4)
    nets = [network(seed=seed).double() for seed in (0, 1)]
    spy = Spy()
    attack = it.TransferAttack(
        it.Ensemble(nets, "losses"),
        eps=0.05,
        alpha=0.02,
        steps=1,
        parts=[spy, it.attacks.RandomNoise(copies=4)],
        chunk_size=8,
    )
    attack(x, y)
    assert [number for number, _ in spy.seen] == [1] * 4  # two chunks of two copies, two networks
    assert {tuple(logits.shape) for _, logits in spy.seen} == {(4, 2, 5)}
    assert not torch.equal(spy.seen[0][1], spy.seen[1][1])

    plain = Spy()
    it.TransferAttack(nets[0], steps=1, parts=[plain])(x, y)
    with torch.no_grad():
        assert torch.allclose(plain.seen[0][1][:, 0], nets[0](x))


@pytest.mark.parametrize(
    ("settings", "argument"),
    [({"rate": 1.5}, "rate"), ({"need": -1}, "need"), ({"need": float("inf")}, "need")],
)
def test_bad_settings(settings, argument):
    with pytest.raises(InputError, match=f"^{argument}: got"):
        AdaptiveWarp(**settings)
