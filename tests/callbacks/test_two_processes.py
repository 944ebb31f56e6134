"""Everything that must be the same in one process and in two, in one group of processes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.callbacks.processes import cases

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Results of one process, and of both of a group."""
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = Path(__file__).parents[2]
    group = []
    for rank in range(2):
        environment = {
            **os.environ, "LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        command = [sys.executable, "-m", "tests.callbacks.processes", str(folder / f"{rank}.pt")]
        group.append(
            subprocess.Popen(
                command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        )
    single = cases(8)
    for process in group:
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output.decode()[-3000:]
    return single, *(torch.load(folder / f"{rank}.pt") for rank in range(2))


def test_two_processes_equal_one(results):
    single, first, second = results
    assert first.keys() == second.keys() == single.keys()
    for name, value in single.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(first[name], second[name], rtol=0, atol=0, equal_nan=True)
            close = {"rtol": 1e-4 if "/" in name else 1e-5, "atol": 1e-5, "equal_nan": True}
            torch.testing.assert_close(first[name], value, **close, msg=lambda m, n=name: f"{n}{m}")


def test_the_losses_inside_and_from_the_regularizer(results):
    single, first, second = results
    assert first["share/weight"] == second["share/weight"]
    assert first["share/weight"] == pytest.approx(single["share/weight"], rel=1e-3)
    for result in (first, single):
        for accumulate in (1, 2):
            torch.testing.assert_close(
                result[f"regularizer/{accumulate}"], result[f"inside/{accumulate}"],
                rtol=1e-5, atol=1e-5,
            )  # fmt: skip
    assert (single["inside/1"] - single["inside/2"]).abs().max() > 0.01


def test_the_first_process_reports_attributions(results):
    single, first, second = (result["report"] for result in results)
    assert second == {}
    assert first.keys() == single.keys()
    assert set(first["methods"]) == {"occlusion", "deeplift_rescale"}
    assert set(first["refused"]) == {"grad_cam"}
    for method, values in single["attributions"].items():
        torch.testing.assert_close(
            torch.tensor(first["attributions"][method]), torch.tensor(values), rtol=1e-4, atol=1e-5
        )


def test_cases_differ_and_samples_count_once(results):
    single, first, _ = results
    assert not torch.equal(single["adversarial"], single["adversarial share"])
    assert first["metric/samples"] == single["metric/samples"] == 19
    assert first["metric/group_samples"].sum() == 19
    flexible = [float(first[f"val/interaction/group/{n}/flexibility"]) for n in ("wrong", "right")]
    assert flexible[0] > 0 < flexible[1] != flexible[0]
    curve = [float(first[f"val/robust_acc/pgd/eps_{e}"]) for e in ("0.02", "0.05", "0.1")]
    assert float(first["val/robust_acc/clean"]) == pytest.approx(14 / 19)
    assert curve == sorted(curve, reverse=True)
    assert curve[0] > curve[-1]
    assert float(first["val/gap/train_acc"]) == pytest.approx(8 / 11)
