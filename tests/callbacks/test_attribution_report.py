"""The report on attributions after ``test``; two processes are in test_two_processes.py."""

import csv
import json
import math
import warnings

import lightning as L
import pytest
import torch
import wandb
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from PIL import Image
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import interaction_train as it
from interaction_train.attributions import allocation, attribute, check_principles, infidelity
from interaction_train.callbacks import AttributionReport
from interaction_train.errors import InputError
from interaction_train.training.module import InteractionClassifier
from tests.metrics.watch import images, trainer
from tests.testing import run_cli, wandb_history

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")

NUMBERS = ("unrelated", "incomplete", "gap", "infidelity")


def report(**changes) -> AttributionReport:
    options = {"rows": 2, "cols": 2, "samples": 3, "baseline": 0.5}
    return AttributionReport(**{**options, **changes})


def seeded(build):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build()


def pooled() -> nn.Module:
    """A network whose head pools over all positions, for which Grad-CAM has its rule."""
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10),
        )
    )  # fmt: skip


class Attention(nn.Module):
    """Four tokens of a row pair each; its softmax has no rule."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 8), nn.Linear(8, 10)

    def forward(self, x):
        tokens = self.first(x.reshape(-1, 4, 16))
        weights = torch.softmax(tokens @ tokens.transpose(1, 2), -1)
        return self.last((weights @ tokens).mean(1))


class Foreign(L.LightningModule):
    """A user's own, that logs in its own way and knows nothing of this package."""

    def __init__(self, net) -> None:
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)

    def test_step(self, batch, batch_idx):
        x, y = batch
        self.log("accuracy", (self(x).argmax(1) == y).float().mean())


def reported(tmp_path, module, *callbacks, count=6, loader=None, **options):
    """The run's folder."""
    options = {"logger": CSVLogger(tmp_path, name="run"), **options}
    run = trainer(tmp_path, callbacks=list(callbacks), **options)
    data = loader or DataLoader(TensorDataset(*images(count)), batch_size=4)
    run.test(module, data, verbose=False)
    return tmp_path / "run" / "version_0"


def logged(folder) -> dict[str, float]:
    with (folder / "metrics.csv").open() as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    return {key: value for row in rows for key, value in row.items() if "/attributions/" in key}


def test_data_that_are_normalised(tmp_path):
    """What the network says of pixels that it normalises itself, by gradients too."""
    statistics, net = {"mean": [0.4], "std": [0.25]}, pooled().eval()
    methods, (x, y) = ["gradient_input", "integrated_gradients"], images(6)
    inputs = DataLoader(TensorDataset((x - 0.4) / 0.25, y), batch_size=4)
    watching = report(methods=methods, normalization=statistics)
    folder = reported(tmp_path, Foreign(net), watching, loader=inputs)
    given = json.loads((folder / "attributions.json").read_text())["attributions"]
    pixels = nn.Sequential(it.Normalize(**statistics), net)
    game = it.MaskedGame(pixels, x[::2], 0.5, it.GridPlayers(2, 2), "logit", y[::2])
    for method in methods:
        torch.testing.assert_close(
            torch.tensor(given[method]), attribute(game, method).float(), rtol=1e-3, atol=1e-4
        )


def test_numbers_are_those_of_the_functions(tmp_path, capsys):
    """All methods that a network with a pooling head admits, in files, table and loggers."""
    net = pooled()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    methods = [
        "occlusion", "integrated_gradients", "grad_cam", "deeplift_rescale", "deep_taylor",
    ]  # fmt: skip
    torch.manual_seed(0)
    reported(tmp_path / "without", Foreign(net))  # a loader draws a seed, too
    state = torch.get_rng_state()
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="leaves deep_taylor out: absent: got a baseline"):
        folder = reported(tmp_path, Foreign(net), report(methods=methods))
    assert torch.equal(state, torch.get_rng_state())
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    assert [module.training for module in net.modules()] == modes
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())

    result = json.loads((folder / "attributions.json").read_text())
    assert (result["samples"], result["places"], result["grid"]) == (3, [0, 2, 4], [2, 2])
    assert list(result["methods"]) == list(result["attributions"]) == methods[:-1]
    assert set(result["refused"]) == {"deep_taylor"}
    x, y = images(6)
    net.eval()
    game = it.MaskedGame(net, x[::2], 0.5, it.GridPlayers(2, 2), "logit", y[::2])
    effects = it.dividends(it.exact_values(game))
    values = logged(folder)
    assert set(values) == {f"test/attributions/{m}/{name}" for m in methods for name in NUMBERS}
    with (folder / "attributions.csv").open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    for method in methods[:-1]:
        a = attribute(game, method)
        given = torch.tensor(result["attributions"][method])
        torch.testing.assert_close(given, a, rtol=1e-4, atol=1e-5)
        principles = check_principles(allocation(game, method), effects)
        numbers = [*(getattr(principles, name) for name in NUMBERS[:3]), infidelity(game, a)]
        for name, number in zip(NUMBERS, numbers, strict=True):
            told = result["methods"][method][name]
            assert told["value"] == pytest.approx(float(number.mean()), rel=1e-3, abs=1e-5)
            error = float(number.std() / 3**0.5)
            assert told["stderr"] == pytest.approx(error, rel=1e-3, abs=1e-5)
            assert values[f"test/attributions/{method}/{name}"] == told["value"]
            assert float(rows[method][name]) == told["value"]
            assert float(rows[method][f"{name}_stderr"]) == told["stderr"]
    assert all(math.isnan(values[f"test/attributions/deep_taylor/{name}"]) for name in NUMBERS)
    assert result["methods"]["occlusion"]["incomplete"]["value"] > 0.01
    for suffix in (".png", ".svg"):
        assert (folder / "attributions").with_suffix(suffix).stat().st_size > 1000
    width, height = Image.open(folder / "attributions.png").size
    assert width > height

    printed = capsys.readouterr().out
    table = printed[printed.index("What methods do") :].splitlines()
    assert max(map(len, table[: 4 + len(methods)])) <= 80
    for method in methods[:-1]:
        (line,) = (line for line in table if line.startswith(method))
        told = result["methods"][method]
        cells = [cell.split("±") for cell in line.split("│")[1:]]
        for (value, stderr), name in zip(cells, NUMBERS[:3], strict=False):
            assert float(value) == pytest.approx(100 * told[name]["value"], abs=0.5)
            assert float(stderr) == pytest.approx(100 * told[name]["stderr"], abs=0.5)
        assert line.count("±") == 4
    assert "without deep_taylor: absent: got a baseline" in " ".join(table)


