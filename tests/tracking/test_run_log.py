"""Going on with a run in loggers that YAML may give, and checkpoints that are none."""

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from interaction_train.errors import InputError
from interaction_train.tracking.run_log import Origin, continue_run


def test_tensorboard_goes_on_without_a_point_twice(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    first = TensorBoardLogger(tmp_path, name="run")
    for step in range(5):
        first.log_metrics({"loss": 1.0}, step=step)
    first.finalize("success")
    second = TensorBoardLogger(tmp_path, name="run")
    continue_run([second], Origin(tmp_path / "run" / "version_0", step=3, newest=True))
    for step in range(3, 7):
        second.log_metrics({"loss": 2.0}, step=step)
    second.finalize("success")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["version_0"]
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "version_0"))
    events.Reload()
    points = [(event.step, event.value) for event in events.Scalars("loss")]
    assert points == [(0, 1.0), (1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0), (5, 2.0), (6, 2.0)]


def test_rows_survive_a_process_that_dies_while_it_resumes(tmp_path):
    run = tmp_path / "run" / "version_0"
    run.mkdir(parents=True)
    (run / "metrics.csv.earlier").write_text("loss,step\n1.5,0\n0.5,1\n")  # the dead one's
    (run / "metrics.csv").write_text("loss,step\n")
    logger = CSVLogger(tmp_path, name="run")
    continue_run([logger], Origin(run, step=2, newest=True))
    assert (run / "metrics.csv").read_text().split() == ["loss,step", "1.5,0", "0.5,1"]
    assert not (run / "metrics.csv.earlier").exists()


def test_a_logger_with_a_version_of_its_own_keeps_it(tmp_path):
    (tmp_path / "run" / "version_0").mkdir(parents=True)
    logger = CSVLogger(tmp_path, name="run", version="mine")
    continue_run([logger], Origin(tmp_path / "run" / "version_0", step=2, newest=True))
    assert logger.version == "mine"


def test_what_is_no_checkpoint_of_a_run_is_refused(tmp_path):
    (tmp_path / "text.ckpt").write_text("nothing")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.ckpt")
    for name in ("text.ckpt", "weights.ckpt"):
        with pytest.raises(InputError, match="a checkpoint of a training run"):
            Origin.of(tmp_path / name)
