"""Cost, gradient noise and gain of the interaction loss, against the released procedure.

The released procedure is rebuilt here from its description: it draws one pair of groups, a
twentieth of the units each, for all images and contexts of a step, runs the prefix a second time,
and makes four passes of K · B rows through what follows the layer, on the label's logit.

*Cost* is that of a training step at the loss's defaults, over a plain one, early in the network and
at the last hidden layer, and early over the bare passes of the same rows. *Gradient noise* is the
variance of a term's gradient over its draws, at fixed weights and batch, times its rows, over the
squared length of the mean gradient; the ratio at equal settings (logit, a twentieth) compares
variances alone. *Gain* is test accuracy above training without a regulariser, per second of
training; the released procedure's counts as a tenth of a point at least, as it can be none.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from common import data_folder, interleaved, parse_arguments, report
from sklearn.datasets import load_digits
from torch import Tensor, nn

from interaction_train.game.layers import record
from interaction_train.losses import InteractionLoss
from interaction_train.models import CIFARAlexNet, CIFARResNet

CONTEXTS, FRACTION, WEIGHT = 10, 0.05, 100.0  # released settings; the weight suits the perceptron


class Perceptron(nn.Module):
    """784-512-512-10, split after its first ReLU."""

    layer = "prefix"

    def __init__(self) -> None:
        super().__init__()
        self.prefix = nn.Sequential(nn.Flatten(), nn.Linear(784, 512), nn.ReLU())
        self.suffix = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.suffix(self.prefix(x))


class AlexNet(CIFARAlexNet):
    """Split at the layer of the released code."""

    layer, late = "features.5", "classifier.6"

    def prefix(self, x: Tensor) -> Tensor:
        return self.features[:6](self.normalize(x))

    def suffix(self, h: Tensor) -> Tensor:
        return self.classifier(self.features[6:](h))


class ResNet18(CIFARResNet):
    """Split after the first stage."""

    layer, late = "layer1", "avgpool"

    def prefix(self, x: Tensor) -> Tensor:
        return self.layer1(self.relu(self.bn1(self.conv1(self.normalize(x)))))

    def suffix(self, h: Tensor) -> Tensor:
        h = self.layer4(self.layer3(self.layer2(h)))
        return self.fc(torch.flatten(self.avgpool(h), 1))


Net = Perceptron | AlexNet | ResNet18


def released_loss(net: Net, x: Tensor, y: Tensor) -> Tensor:
    """Shared groups, a second prefix pass, four suffix passes of K · B rows."""
    h = net.prefix(x)
    n, size = h[0].numel(), round(FRACTION * h[0].numel())
    order = torch.randperm(n, device=x.device)
    a, b = (torch.zeros(n, dtype=torch.bool, device=x.device) for _ in "ab")
    a[order[:size]], b[order[size : 2 * size]] = True, True
    keep = torch.rand(CONTEXTS, len(x), 1, device=x.device)
    s = (torch.rand(CONTEXTS, len(x), n, device=x.device) < keep) & ~(a | b)

    def v(mask: Tensor) -> Tensor:
        rows = (h.flatten(1) * mask).view(-1, *h.shape[1:])
        return net.suffix(rows).gather(1, y.repeat(CONTEXTS)[:, None])

    return (v(s | a | b) - v(s | a) - v(s | b) + v(s)).square().mean()


Term = Callable[..., Tensor]


def objective(net: Net, x: Tensor, y: Tensor, term: Term | None) -> Tensor:
    """Cross entropy, plus a term where there is one."""
    with record(net, term.layers if isinstance(term, InteractionLoss) else ()) as forward:
        forward.logits = net(x)
    total = F.cross_entropy(forward.logits, y)
    return total if term is None else total + term(net, x, y, forward=forward)


def cost(net: AlexNet | ResNet18, batch: int, rounds: int) -> dict[str, float]:
    """Ratios of the seconds of one step, in eval, as coalitions run."""
    device = next(net.parameters()).device.type
    x = torch.rand(batch, 3, 32, 32, device=device)
    y = torch.randint(10, (batch,), device=device)
    loss = InteractionLoss(net.layer)
    rows = loss.rows(batch)
    net.eval()

    def bound() -> Tensor:
        """The rows of the loss through the suffix, in the same chunks, and nothing else."""
        h = net.prefix(x)
        total = net.suffix(h).sum()
        for count in _chunks(rows, 64 if device == "cpu" else rows):
            part = h.repeat(-(-count // batch), 1, 1, 1)[:count]
            total = total + net.suffix(part).sum() + 0 * net.prefix(x[:1]).sum()
        return total

    def step(value: Callable[[], Tensor]) -> Callable[[], None]:
        def run() -> None:
            net.zero_grad(set_to_none=True)
            value().backward()

        return run

    seconds = interleaved(
        {
            "plain": step(lambda: objective(net, x, y, None)),
            "ours": step(lambda: objective(net, x, y, loss)),
            "late": step(lambda: objective(net, x, y, InteractionLoss(net.late))),
            "bound": step(bound),
        },
        rounds,
        device,
    )
    return {
        "step_over_plain": seconds["ours"] / seconds["plain"],
        "step_over_plain_late": seconds["late"] / seconds["plain"],
        "step_over_bound": seconds["ours"] / seconds["bound"],
    }


def _chunks(rows: int, size: int) -> list[int]:
    return [min(size, rows - first) for first in range(0, rows, size)]


def images(device: str, train: int) -> tuple[Tensor, ...]:
    """MNIST where INTERACTION_TRAIN_DATA has it, else enlarged digits: to train on, to test."""
    folder = data_folder()
    if folder:
        with np.load(folder / "mnist.npz") as file:
            x, y = file["x_train"][: train + 5000] / 255, file["y_train"][: train + 5000]
    else:
        digits = load_digits()
        x = np.pad(digits.images.repeat(3, 1).repeat(3, 2) / 16, ((0, 0), (2, 2), (2, 2)))
        y = digits.target
    x = torch.as_tensor(x, dtype=torch.float32, device=device)
    y = torch.as_tensor(y, dtype=torch.int64, device=device)
    return x[:train], y[:train], x[train:], y[train:]


def train(
    x: Tensor, y: Tensor, epochs: int, seed: int, term: Term | None
) -> tuple[Perceptron, float]:
    """A perceptron trained with Adam along a cosine, in batches of 128, and the seconds it took."""
    torch.manual_seed(seed)
    net, steps = Perceptron().to(x.device), len(x) // 128
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    start = time.perf_counter()
    for _ in range(epochs):
        for part in torch.randperm(len(x), device=x.device).split(128)[:steps]:
            optimizer.zero_grad()
            objective(net, x[part], y[part], term).backward()
            optimizer.step()
            schedule.step()
    return net.eval(), time.perf_counter() - start


def gain(device: str, epochs: int, seeds: int, released_seeds: int) -> dict[str, float]:
    """Test accuracy above that without a regulariser, per second of training, over the released."""
    x, y, x_test, y_test = images(device, 1000)

    def runs(term: Term | None, count: int) -> tuple[list[float], float]:
        """Test accuracies in points, and the mean seconds."""
        found = [train(x, y, epochs, seed, term) for seed in range(count)]
        with torch.no_grad():
            right = [(net(x_test).argmax(1) == y_test).double().mean().item() for net, _ in found]
        return [100 * r for r in right], statistics.mean(took for _, took in found)

    def gained(points: list[float]) -> float:
        return statistics.mean(a - b for a, b in zip(points, plain, strict=False))

    plain, _ = runs(None, seeds)
    ours, seconds = runs(InteractionLoss("prefix"), seeds)
    released, longer = runs(lambda *a, **_: WEIGHT * released_loss(*a), released_seeds)
    return {
        "gain_points": gained(ours),
        "gain_points_released": gained(released),
        "released_seconds_over_ours": longer / seconds,
        "gain_per_second_over_released": gained(ours) / max(gained(released), 0.1)
        * longer / seconds,
    }  # fmt: skip


def noise(device: str, batch: int, repeats: int) -> dict[str, float]:
    """Variances of gradients over draws, times rows, over those of the released procedure."""
    x, y, *_ = images(device, 1000)
    net, _ = train(x, y, 12, 0, None)
    x, y, weights = x[:batch], y[:batch], list(net.parameters())[:-1]

    def variance(term: Term) -> tuple[float, float]:
        """Of the gradient, and over the square of the mean gradient."""
        found = [torch.autograd.grad(term(net, x, y), weights) for _ in range(repeats)]
        gradients = torch.stack([torch.cat([g.flatten() for g in one]) for one in found])
        spread = gradients.var(0).sum().item()
        # The mean's own noise is no signal.
        return spread, spread / (gradients.mean(0).square().sum().item() - spread / repeats)

    ours = InteractionLoss("prefix")
    same = InteractionLoss("prefix", payoff="logit", group_fraction=FRACTION, batch_fraction=1.0)
    rows, name = 4 * CONTEXTS * batch, "gradient_variance_rows_over_reference"
    reference, relative = variance(released_loss)
    return {
        name: variance(ours)[1] / relative * ours.rows(batch) / rows,
        "released_settings_gradient_variance_rows": variance(same)[0]
        / reference
        * same.rows(batch)
        / rows,
    }


def main() -> None:
    arguments = parse_arguments(__doc__.splitlines()[0])
    torch.manual_seed(0)
    quick, device = arguments.quick, arguments.device
    metrics = {}
    for name, network, size in (("alexnet", AlexNet, 32), ("resnet18", ResNet18, 16)):
        batch = size if quick else 128 if device != "cpu" else 2 * size
        for key, value in cost(network().to(device), batch, 2 if quick else 5).items():
            metrics[f"{key}_{name}"] = value
    metrics |= noise(device, 64 if quick else 128, 20 if quick else 200)
    metrics |= gain(device, 12, 3, 1) if quick else gain(device, 40, 10, 5)
    print(f"Gradient noise and gain: {'MNIST' if data_folder() else 'enlarged digits'}")
    report(
        "interaction_loss",
        device,
        metrics,
        {
            "step_over_plain_late": "≤ 1.2",
            "step_over_plain": "≤ 2.0",
            "step_over_bound": "≤ 1.05",
            "gradient_variance_rows_over_reference": "≤ 0.25",
            "gain_per_second_over_released": "≥ 5",
        },
    )


if __name__ == "__main__":
    main()
