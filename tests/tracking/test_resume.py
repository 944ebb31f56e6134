"""Going on with a W&B run, and files that are no checkpoint."""

import pytest
import torch
from lightning.pytorch.loggers import WandbLogger

from interaction_train.errors import InputError
from interaction_train.tracking.resume import continue_wandb

RUN = {"global_step": 2, "interaction_train_run": {"wandb": "abc"}}


@pytest.mark.parametrize(("own", "then"), [(None, "abc"), ("mine", "mine")])
def test_the_checkpoint_s_run_unless_the_logger_has_one(tmp_path, own, then):
    torch.save(RUN, tmp_path / "last.ckpt")
    (tmp_path / "other.ckpt").write_bytes((tmp_path / "last.ckpt").read_bytes()[:100])  # torn
    logger = WandbLogger(save_dir=tmp_path, offline=True, id=own)
    continue_wandb([logger], tmp_path / "last.ckpt")
    assert logger._wandb_init["id"] == then
    assert logger._wandb_init["resume"] == "allow"


def test_what_is_no_checkpoint_of_a_run_is_refused(tmp_path):
    (tmp_path / "text.ckpt").write_text("nothing")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.ckpt")
    torch.save({**RUN, "w": torch.zeros(999)}, tmp_path / "whole.ckpt")
    (tmp_path / "torn.ckpt").write_bytes((tmp_path / "whole.ckpt").read_bytes()[:2000])
    for name in ("text.ckpt", "weights.ckpt", "torn.ckpt"):
        with pytest.raises(InputError, match="a checkpoint of a training run"):
            continue_wandb([], tmp_path / name)
