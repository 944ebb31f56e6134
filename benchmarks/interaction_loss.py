"""Cost and variance of the interaction loss, against the released procedure and bare passes.

The released procedure is rebuilt here from its description: it draws one pair of groups for all
images and contexts of a step, runs the prefix a second time, and makes four passes of K · B rows
through what follows the layer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from common import interleaved, parse_arguments, report
from sklearn.datasets import load_digits
from torch import Tensor, nn

from interaction_train.layers import record
from interaction_train.losses import InteractionLoss
from interaction_train.models import CIFARAlexNet, CIFARResNet

CONTEXTS, FRACTION = 10, 0.05  # the released settings


class AlexNet(CIFARAlexNet):
    """Split at the layer of the released code."""

    layer = "features.5"

    def prefix(self, x: Tensor) -> Tensor:
        return self.features[:6](self.normalize(x))

    def suffix(self, h: Tensor) -> Tensor:
        return self.classifier(self.features[6:](h))


class ResNet18(CIFARResNet):
    """Split after the first stage."""

    layer = "layer1"

    def prefix(self, x: Tensor) -> Tensor:
        return self.layer1(self.relu(self.bn1(self.conv1(self.normalize(x)))))

    def suffix(self, h: Tensor) -> Tensor:
        h = self.layer4(self.layer3(self.layer2(h)))
        return self.fc(torch.flatten(self.avgpool(h), 1))


def released_loss(net: AlexNet | ResNet18, x: Tensor, y: Tensor, contexts: int) -> Tensor:
    """Shared groups, a second prefix pass, four suffix passes of ``contexts`` · B rows."""
    h = net.prefix(x)
    n, size = h[0].numel(), round(FRACTION * h[0].numel())
    order = torch.randperm(n, device=x.device)
    a, b = (torch.zeros(n, dtype=torch.bool, device=x.device) for _ in "ab")
    a[order[:size]], b[order[size : 2 * size]] = True, True
    keep = torch.rand(contexts, len(x), 1, device=x.device)
    s = (torch.rand(contexts, len(x), n, device=x.device) < keep) & ~(a | b)

    def v(mask: Tensor) -> Tensor:
        rows = (h.flatten(1) * mask).view(-1, *h.shape[1:])
        labels = y.repeat(contexts)[:, None]
        return net.suffix(rows).gather(1, labels)

    return (v(s | a | b) - v(s | a) - v(s | b) + v(s)).square().mean()


def data(batch: int, device: str) -> tuple[Tensor, Tensor]:
    """Real images without a download: digits, enlarged to 32 x 32 and three channels."""
    digits = load_digits()
    x = torch.as_tensor(digits.images[:batch] / 16, dtype=torch.float32, device=device)
    x = F.interpolate(x[:, None], size=32, mode="bilinear").expand(-1, 3, -1, -1)
    return x.contiguous(), torch.as_tensor(digits.target[:batch], device=device)


def variance(estimate: object, repeats: int) -> float:
    """Variance of a loss estimate over its draws, at fixed weights and batch."""
    with torch.no_grad():
        return torch.stack([estimate(i) for i in range(repeats)]).double().var().item()


def measure(net: AlexNet | ResNet18, batch: int, contexts: int, rounds: int, repeats: int) -> dict:
    """All ratios of one network."""
    device = next(net.parameters()).device.type
    x, y = data(batch, device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    for _ in range(10):  # leave the initialisation, where interactions are tiny
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    net.eval()  # as coalitions run; the same for all that is compared

    def ours(loss: InteractionLoss) -> None:
        net.zero_grad(set_to_none=True)
        with record(net, loss.layers) as forward:
            forward.logits = net(x)
        (F.cross_entropy(forward.logits, y) + loss(net, x, y, forward=forward)).backward()

    def released() -> None:
        net.zero_grad(set_to_none=True)
        (F.cross_entropy(net(x), y) + released_loss(net, x, y, contexts)).backward()

    def plain() -> None:
        net.zero_grad(set_to_none=True)
        F.cross_entropy(net(x), y).backward()

    def bound(rows: int) -> None:
        net.zero_grad(set_to_none=True)
        h = net.prefix(x)
        token = net.prefix(x[:1]).sum()
        labels = y.repeat(rows // batch + 1)
        many = h.repeat(rows // batch + 1, *(1 for _ in h.shape[1:]))
        (F.cross_entropy(net.suffix(many), labels) + 0 * token).backward()

    default = InteractionLoss(net.layer)
    equal_rows = InteractionLoss(net.layer, contexts=contexts)
    seconds = interleaved(
        {
            "plain": plain,
            "default": lambda: ours(default),
            "bound": lambda: bound(default.rows(batch)),
            "equal_rows": lambda: ours(equal_rows),
            "released": released,
        },
        rounds,
        device,
    )
    reference_rows = 4 * contexts * batch
    reference = variance(lambda _: released_loss(net, x, y, contexts), repeats)
    results = {
        "step_over_bound": seconds["default"] / seconds["bound"],
        "time_over_reference_equal_rows": seconds["equal_rows"] / seconds["released"],
        "released_step_over_plain": seconds["released"] / seconds["plain"],
    }
    # Fewer draws for fewer images: the cheapest setting that is no noisier than the released one.
    settings = {
        "": default,
        "_5_groups": InteractionLoss(net.layer, groups=5, group_fraction=FRACTION),
    }
    for suffix, loss in settings.items():
        ours_variance = variance(lambda i, loss=loss: loss(net, x, y, step=i), repeats)
        results[f"variance_rows_over_reference{suffix}"] = (
            ours_variance * loss.rows(batch) / (reference * reference_rows)
        )
        if not suffix:
            results["variance_over_reference"] = ours_variance / reference
    if results["variance_over_reference"] <= 1:
        results["step_over_plain_equal_variance"] = seconds["default"] / seconds["plain"]
    return results


def main() -> None:
    arguments = parse_arguments(__doc__.splitlines()[0])
    torch.manual_seed(0)
    metrics = {}
    for name, network, contexts in (
        ("alexnet", AlexNet, CONTEXTS),
        # Quick: fewer contexts for the deep network; the ratios at equal rows do not depend on it.
        ("resnet18", ResNet18, 2 if arguments.quick else CONTEXTS),
    ):
        net: nn.Module = network().to(arguments.device)
        batch, rounds, repeats = (8, 3, 30) if arguments.quick else (32, 7, 200)
        if name == "resnet18":
            rounds, repeats = max(2, rounds // 2), repeats // 3
        for key, value in measure(net, batch, contexts, rounds, repeats).items():
            metrics[f"{key}_{name}"] = value
    report(
        "interaction_loss",
        arguments.device,
        metrics,
        {
            "step_over_bound": "≤ 1.15",
            "time_over_reference_equal_rows": "≤ 1.05",
            "variance_rows_over_reference_5": "",
            "variance_rows_over_reference": "≤ 0.25",
            "variance_over_reference": "≤ 1",
            "step_over_plain_equal_variance_alexnet": "≤ 6",
        },
    )


if __name__ == "__main__":
    main()
