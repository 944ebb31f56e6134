"""What benchmarks share: arguments, a network, timing, and the closing table and JSON line."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from interaction_train.models import CIFARThinResNet


def parse_arguments(description: str) -> argparse.Namespace:
    """``--quick`` (under a minute on two cores) and ``--device``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="smaller batches and fewer rounds")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def data_folder() -> Path | None:
    """The folder with CIFAR-10 and trained networks that INTERACTION_TRAIN_DATA names."""
    folder = os.environ.get("INTERACTION_TRAIN_DATA")
    return Path(folder) if folder else None


def network_and_images(
    count: int, device: str, depth: int = 20
) -> tuple[nn.Module, Tensor, Tensor]:
    """A trained ResNet and CIFAR-10 where INTERACTION_TRAIN_DATA has them, else random ones."""
    folder = data_folder()
    if folder:
        net = CIFARThinResNet(depth, weights=folder / f"cifar_resnet{depth}.safetensors")
        with np.load(folder / "cifar10_5k.npz") as file:
            images, labels = file["x_test"][:count], file["y_test"][:count]
        x = torch.as_tensor(images / 255, dtype=torch.float32).movedim(-1, 1).contiguous()
        y = torch.as_tensor(labels, dtype=torch.int64)
    else:
        net = CIFARThinResNet(depth)
        x = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        y = torch.arange(count) % 10
    return net.eval().to(device), x.to(device), y.to(device)


def interleaved(
    steps: Mapping[str, Callable[[], object]], rounds: int, device: str
) -> dict[str, float]:
    """Median seconds of each step; all take turns, so that a busy machine slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(rounds):
        for name, step in steps.items():
            synchronize(device)
            start = time.perf_counter()
            step()
            synchronize(device)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def synchronize(device: str) -> None:
    """Wait for a CUDA device."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def peak_memory(device: str, reset: bool = False) -> int:
    """Bytes at the peak since the last reset: of the process, on CUDA of its tensors."""
    if device.startswith("cuda"):
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated()
    if reset:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def report(
    benchmark: str, device: str, metrics: Mapping[str, float], wanted: Mapping[str, str]
) -> None:
    """Print the table of ratios, then one JSON object as the last line."""
    if device.startswith("cuda"):
        hardware = torch.cuda.get_device_name()
    else:
        hardware = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    table = Table(
        "ratio", "measured", "wanted", title=f"{benchmark} on {hardware}, torch {torch.__version__}"
    )
    for name, value in metrics.items():
        table.add_row(
            name, f"{value:.3f}", next((w for k, w in wanted.items() if name.startswith(k)), "")
        )
    Console().print(table)
    print(json.dumps({"benchmark": benchmark, "device": hardware, "metrics": dict(metrics)}))
