"""Going on with a W&B run."""

import pytest
from lightning.pytorch.loggers import WandbLogger

from interaction_train.cli.checkpoints import continue_wandb

RUN = {"global_step": 2, "interaction_train_run": {"wandb": "abc"}}


@pytest.mark.parametrize(("own", "then"), [(None, "abc"), ("mine", "mine")])
def test_the_checkpoint_s_run_unless_the_logger_has_one(tmp_path, own, then):
    logger = WandbLogger(save_dir=tmp_path, offline=True, id=own)
    continue_wandb([logger], RUN)
    assert logger._wandb_init["id"] == then
    assert logger._wandb_init["resume"] == "allow"
