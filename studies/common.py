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

``run_all.py`` runs every script that has that first line of ``main``. What the scales ask for is in
``settings.yaml``. The verdict follows from the checks; it is printed, and stands in
``NAME_digits.json`` beside the table, with the command, the seeds, the hardware and the time.
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

ROOT = Path(__file__).parent.parent
DATA_VARIABLE = "INTERACTION_TRAIN_DATA"
DIGITS: dict[str, Callable[..., nn.Module]] = {  # the networks whose weights are packaged
    "cnn": it.models.DigitsNet,
    "resnet": partial(
        it.models.CIFARThinResNet, 8, mean=it.models.DIGITS_MEAN, std=it.models.DIGITS_STD, width=8
    ),
    "mlp": it.models.DigitsMLP,
}

FILES = dict.fromkeys(("mnist_1000", "mnist_5000"), "mnist.npz") | {"cifar10": "cifar10_5k.npz"}

Scale = Literal["smoke", "quick", "full"]
Data = Literal["digits", "tabular", "mnist_1000", "mnist_5000", "cifar10"]
Settings = Mapping[str, Any]
Summary = dict[str, Any]


class PlanOnly(Exception):
    """Ends a part that was to print its plan of runs."""


@dataclass(frozen=True)
class Study:
    """A script and what the command line asked it for.

    The scale ``smoke`` takes seconds and says nothing, ``quick`` minutes on two cores, ``full`` has
    the papers' settings. Below ``out`` go ``studies/results``, ``docs/images`` and ``runs``.
    """

    name: str
    scale: Scale
    only: tuple[Data, ...]
    given_seeds: tuple[int, ...] | None
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
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module="lightning")
        return cls(
            Path(script).stem,
            given.scale,
            (given.only,) if given.only else get_args(Data),
            tuple(given.seeds) if given.seeds else None,
            given.dry_run,
            given.out or (ROOT / "runs" / "smoke" if given.scale == "smoke" else ROOT),
        )

    def parts(self) -> Iterator[Part]:
        """The study on each data set; where files are missing a line says what to do."""
        settings = yaml.safe_load((Path(__file__).parent / "settings.yaml").read_text())
        for data in self.only:
            wanted = settings.get(self.name, {}).get(data, {}).get(self.scale)
            if wanted is None:
                continue
            file = FILES.get(data, "")
            if file and self.scale != "full" and not self.file(file).is_file():
                print(
                    f"{self.name}: {data} is left out. Set {DATA_VARIABLE} to a folder with {file}."
                )
            else:
                seeds = self.given_seeds or tuple(range(wanted.pop("seeds", 1)))
                yield Part(self, data, seeds, wanted)

    def file(self, name: str) -> Path:
        """A file of the folder that INTERACTION_TRAIN_DATA names."""
        return Path(os.environ.get(DATA_VARIABLE, "."), name)

    @property
    def cifar10(self) -> str:
        """The source of CIFAR-10 for ``ImageDataModule``: the small file, or torchvision's set."""
        return "CIFAR10" if self.scale == "full" else str(self.file("cifar10_5k.npz"))


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
        if error is None:
            if not self._verdict:
                raise RuntimeError(f"{self.stem} has no verdict")
            self._write_sidecar()
        return isinstance(error, PlanOnly)

    @property
    def stem(self) -> str:
        """``<study>_<data>``."""
        return f"{self.study.name}_{self.data}"

    def runs(
        self, plan: Mapping[str, Settings], work: Callable[..., Summary]
    ) -> dict[str, Summary]:
        """Do every run of a plan that is not on disk yet, and return all summaries.

        Args:
            plan: name of the run, ``"dropout_0.5/seed_0"`` say → the arguments of ``work``, plain
                values that JSON can hold. A run on disk that was made with other ones is repeated.
            work: settings → a summary of plain numbers and lists.
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
            record = json.loads(path.read_text()) if path.is_file() else None
            if record is not None and record["settings"] == wanted:
                self._before += record["seconds"]
            else:
                start = time.perf_counter()
                summary = work(**settings)
                seconds = time.perf_counter() - start
                record = {"settings": wanted, "summary": summary, "seconds": seconds}
                _write(path, json.dumps(record))
                shown = f"{self.stem}, {place} of {len(plan)} runs: {name}, {seconds:.1f} s"
                print(shown, file=sys.stderr, flush=True)
            found[name] = record["summary"]
        return found

    def table(self, rows: Sequence[Mapping[str, Any]], name: str = "") -> None:
        """Write rows as CSV, floats with four digits; beside it stands the sidecar.

        Columns ``a`` and ``a_stderr`` are shown as "a ± stderr" in documents, ``a``, ``a_low`` and
        ``a_high`` as "a [low, high]" (``tables.py``). Further tables of a part have a name.
        """
        path = self._results / f"{self.stem}{'_' * bool(name)}{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_csv(path, index=False, float_format="%.4g", lineterminator="\n")

    def figure(self, figure: Figure, name: str = "") -> None:
        """Write a figure as PNG, with few colours to keep it small."""
        folder = self.study.out / "docs" / "images" / "studies"
        folder = folder / "full" if self.study.scale == "full" else folder
        path = folder / f"{self.stem}{'_' * bool(name)}{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=110)
        Image.open(buffer).convert("RGB").quantize(128).save(path, optimize=True)

    def verdict(self, checks: Sequence[Check], left: str = "") -> None:
        """Print the verdict, one sentence, and keep it for the sidecar.

        The claim holds if all checks do, in part if some do, or with something left open.
        """
        right = [check for check in checks if check.holds]
        wrong = [check for check in checks if not check.holds]
        kind = "holds in part" if right else "does not hold here"
        if not wrong and not left:
            kind = "holds"
        sentence = f"{kind.capitalize()}, {len(right)} of {len(checks)} checks"
        sentence += ": " * bool(right) + "; ".join(map(str, right))
        sentence += "; these fail: " * bool(wrong) + "; ".join(map(str, wrong))
        sentence += f" ({left})." if left else "."
        self._verdict = {"kind": kind, "verdict": sentence}
        print(f"{self.stem}: {sentence}")

    @property
    def _results(self) -> Path:
        return self.study.out / "studies" / "results" / self.study.scale

    def _write_sidecar(self) -> None:
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
        text = json.dumps(record, indent=2, ensure_ascii=False)
        _write(self._results / f"{self.stem}.json", text + "\n")


class Check(NamedTuple):
    """A statement of a claim, whether the numbers bear it out, and the numbers."""

    says: str
    holds: bool
    numbers: str

    def __str__(self) -> str:
        return f"{self.says} ({self.numbers})"


class Mean(NamedTuple):
    """A mean over seeds or the like, its standard error, and Student's 95 % interval.

    All but the mean are NaN for a single value.
    """

    value: float
    stderr: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Mean:
        """Of independent values."""
        data = np.array(list(values), dtype=float)
        if len(data) < 2:
            return cls(float(data.mean()), math.nan, math.nan, math.nan)
        value, stderr = float(data.mean()), float(stats.sem(data))
        reach = stderr * float(stats.t.ppf(0.975, len(data) - 1))
        return cls(value, stderr, value - reach, value + reach)

    def __str__(self) -> str:
        if math.isnan(self.stderr):
            return f"{self.value:.3g}"
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"

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


def columns(values: Mapping[str, Iterable[float]], interval: bool = False) -> dict[str, float]:
    """Columns of a table: title → independent values, of which the mean is shown."""
    shown = (Mean.of(v).columns(title, interval) for title, v in values.items())
    return {name: value for part in shown for name, value in part.items()}


def curve(axes: Axes, x: Sequence[float], means: Sequence[Mean], **style: Any) -> None:
    """Draw means with bars of one standard error."""
    heights, errors = [m.value for m in means], [m.stderr for m in means]
    axes.errorbar(x, heights, errors, **{"marker": "o", "ms": 3, **style})


def fit(
    network: Callable[[], nn.Module],
    data: L.LightningDataModule,
    *,
    seed: int,
    epochs: int,
    lr: float,
    losses: dict[str, it.WeightedTerm] | None = None,
    callbacks: Sequence[L.Callback] = (),
    validate: bool = False,
    exponential: bool = False,
    clip: float | None = 1.0,
) -> nn.Module:
    """Train with SGD (momentum .9, weight decay 5e-4); the last weights count.

    The network is built after the seed is set; the data's order has a seed of its own. The learning
    rate falls to 0 along a cosine, or to a hundredth by the same factor in every epoch.
    ``validate`` is for callbacks that measure then, ``clip`` the gradients' largest norm, as large
    weights of a loss need it. The network comes in eval mode, on the device that trained it.
    """
    L.seed_everything(seed, verbose=False)

    rates = torch.optim.lr_scheduler
    module = it.InteractionClassifier(
        network(),
        losses=losses,
        optimizer=lambda p: torch.optim.SGD(p, lr=lr, momentum=0.9, weight_decay=5e-4),
        lr_scheduler=partial(rates.ExponentialLR, gamma=0.01 ** (1 / epochs))
        if exponential
        else partial(rates.CosineAnnealingLR, T_max=epochs),
    )
    trainer = L.Trainer(
        max_epochs=epochs, devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks),
        limit_val_batches=1.0 if validate else 0, num_sanity_val_steps=0, gradient_clip_val=clip,
    )  # fmt: skip
    trainer.fit(module, data)
    return module.model.eval()


def save(network: nn.Module, path: Path) -> Path:
    """Write a network's weights as safetensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    return path


