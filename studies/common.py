"""What all studies share: arguments, resumable runs, intervals, and where results go.

A study is a script with this shape::

    def main() -> None:
        study = Study.from_command_line(__file__, __doc__)
        for part in study.parts():                    # one per data set that is wanted
            with part:
                found = part.runs(plan, work)         # or ends here with --dry_run
                part.table(rows)                      # studies/results/<scale>/NAME_digits.csv
                part.figure(figure)                   # docs/images/studies/NAME_digits.png
                part.verdict([Check("dropout lowers the strength", True, ".25 to .21")])

What the scales ask for is in ``settings.yaml``. The verdict stands in ``NAME_digits.json`` beside
the table, with the command, the seeds, the hardware and the time.
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import logging
import math
import os
import platform
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import lightning as L
import numpy as np
import pandas as pd
import torch
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from safetensors.torch import save_file
from scipy import stats
from torch import Tensor, nn

import interaction_train as it
from interaction_train.callbacks.samples import spread
from interaction_train.tracking.style import styled

ROOT = Path(__file__).parent.parent
SETTINGS = yaml.safe_load((Path(__file__).parent / "settings.yaml").read_text())
DATA_VARIABLE = "INTERACTION_TRAIN_DATA"
FILES = dict.fromkeys(("mnist_1000", "mnist_5000"), "mnist.npz") | {
    "cifar10": "cifar10_5k.npz",
    "imagenet": "imagenet100_224.npz",
    "sst2": "sst2_train.tsv",
}
DIGITS: dict[str, Callable[..., nn.Module]] = {  # the networks whose weights are packaged
    "cnn": it.models.DigitsNet,
    "resnet": partial(
        it.models.CIFARThinResNet, 8, mean=it.models.DIGITS_MEAN, std=it.models.DIGITS_STD, width=8
    ),
    "mlp": it.models.DigitsMLP,
}

Scale = Literal["smoke", "quick", "full"]
Data = Literal[
    "digits", "tabular", "census", "mnist_1000", "mnist_5000", "cifar10", "imagenet", "grammar",
    "sst2", "textures",
]  # fmt: skip
Split = Literal["train", "val", "test"]
Settings = Mapping[str, Any]
Summary = dict[str, Any]


class PlanOnly(Exception):
    """Ends a part that was to print its plan of runs."""


def quiet() -> None:
    """No lines and warnings of Lightning."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")


def home(scale: Scale) -> Path:
    """The folder below which results go: the repository, but for a try."""
    return ROOT / "runs" / "smoke" if scale == "smoke" else ROOT


@dataclass(frozen=True)
class Study:
    """A script and what the command line asked it for.

    The scale ``smoke`` takes seconds and says nothing, ``quick`` minutes on two cores, ``full`` has
    the papers' settings. Below ``out`` go ``studies/results``, ``docs/images`` and ``runs``.
    """

    name: str
    scale: Scale
    only: tuple[Data, ...]
    given_seeds: Sequence[int] | None
    dry_run: bool
    out: Path

    @classmethod
    def from_command_line(cls, script: str, description: str | None) -> Study:
        """Parse ``--scale``, ``--only``, ``--seeds``, ``--dry_run`` and ``--out``."""
        parser = argparse.ArgumentParser(description=(description or "").split("\n")[0])
        parser.add_argument("--scale", choices=get_args(Scale), default="quick")
        parser.add_argument("--only", choices=get_args(Data), help="one of the data sets")
        parser.add_argument("--seeds", type=int, nargs="+", help="in place of the study's own")
        parser.add_argument("--dry_run", action="store_true", help="print the plan of runs")
        parser.add_argument("--out", type=Path, help="write below this folder, not the repository")
        given = parser.parse_args()
        quiet()
        only = (given.only,) if given.only else get_args(Data)
        out = given.out or home(given.scale)
        return cls(Path(script).stem, given.scale, only, given.seeds, given.dry_run, out)

    def parts(self) -> Iterator[Part]:
        """The study on each data set; where files are missing a line says what to do."""
        for data in self.only:
            wanted = SETTINGS.get(self.name, {}).get(data, {}).get(self.scale)
            file = FILES.get(data, "")
            if wanted is None:
                continue
            if file and self.scale != "full" and not self.file(file).is_file():
                hint = f"Set {DATA_VARIABLE} to a folder with {file}."
                print(f"{self.name}: {data} is left out. {hint}")
                continue
            asked = {"seeds": 1, **wanted}
            seeds = range(asked.pop("seeds"))
            yield Part(self, data, tuple(self.given_seeds or seeds), asked)

    def file(self, name: str) -> Path:
        """A file of the folder that INTERACTION_TRAIN_DATA names."""
        return Path(os.environ.get(DATA_VARIABLE, "."), name)

    def source(self, data: str) -> str:
        """``digits``, or of CIFAR-10 the small file, at full scale torchvision's set."""
        full = self.scale == "full"
        return data if data == "digits" else "CIFAR10" if full else str(self.file(FILES[data]))


