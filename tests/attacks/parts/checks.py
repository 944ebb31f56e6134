"""What every part and objective keeps, checked on a network that suits it."""

import copy

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from interaction_train.attacks import Ensemble, TransferAttack

BUDGET = {"eps": 8 / 255, "alpha": 2 / 255, "steps": 3}


class NoFloat64(TorchDispatchMode):
    """A device without float64, such as Apple's."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor) and found.dtype == torch.float64:
            raise TypeError(f"{func} makes float64")
        return found


def images(shape=(3, 8, 8), batch=4):
    return torch.rand(batch, *shape, generator=torch.Generator().manual_seed(1))


def craft(network, x, y, **settings):
    return TransferAttack(network, **{**BUDGET, **settings})(x, y)


def check_all(network, x, **settings):
    """Batch = singles, chunks, bounds, no trace, no float64, targeted, L2, ensembles."""
    network.eval()
    y = network(x).argmax(1)
    check_bounds_and_traces(network, x, y, **settings)
    with NoFloat64():
        craft(network, x, y, **settings)
    check_effect(network, x, y, **settings)
    members = network.members if isinstance(network, Ensemble) else [network, network_like(network)]
    for average in ("logits", "losses"):
        surrogate = Ensemble(list(members), average)
        assert craft(surrogate, x, y, **settings).isfinite().all()
    network.double()
    together = craft(network, x.double(), y, **settings)
    for i in (0, len(x) - 1):
        alone = craft(network, x[i : i + 1].double(), y[i : i + 1], **settings)
        assert (together[i : i + 1] - alone).abs().max() < 1e-12
    chunked = craft(network, x.double(), y, chunk_size=1, **settings)
    assert (together - chunked).abs().max() < 1e-12
    network.float()


def network_like(network):
    """The same architecture with other weights."""
    other = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1 + 0.1 * torch.randn(weight.shape, generator=generator))
    return other


def check_bounds_and_traces(network, x, y, **settings):
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    logits, rng, kept = network(x), torch.get_rng_state(), x.clone()
    found = craft(network, x, y, **settings)
    delta = (found - x).abs().flatten(1)
    assert delta.max() <= BUDGET["eps"] + 1e-7
    assert (delta.amax(1) > BUDGET["alpha"] / 2).all()
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.equal(x, kept)
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.equal(network(x), logits)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert hooks == [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in network.modules()]
    assert all(p.grad is None for p in network.parameters())


def check_effect(network, x, y, **settings):
    """Five large steps raise the loss, lower the target's, and keep the L2 bound."""

    def loss(images, labels):
        return torch.nn.functional.cross_entropy(network(images), labels, reduction="none").mean()

    more = {**settings, "eps": 0.2, "alpha": 0.08, "steps": 5}
    assert loss(craft(network, x, y, **more), y) > loss(x, y)
    attack = TransferAttack(network, **{**BUDGET, **more})
    attack.set_mode_targeted_by_label(quiet=True)
    targets = (y + 1) % network(x).shape[1]
    assert loss(attack(x, targets), targets) < loss(x, targets)
    size = (craft(network, x, y, **{**more, "norm": "L2", "eps": 0.5}) - x).flatten(1).norm(dim=1)
    assert (size <= 0.5 + 1e-6).all()
    assert (size > 0).all()
