"""Where a run's files go."""

from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import CSVLogger

from interaction_train.tracking.folders import run_folder
from interaction_train.training.module import InteractionClassifier
from tests.metrics.watch import loader, network, trainer


def test_the_logger_s_folder(tmp_path):
    run = trainer(tmp_path, logger=CSVLogger(tmp_path, "name"))
    assert run_folder(run) == tmp_path / "name" / "version_0"


def test_without_a_logger_every_run_has_a_folder_of_its_own(tmp_path):
    runs = [trainer(tmp_path, logger=False) for _ in range(2)]
    folders = [run_folder(run) for run in runs]
    assert folders == [tmp_path / f"results_{k}" for k in (0, 1)]
    assert [run_folder(run) for run in runs] == folders
    assert all(folder.is_dir() for folder in folders)


def test_fast_dev_run_has_none(tmp_path):
    assert run_folder(trainer(tmp_path, logger=False, fast_dev_run=1)) is None
    assert list(tmp_path.iterdir()) == []


class Note(L.Callback):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def setup(self, trainer, pl_module, stage):
        (self.folder / f"rank_{trainer.global_rank}").write_text(str(run_folder(trainer)))


def test_two_processes_have_one_folder(tmp_path):
    run = trainer(
        tmp_path, callbacks=[Note(tmp_path)], logger=False, devices=2, strategy="ddp_spawn"
    )
    run.validate(InteractionClassifier(network()), loader(), verbose=False)
    told = {(tmp_path / f"rank_{rank}").read_text() for rank in (0, 1)}
    assert told == {str(tmp_path / "results_0")}