@dataclass
class Part:
    """A study on one data set: its settings, runs, tables, figure and verdict."""

    study: Study
    data: Data
    seeds: tuple[int, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    _begin: float = field(default_factory=time.perf_counter)
    _before: float = 0.0
    _verdict: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> Part:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is not None:
            return isinstance(error, PlanOnly)
        if not self._verdict:
            raise RuntimeError(f"{self.stem} has no verdict")
        record = {
            **self._verdict,
            "command": " ".join(["python", f"studies/{self.study.name}.py", *sys.argv[1:]]),
            "seeds": list(self.seeds),
            "hardware": hardware(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "wall_time_s": round(time.perf_counter() - self._begin + self._before, 1),
            "date": datetime.date.today().isoformat(),
        }
        _write(self._result(".json"), json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        return False

    @property
    def stem(self) -> str:
        """``<study>_<data>``."""
        return f"{self.study.name}_{self.data}"

    def runs(
        self, plan: Mapping[str, Settings], work: Callable[..., Summary]
    ) -> dict[str, Summary]:
        """Do every run that is not on disk yet, or with other arguments; return all summaries.

        ``plan`` has name (``"dropout_0.5/seed_0"`` say) → arguments of ``work``; they and what it
        returns are plain values that JSON can hold.
        """
        if self.study.dry_run:
            print(f"{self.stem}, {self.study.scale}: {len(plan)} runs")
            for name, settings in plan.items():
                print(f"  {name}: " + ", ".join(f"{k} {v}" for k, v in settings.items()))
            raise PlanOnly
        found = {}
        folder = self.study.out / "runs" / "studies" / self.study.scale / self.stem
        for place, (name, settings) in enumerate(plan.items(), 1):
            wanted = json.loads(json.dumps(dict(settings)))
            path = folder / f"{name}.json"
            record = json.loads(path.read_text()) if path.is_file() else {}
            if record.get("settings") == wanted:
                self._before += record["seconds"]
            else:
                start = time.perf_counter()
                record = {"settings": wanted, "summary": work(**settings)}
                record["seconds"] = time.perf_counter() - start
                _write(path, json.dumps(record))
                took = f"{name}, {record['seconds']:.1f} s"
                print(f"{self.stem}, {place} of {len(plan)} runs: {took}", file=sys.stderr)
            found[name] = record["summary"]
        return found

    def table(self, rows: Sequence[Mapping[str, Any]], name: str = "") -> None:
        """Write rows as CSV, floats with four digits; beside it stands the sidecar.

        Columns ``a`` and ``a_stderr`` are shown as "a ± stderr" in documents, ``a``, ``a_low`` and
        ``a_high`` as "a [low, high]" (``tables.py``). Further tables of a part have a name.
        """
        text = pd.DataFrame(rows).to_csv(index=False, float_format="%.4g", lineterminator="\n")
        _write(self._result(".csv", name), text)

    def figure(self, figure: Figure, name: str = "") -> None:
        """Write a figure as PNG, with few colours to keep it small."""
        folder = self.study.out / "docs" / "images" / "studies"
        folder = folder / "full" if self.study.scale == "full" else folder
        folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        with styled():
            figure.savefig(buffer, dpi=110)
        path = folder / self._result(".png", name).name
        Image.open(buffer).convert("RGB").quantize(128).save(path, optimize=True)

    def verdict(self, checks: Sequence[Check], left: str = "") -> None:
        """Print the verdict, one sentence, and keep it for the sidecar.

        The claim holds if all checks do, in part if some do, or with something left open.
        """
        right, wrong = ([str(c) for c in checks if c.holds == holds] for holds in (True, False))
        failed = "holds in part" if right else "does not hold here"
        kind = failed if wrong or left else "holds"
        sentence = f"{kind.capitalize()}, {len(right)} of {len(checks)} checks"
        sentence += f": {'; '.join(right)}" * bool(right)
        sentence += f"; these fail: {'; '.join(wrong)}" * bool(wrong)
        sentence += f" ({left})." if left else "."
        self._verdict = {"kind": kind, "verdict": sentence}
        print(f"{self.stem}: {sentence}")

    def _result(self, ending: str, name: str = "") -> Path:
        folder = self.study.out / "studies" / "results" / self.study.scale
        return folder / f"{self.stem}{'_' * bool(name)}{name}{ending}"


class Check(NamedTuple):
    """A statement of a claim, whether the numbers bear it out, and the numbers."""

    says: str
    holds: bool
    numbers: str

    def __str__(self) -> str:
        return f"{self.says} ({self.numbers})"


class Mean(NamedTuple):
    """A mean, its standard error, and Student's 95 % interval; of a single value these are NaN."""

    value: float
    stderr: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Mean:
        """Of independent values, over seeds or the like."""
        data = np.array(list(values), dtype=float)
        value, stderr, reach = float(data.mean()), math.nan, math.nan
        if len(data) > 1:
            stderr = float(stats.sem(data))
            reach = stderr * float(stats.t.ppf(0.975, len(data) - 1))
        return cls(value, stderr, value - reach, value + reach)

    def __str__(self) -> str:
        interval = f" [{self.low:.3g}, {self.high:.3g}]"
        return f"{self.value:.3g}{'' if math.isnan(self.stderr) else interval}"

    def points(self) -> str:
        """A difference of shares, in percentage points, with its interval where there is one."""
        interval = f" [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"
        return f"{100 * self.value:+.1f}{'' if math.isnan(self.stderr) else interval} points"

    def clearly(self, sign: Literal[-1, 1]) -> bool:
        """Whether the interval lies on that side of 0; a single value counts by its own sign."""
        if math.isnan(self.stderr):
            return sign * self.value > 0
        return min(sign * self.low, sign * self.high) > 0

    def columns(self, name: str, interval: bool = False) -> dict[str, float]:
        """Columns of a table: with the standard error, or with the interval."""
        if interval:
            return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}
        return {name: self.value, f"{name}_stderr": self.stderr}


def paired(first: Iterable[float], second: Iterable[float]) -> Mean:
    """The mean of ``first`` − ``second``, seed by seed."""
    return Mean.of(a - b for a, b in zip(first, second, strict=True))


def units(values: Sequence[Any]) -> list[float]:
    """What errors are taken over: the runs' means, or the images of a single run."""
    if len(values) == 1:
        return np.atleast_1d(np.asarray(values[0], dtype=float)).tolist()
    return [float(np.mean(value)) for value in values]


def columns(values: Mapping[str, Iterable[float]]) -> dict[str, float]:
    """Columns of a table: title → independent values, of which the mean is shown."""
    shown = (Mean.of(v).columns(title) for title, v in values.items())
    return {name: value for part in shown for name, value in part.items()}


def curve(axes: Axes, x: Sequence[float], means: Sequence[Mean], **style: Any) -> None:
    """Draw means with bars of one standard error."""
    heights, errors = [m.value for m in means], [m.stderr for m in means]
    axes.errorbar(x, heights, errors, **{"marker": "o", **style})


def fit(
    network: Callable[[], nn.Module], data: L.LightningDataModule, *, seed: int, epochs: int,
    lr: float, losses: dict[str, it.WeightedTerm] | None = None, classes: int = 10,
    optimizer: Callable[..., torch.optim.Optimizer] | None = None, **options: Any,
) -> nn.Module:  # fmt: skip
    """Train with SGD (momentum .9, weight decay 5e-4) along a cosine; the last weights count.

    The network is built after the seed is set; the data's order has a seed of its own. ``options``
    of the Trainer change those here: no validation, and gradients clipped to norm 1, as large
    weights of a loss need it. The network comes in eval mode.
    """
    L.seed_everything(seed, verbose=False)
    module = it.InteractionClassifier(
        network(),
        classes,
        losses=losses,
        optimizer=optimizer or partial(torch.optim.SGD, lr=lr, momentum=0.9, weight_decay=5e-4),
        lr_scheduler=partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=epochs),
    )
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    usual: dict[str, Any] = {**dict.fromkeys(off, False), "devices": 1, "gradient_clip_val": 1.0}
    usual |= {"limit_val_batches": 0, "num_sanity_val_steps": 0, "max_epochs": epochs}
    L.Trainer(**usual | options).fit(module, data)
    return module.model.eval()


def train_and_save(
    network: Callable[[], nn.Module], source: str, path: Path, seed: int = 0, **data: Any
) -> None:
    """Train 30 epochs, write the last weights as safetensors, and print the test accuracy."""
    module = splits(source, seed, **data)
    trained = fit(network, module, seed=seed, epochs=30, lr=0.05, gradient_clip_val=None)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in trained.state_dict().items()}, path)
    found = accuracy(trained, *images(source, "test"))
    print(f"{path.stem}: test accuracy {found:.4f}, {path.stat().st_size / 1000:.0f} kB")


