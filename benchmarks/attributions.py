"""What attribution methods cost beside the passes through the network that they need.

Rescale runs on pairs of inputs and baselines: one forward and backward pass of twice the rows. On
top come Python's time for every function, the same for any number of samples, and a few passes over
every activation. Both weigh most in the tiny digits network, whose ratio is that of 256 samples, as
many as a test set has; beside it stands that of 32. The
allocation of integrated gradients is the gradients of 2^n masked inputs at every step. A fit finds
Taylor effects of degrees 1 to 5 from 17 evaluations, nested ``jvp`` by differentiating five times.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from common import interleaved, parse_arguments, report
from torch import Tensor, nn

import interaction_train as it
from interaction_train.attributions import allocation, attribute, degree_effects
from interaction_train.attributions.gradients import pass_rows

STEPS, DEGREES = 8, 5
FEW = "rescale_of_32_samples_digits"
WANTED = {
    "rescale_over_twice_the_rows": "≤ 1.5",
    "allocation_over_gradients": "≤ 1.2",
    "degrees_by_fit_over_jvp": "< 0.05",
}


def digits(count: int, device: str) -> tuple[Tensor, Tensor]:
    data = it.DigitsDataModule(batch_size=count)
    data.setup()
    x, y = next(iter(data.test_dataloader()))
    return x.to(device), y.to(device)


def noise(count: int, device: str) -> tuple[Tensor, Tensor]:
    """Colour images; what they show does not change what they cost."""
    return torch.rand(count, 3, 32, 32, device=device), torch.arange(count, device=device) % 10


def gradients(network: nn.Module, rows: Tensor, labels: Tensor) -> Tensor:
    """Of the labels' logits, in one pass."""
    leaves = rows.detach().requires_grad_()
    logits = network(leaves).gather(1, labels[:, None])
    return torch.autograd.grad(logits.sum(), leaves)[0]


def passes(network: nn.Module, rows: Tensor, labels: Tensor, at_once: int) -> None:
    """Gradients at all rows, nothing else."""
    for some, y in zip(rows.split(at_once), labels.split(at_once), strict=True):
        gradients(network, some, y)


def nested(network: nn.Module, x: Tensor, absent: Tensor, labels: Tensor) -> Tensor:
    """Effects ``(B, 5)`` of degrees 1 to 5, by as many derivatives along x − b."""

    def along(t: Tensor) -> Tensor:
        return network(absent + t * (x - absent)).gather(1, labels[:, None])[:, 0]

    def derived(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda t: torch.func.jvp(function, (t,), (torch.ones_like(t),))[1]

    found, function, factorial = [], along, 1
    for degree in range(1, DEGREES + 1):
        function, factorial = derived(function), factorial * degree
        found.append(function(x.new_zeros(())) / factorial)
    return torch.stack(found, 1)


def smooth() -> nn.Module:
    """A digits network that has all derivatives."""
    return nn.Sequential(
        it.Normalize([0.3], [0.4]),
        *(nn.Conv2d(1, 16, 3, padding=1), nn.Softplus(), nn.AvgPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.Softplus(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(128, 64), nn.Softplus(), nn.Linear(64, 10)),
    )


def main() -> None:
    arguments = parse_arguments(__doc__.splitlines()[0])
    device, quick = arguments.device, arguments.quick
    rounds = 3 if quick else 9
    metrics: dict[str, float] = {}

    digits_net = it.pretrained(it.models.DigitsNet(), "digits_cnn")
    networks = {
        "digits": (digits_net, *digits(256, device), it.GridPlayers(3, 3)),
        FEW: (digits_net, *digits(32, device), it.GridPlayers(3, 3)),
        "vgg": (it.models.CIFARVGG(), *noise(8, device), it.GridPlayers(2, 2)),
    }
    if not quick:
        networks["resnet"] = (it.models.CIFARResNet(), *noise(8, device), it.GridPlayers(2, 2))
    for name, (network, x, y, players) in networks.items():
        network.to(device).eval()
        absent = torch.full_like(x, 0.4)
        pairs, both = torch.cat([x, absent]), y.repeat(2)
        game = it.MaskedGame(network, x, absent, players, "logit", y)
        steps: dict[str, Callable[[], object]] = {
            "rescale": lambda game=game: attribute(game, "deeplift_rescale"),
            "bare": lambda n=network, p=pairs, b=both: gradients(n, p, b),
        }
        seconds = interleaved(steps, 3 * rounds, device)
        ratio = seconds["rescale"] / seconds["bare"]
        if name == FEW:
            metrics[FEW] = ratio
            continue
        metrics[f"rescale_over_twice_the_rows_{name}"] = ratio

        game = it.MaskedGame(network, x[:1], absent[:1], players, "logit", y[:1])
        count = STEPS << game.n
        rows, labels = x[:1].repeat_interleave(count, 0), y[:1].repeat_interleave(count)
        at_once = pass_rows(game, count)
        steps = {
            "ours": lambda game=game: allocation(game, "integrated_gradients", steps=STEPS),
            "bare": lambda n=network, r=rows, b=labels, k=at_once: passes(n, r, b, k),
        }
        seconds = interleaved(steps, rounds, device)
        metrics[f"allocation_over_gradients_{name}"] = seconds["ours"] / seconds["bare"]

    with torch.random.fork_rng():
        torch.manual_seed(0)
        analytic = smooth().double().to(device).eval()
    x, y = (part.double() if part.is_floating_point() else part for part in digits(32, device))
    absent = x + 0.1 * torch.linspace(-1, 1, x[0].numel(), dtype=x.dtype, device=device).view(
        x[0].shape
    )
    game = it.MaskedGame(analytic, x, absent, it.GridPlayers(3, 3), "logit", y)
    with torch.no_grad():
        exact = nested(analytic, x, absent, y)
        found = degree_effects(game, DEGREES)
        steps = {
            "fit": lambda: degree_effects(game, DEGREES),
            "jvp": lambda: nested(analytic, x, absent, y),
        }
        seconds = interleaved(steps, 1 if quick else rounds, device)
    metrics["degrees_by_fit_over_jvp"] = seconds["fit"] / seconds["jvp"]
    metrics["degrees_difference"] = float((found - exact).abs().max() / exact.abs().max())
    report("attributions", device, metrics, WANTED)


if __name__ == "__main__":
    main()
