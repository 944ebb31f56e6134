"""What the trackers wrote, read back from their files."""

import csv
import json
from pathlib import Path

import pytest
import torch
import wandb
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure
from PIL import Image

from interaction_train.errors import InputError
from interaction_train.tracking.loggers import log_figure, log_images, log_table
from tests.testing import wandb_history

IMAGES = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 1, 4, 6)
CAPTIONS = ["black", "grey | half", "white"]
ROWS = [[0, "a|b", 0.25], [1, None, "n/a"]]


def figure() -> Figure:
    found = Figure(figsize=(2, 1))
    found.add_subplot().plot([0, 1], [0, 1])
    return found


def log_all(loggers: list[Logger]) -> None:
    log_figure(loggers, "val/a/figure", figure(), 3)
    log_table(loggers, "val/a/table", ["n", "name", "value"], ROWS, 4)
    log_images(loggers, "val/a/images", IMAGES, CAPTIONS, 5)
    for logger in loggers:
        logger.log_metrics({"val/acc": 0.5}, step=6)
        logger.finalize("success")


def test_wandb_keeps_figure_table_and_images(tmp_path):
    log_all([WandbLogger(save_dir=tmp_path, offline=True)])
    wandb.finish()
    (stored,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    files = stored.parent / "files"
    rows = [{key: json.loads(text) for key, text in row.items()} for row in wandb_history(stored)]
    steps = [row["trainer/global_step"] for row in rows]
    assert steps == [3, 4, 5, 6]
    assert rows[3]["val/acc"] == 0.5
    (name,) = nested(rows[0], "val/a/figure")["filenames"]
    assert Image.open(files / name).size == (300, 150)
    table = json.loads((files / nested(rows[1], "val/a/table")["path"]).read_text())
    assert table["columns"] == ["n", "name", "value"]
    assert table["data"] == ROWS
    images = nested(rows[2], "val/a/images")
    assert images["captions"] == CAPTIONS
    values = [Image.open(files / name).getpixel((5, 3)) for name in images["filenames"]]
    assert values == [(0, 0, 0), (128, 128, 128), (255, 255, 255)]


def nested(row: dict, key: str) -> dict:
    """W&B writes ``key/part`` for each part of a value."""
    parts = {k.removeprefix(f"{key}/"): v for k, v in row.items() if k.startswith(f"{key}/")}
    return parts or row[key]


def test_tensorboard_keeps_figure_table_and_images(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log_all([TensorBoardLogger(tmp_path, name="tb")])
    events = accumulator.EventAccumulator(str(tmp_path / "tb" / "version_0"))
    events.Reload()
    (scalar,) = events.Scalars("val/acc")
    assert (scalar.step, scalar.value) == (6, 0.5)
    (drawn,) = events.Images("val/a/figure")
    assert (drawn.step, drawn.width, drawn.height) == (3, 300, 150)
    (images,) = events.Images("val/a/images")
    assert images.step == 5
    texts = {name.removesuffix("/text_summary") for name in events.Tags()["tensors"]}
    assert texts == {"val/a/table", "val/a/images/captions"}
    (table,) = events.Tensors("val/a/table/text_summary")
    text = table.tensor_proto.string_val[0].decode()
    assert "| 0 | a\\|b | 0.25 |" in text


def test_csv_keeps_the_latest_as_files(tmp_path):
    logger = CSVLogger(tmp_path, name="csv")
    log_all([logger])
    log_table([logger], "val/a/table", ["n", "name", "value"], ROWS[:1], 9)
    run = tmp_path / "csv" / "version_0"
    assert Image.open(run / "figures" / "val_a_figure.png").size == (300, 150)
    assert (run / "images" / "val_a_images.png").is_file()
    with (run / "tables" / "val_a_table.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["n", "name", "value"], ["0", "a|b", "0.25"]]
    with (run / "metrics.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"step": "6", "val/acc": "0.5"}]


class Plain(Logger):
    name, version = "plain", 0

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, *args, **more):
        pass


def test_other_loggers_get_nothing_and_do_not_fail():
    log_all([Plain()])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: log_table([], "k", ["a"], [[1, 2]], 0), r"rows: got lengths \[2\], expected 1"),
        (lambda: log_images([], "k", IMAGES, ["one"], 0), "captions: got 1, expected 3"),
        (lambda: log_images([], "k", IMAGES[0], [], 0), r"images: got shape \(1, 4, 6\)"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_the_second_process_writes_nothing(tmp_path: Path, monkeypatch):
    from lightning.pytorch.utilities import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = CSVLogger(tmp_path, name="csv")
    log_figure([logger], "k", figure(), 0)
    log_table([logger], "k", ["a"], [[1]], 0)
    log_images([logger], "k", IMAGES, CAPTIONS, 0)
    assert list(tmp_path.iterdir()) == []