def splits(source: str, seed: int = 0, **more: Any) -> L.LightningDataModule:
    """The data module of the digits, or of another source of images."""
    if source == "digits":
        return it.DigitsDataModule(seed=seed, **more)
    return it.ImageDataModule(source, seed=seed, **more)


@cache
def images(source: str, split: Split) -> tuple[Tensor, Tensor]:
    """All images of a split, as they are, and their labels; read once."""
    data = it.ImageDataModule(source, augment=False)
    data.setup()
    x, y = data.parts[split].__getitems__(range(len(data.parts[split])))
    return x, y


def right_images(
    networks: Iterable[nn.Module], source: str, split: Split, count: int, among: int = sys.maxsize
) -> tuple[Tensor, Tensor]:
    """Images that all networks get right, spread evenly; looked for among so many."""
    x, y = images(source, split)
    some = spread(range(len(x)), among)
    x, y = x[some], y[some]
    right = torch.stack([logits(network, x).argmax(1) == y for network in networks]).all(0)
    places = right.nonzero().flatten()[spread(range(int(right.sum())), count)]
    return x[places], y[places]


@torch.no_grad()
def logits(network: nn.Module, x: Tensor, batch: int = 256) -> Tensor:
    """Logits ``(B, classes)`` on the CPU, in eval mode and in batches."""
    network.eval()
    device = next(network.parameters()).device
    return torch.cat([network(part.to(device)).cpu() for part in x.split(batch)])


def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of images that the network gets right."""
    return float((logits(network, x).argmax(1) == y).double().mean())


def exact_orders(
    network: nn.Module, x: Tensor, y: Tensor, grid: it.GridPlayers
) -> tuple[Tensor, Tensor]:
    """Exact log-odds of y ``(B,)``, and I(m) ``(B, orders, n, n)`` over a small grid's cells."""
    baseline = it.input_baseline(network, None, x)
    v = it.exact_values(it.MaskedGame(network, x, baseline, grid, "log_odds", y)).double()
    return v[:, -1], it.multi_order_interactions(v)


def hardware() -> str:
    """The processor, or the GPU where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*: (.+)", info.read_text()) if info.is_file() else None
    name = named[1].strip() if named else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def _write(path: Path, text: str) -> None:
    """Write a file at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)
