"""Against the closed form of a linear network, and on networks with masked gradients."""

import pytest
import torch
import torchattacks
from torch import nn

from interaction_train.attacks.run import craft, set_epsilon
from interaction_train.callbacks.robust_curve import masking_signs, masking_warnings, robust_curve
from interaction_train.errors import InputError

EPSILONS = [0.01, 0.02, 0.04, 0.08]


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 2))


def batch(count=64):
    """Pixels far from 0 and 1, so that no perturbation is cut."""
    x = 0.3 + 0.4 * torch.rand(count, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    y = linear()(x).argmax(-1)
    y[::8] = 1 - y[::8]  # an eighth is wrong
    return x, y


def pgd(net):
    return torchattacks.PGD(net, eps=0.1, alpha=0.025, steps=10, random_start=False)


def truth(net, x, y):
    """The least ε that turns a linear network: its margin over the L1 norm of its weights."""
    logits, weights = net(x), net[1].weight
    own = logits.gather(1, y[:, None])[:, 0]
    margin = own - logits.gather(1, 1 - y[:, None])[:, 0]
    return margin / (weights[0] - weights[1]).abs().sum()


def test_smallest_epsilon_of_a_linear_network():
    net, (x, y) = linear(), batch()
    found = robust_curve(pgd, net, x, y, EPSILONS)
    exact = truth(net, x, y)
    levels = torch.tensor([*EPSILONS, torch.inf], dtype=torch.float64)
    expected = levels[torch.searchsorted(levels, exact.detach().double())]
    expected[exact <= 0] = 0
    assert len(expected.unique()) == 6  # every level occurs
    torch.testing.assert_close(found.smallest, expected)


def test_only_what_still_stands_is_attacked():
    sizes = []

    class Counting(torchattacks.PGD):
        def forward(self, images, labels):
            sizes.append(len(images))
            return super().forward(images, labels)

    x, y = batch()
    found = robust_curve(lambda net: Counting(net, steps=5), linear(), x, y, EPSILONS)
    assert sizes == [int((found.smallest >= epsilon).sum()) for epsilon in EPSILONS]
    assert sizes[0] == 56
    assert sizes[-1] < sizes[0]


def test_attack_as_it_is():
    net, (x, y) = linear(), batch()
    found = robust_curve(pgd, net, x, y, None)
    broken = (found.smallest > 0) & found.smallest.isfinite()
    assert torch.equal(broken, (truth(net, x, y) > 0) & (truth(net, x, y) < 0.1))
    sizes = (found.adversarial - x).abs().flatten(1).amax(1).double()
    torch.testing.assert_close(found.smallest[broken], sizes[broken])


def test_result_does_not_depend_on_history_and_leaves_no_trace():
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(9), nn.Dropout(), nn.Linear(9, 2)).train()
    net[1].eval()  # frozen
    x, y = batch()
    attack = torchattacks.PGD(net, eps=0.05, steps=2, random_start=True)
    state = torch.get_rng_state()
    one = craft(attack, x, y)
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(7)
    with torch.inference_mode():
        assert torch.equal(one, craft(attack, x, y))
    assert not torch.equal(one, craft(attack, x, y, seed=1))
    assert net.training
    assert not net[1].training
    assert net[1].num_batches_tracked == 0
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_an_attack_that_calls_backward_reaches_no_parameter():
    class Backward(torchattacks.FGSM):
        def forward(self, images, labels):
            images = images.clone().requires_grad_()
            nn.functional.cross_entropy(self.get_logits(images), labels).backward()
            return (images + self.eps * images.grad.sign()).detach()

    net, (x, y) = linear(), batch()
    adversarial = craft(Backward(net, eps=0.1), x, y)
    torch.testing.assert_close(adversarial, craft(torchattacks.FGSM(net, eps=0.1), x, y))
    assert all(p.grad is None for p in net.parameters())


def test_refusals():
    net, (x, y) = linear(), batch()
    with pytest.raises(InputError, match=r"DeepFool.*an attack with a bound 'eps'"):
        robust_curve(torchattacks.DeepFool, net, x, y, EPSILONS)

    class Far(torchattacks.FGSM):
        def forward(self, images, labels):
            return 1 - images

    with pytest.raises(InputError, match="Far with a perturbation of"):
        robust_curve(Far, net, x, y, EPSILONS)

    class Bright(torchattacks.FGSM):
        def forward(self, images, labels):
            return images + 2

    with pytest.raises(InputError, match="expected pixels in"):
        robust_curve(Bright, net, x, y, None)


def test_step_size_goes_with_the_bound():
    attack = torchattacks.PGD(linear(), eps=0.1, alpha=0.02)
    set_epsilon(attack, 0.5)
    assert (attack.eps, attack.alpha) == (0.5, pytest.approx(0.1))
    net = linear()
    several = torchattacks.MultiAttack([torchattacks.FGSM(net), torchattacks.PGD(net)])
    set_epsilon(several, 0.25)
    assert {part.eps for part in several._attacks.values()} == {0.25}


def signs_of(make, net, epsilon=0.05, **more):
    x, _ = batch()
    y = net(x).argmax(-1)
    broken = robust_curve(make, net, x, y, [epsilon]).smallest.isfinite()
    return masking_warnings("pgd", masking_signs(make, net, x, y, epsilon, **more), broken)


def test_no_warning_for_a_linear_network():
    assert signs_of(pgd, linear()) == []


def test_rounded_inputs_mask_gradients():
    """A staircase: no gradient anywhere, though the network is as easy to fool as before."""

    class Staircase(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear()

        def forward(self, x):
            return self.inner((x * 50).round() / 50 + 0 * x)

    found = signs_of(pgd, Staircase())
    assert len(found) == 2
    assert "a black-box attack breaks" in found[0]
    assert "with the largest ε there is it breaks only 0.0%" in found[1]


def test_more_steps_that_lose_again():
    class Overshooting(torchattacks.PGD):
        def forward(self, images, labels):
            self.alpha = self.alpha if self.steps <= 5 else -self.alpha
            return super().forward(images, labels)

    def make(net):
        return Overshooting(net, eps=0.1, alpha=0.02, steps=10, random_start=False)

    found = signs_of(make, linear())
    assert "the loss falls with more steps" in found[0]


def test_one_step_attacks_are_spared_what_they_cannot_do():
    x, _ = batch()
    signs = masking_signs(torchattacks.FGSM, linear(), x, linear()(x).argmax(-1), 0.05)
    assert signs.isnan().any(0).tolist() == [True, True, False, True]