def test_the_names_of_default_methods_fit_80_columns():
    told = {"value": 12.345, "stderr": 1.2345}
    names = report().methods
    result = {"samples": 8, "refused": {}, "methods": {}}
    result["methods"] = {name: dict.fromkeys(NUMBERS, told) for name in names}
    console = Console(width=80, record=True)
    console.print(report().table(result))
    lines = console.export_text().splitlines()
    assert len(lines) == 4 + len(names)
    assert sum("1234 ± 123 │ 1234 ± 123 │ 1234 ± 123 │ 12.3 ± 1.2" in line for line in lines) == 10


@pytest.mark.parametrize(
    ("build", "refused"),
    [
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), {"grad_cam"}),
        (Attention, {"grad_cam", "deeplift_rescale", "lrp_epsilon"}),
    ],
)
def test_what_a_network_does_not_admit_is_said_by_name(build, refused, tmp_path):
    """Not the keys, but their values depend on the network."""
    methods = ["occlusion", "shapley", "grad_cam", "deeplift_rescale", "lrp_epsilon"]
    monitor = report(methods=methods, samples=2, baseline=0.0)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        folder = reported(tmp_path, Foreign(seeded(build)), monitor)
    texts = "\n".join(str(warning.message) for warning in found)
    result = json.loads((folder / "attributions.json").read_text())
    assert set(result["refused"]) == refused
    for method in methods:
        assert (f"leaves {method} out" in texts) == (method in refused)
    values = logged(folder)
    assert len(values) == 20
    nan = {key.split("/")[2] for key, value in values.items() if math.isnan(value)}
    assert nan == refused


def test_nothing_but_refused_methods(tmp_path, capsys):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 10))
    with pytest.warns(UserWarning, match="leaves deep_shap out: model: got a module with 64"):
        folder = reported(tmp_path, Foreign(net), report(methods=["deep_shap"]))
    assert not (folder / "attributions.png").exists()
    assert json.loads((folder / "attributions.json").read_text())["methods"] == {}
    assert "without deep_shap" in capsys.readouterr().out


def test_two_channels_have_no_figure(tmp_path):
    net = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(32, 3)))
    data = DataLoader(TensorDataset(torch.rand(4, 2, 4, 4), torch.arange(4) % 3), batch_size=2)
    folder = reported(tmp_path, Foreign(net), report(methods=["occlusion"]), loader=data)
    assert (folder / "attributions.json").is_file()
    assert not (folder / "attributions.png").exists()


def test_to_wandb_and_in_half_precision(tmp_path):
    wandb.setup()
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    monitor = report(methods=["shapley", "grad_cam"], name="coarse")
    reported(
        tmp_path, InteractionClassifier(pooled()), monitor, logger=logger, precision="bf16-mixed"
    )
    wandb.finish()
    (path,) = tmp_path.rglob("*.wandb")
    keys = {key for row in wandb_history(path) for key in row}
    assert {f"test/coarse/attributions/shapley/{name}" for name in NUMBERS} <= keys
    assert "test/coarse/attributions/_type" in keys  # the figure


def test_from_the_command_line(tmp_path, capsys):
    run_cli(
        "test", "--config", "attributions_digits.yaml", "--trainer.default_root_dir", str(tmp_path),
        "--wandb", "disabled", "--trainer.callbacks.init_args.samples", "2",
        "--trainer.callbacks.init_args.rows", "2", "--trainer.callbacks.init_args.cols", "2",
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert "What methods do with the effects of cells, 2 test images" in printed
    folder = tmp_path / "attributions_digits" / "version_0"
    result = json.loads((folder / "attributions.json").read_text())
    assert (list(result["methods"]), result["refused"]) == (list(report().methods), {})
    for method in ("shapley", "deeplift_rescale", "deeplift_reveal_cancel"):
        assert result["methods"][method]["incomplete"]["value"] < 1e-4
        assert result["methods"][method]["unrelated"]["value"] < 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 1}, "samples: got 1"),
        ({"rows": 0}, "rows: got 0"),
        ({"rows": 4, "cols": 4}, "rows: got 4 x 4 cells, expected at most 12 cells"),
        ({"methods": []}, "methods: got none"),
        ({"methods": ["lime"]}, "methods: got 'lime'"),
        ({"methods": ["shapley", "shapley"]}, "methods: got shapley, shapley"),
        ({"chunk_size": 0}, "chunk_size: got 0"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(InputError, match=message):
        report(**options)


def test_a_missing_baseline_is_refused(tmp_path):
    with pytest.raises(InputError, match="baseline: got None"):
        reported(tmp_path, Foreign(pooled()), report(baseline=None))