def splits(data: Mapping[str, Any], seed: int = 0, **more: Any) -> Any:
    """The data module of some arguments: of images with a ``source``, else of digits."""
    module = it.ImageDataModule if "source" in data else it.DigitsDataModule
    return module(**data, seed=seed, **more)


@cache
def plain(source: str) -> Any:
    """Digits, or the images of another source, as they are; read once."""
    return splits({} if source == "digits" else {"source": source, "augment": False})


def tensors(data: Any, split: Literal["train", "val", "test"]) -> tuple[Tensor, Tensor]:
    """All images of a split, not augmented, and their labels."""
    data.setup()
    x, y = data.parts[split].__getitems__(range(len(data.parts[split])))
    return x, y


@torch.no_grad()
def logits(network: nn.Module, x: Tensor, batch: int = 256) -> Tensor:
    """Logits ``(B, classes)`` on the CPU, in eval mode and in batches."""
    network.eval()
    device = next(network.parameters()).device
    return torch.cat([network(part.to(device)).cpu() for part in x.split(batch)])


def accuracy(network: nn.Module, data: Any, split: Literal["train", "val", "test"]) -> float:
    """The share of a split that the network gets right."""
    x, y = tensors(data, split)
    return float((logits(network, x).argmax(1) == y).double().mean())


def hardware() -> str:
    """The processor, or the GPU where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{(names or [platform.processor() or platform.machine()])[0]}, {os.cpu_count()} cores"


def _write(path: Path, text: str) -> None:
    """Write a file at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)
