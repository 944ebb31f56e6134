"""The history that every run keeps."""

import torch

from interaction_train.tracking.history import HISTORY, History, read_history


def test_a_line_torn_by_a_kill_costs_itself_alone(tmp_path):
    history = History(tmp_path)
    history.log_metrics({"train/loss": torch.tensor(0.5), "table": [1]}, step=0)
    history.log_metrics({"train/loss": float("inf")}, step=1)
    with (tmp_path / HISTORY).open("a") as file:
        file.write('{"step": 2, "train/lo')
    history.log_metrics({"train/loss": 1.0}, step=2)  # ends up in the torn line
    history.log_metrics({"train/loss": 2.0}, step=3)
    found = [(row["step"], row["train/loss"]) for row in read_history(tmp_path)]
    assert found == [(0, 0.5), (1, float("inf")), (3, 2.0)]


def test_without_a_file_there_is_no_history(tmp_path):
    assert list(read_history(tmp_path)) == []
