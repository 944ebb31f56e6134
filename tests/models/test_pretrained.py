"""The packaged weights fit their networks and classify digits that they were not trained on."""

from importlib.resources import files

import pytest
import torch
from safetensors.torch import load_file

from interaction_train.data import DigitsDataModule, TableDataModule
from interaction_train.models import (
    DIGITS_MEAN,
    DIGITS_STD,
    CIFARThinResNet,
    DigitsMLP,
    DigitsNet,
    TableMLP,
    pretrained,
)

NETWORKS = {
    "digits_cnn": (DigitsNet, 0.99),
    "digits_resnet": (lambda: CIFARThinResNet(8, mean=DIGITS_MEAN, std=DIGITS_STD, width=8), 0.99),
    "digits_mlp": (DigitsMLP, 0.96),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_accuracy_on_the_test_split(name):
    build, accuracy = NETWORKS[name]
    path = files("interaction_train.models").joinpath("pretrained", f"{name}.safetensors")
    network = build().eval()
    network.load_state_dict(load_file(str(path)))
    data = DigitsDataModule(batch_size=359)
    (x, y), = data.test_dataloader()  # fmt: skip
    with torch.no_grad():
        assert float((network(x).argmax(1) == y).float().mean()) > accuracy


def test_the_cancer_network_on_the_test_rows():
    network = pretrained(TableMLP(30, hidden=(32, 32)), "table_cancer").eval()
    data = TableDataModule("breast_cancer", batch_size=200)
    (x, y), = data.test_dataloader()  # fmt: skip
    with torch.no_grad():
        assert float((network(x).argmax(1) == y).float().mean()) > 0.96
