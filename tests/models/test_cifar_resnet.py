"""The thin ResNets and the loader of their published weights."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from interaction_train.errors import InputError
from interaction_train.models import CIFARThinResNet


def saved(path, net, prefix="", **changes):
    state = {k: v for k, v in net.state_dict().items() if "normalize" not in k}
    state = {k: v for k, v in state.items() if "num_batches" not in k} | changes
    save_file({prefix + k: v.contiguous() for k, v in state.items() if v is not None}, path)
    return path


@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_come_back(tmp_path, prefix):
    torch.manual_seed(0)
    net = CIFARThinResNet(8).eval()
    net.bn1.running_mean.fill_(0.3)
    again = CIFARThinResNet(8, weights=saved(tmp_path / "net.safetensors", net, prefix)).eval()
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(net(x), again(x))


def test_layers_are_those_of_the_paper():
    net = CIFARThinResNet(20)
    kernels = [p for name, p in net.named_parameters() if p.dim() > 1]
    assert len(kernels) == 20
    assert sum(p.numel() for p in net.parameters()) == 269_722
    assert net(torch.rand(1, 3, 32, 32)).shape == (1, 10)


def test_width_and_channels():
    net = CIFARThinResNet(8, mean=[0.3], std=[0.4], width=8)
    assert net.linear.in_features == 32
    assert net(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    with pytest.raises(InputError, match="width: got 5, expected an even number"):
        CIFARThinResNet(8, width=5)


def test_a_file_that_does_not_fit(tmp_path):
    path = tmp_path / "net.safetensors"
    saved(path, CIFARThinResNet(14))
    with pytest.raises(
        InputError, match=r"net.safetensors, which has the unknown layer1.1.bn1.bias"
    ):
        CIFARThinResNet(8, weights=path)
    saved(path, CIFARThinResNet(8), **{"linear.bias": None})
    with pytest.raises(InputError, match=r"weights: got net.safetensors, which lacks linear.bias"):
        CIFARThinResNet(8, weights=path)
    with pytest.raises(InputError, match="an existing file"):
        CIFARThinResNet(8, weights=tmp_path / "none")
    with pytest.raises(InputError, match=r"depth: got 18, .*CIFARResNet"):
        CIFARThinResNet(18)


@pytest.mark.parametrize(("depth", "accuracy"), [(20, 0.915), (32, 0.928)])
def test_published_accuracy(project_data, depth, accuracy):
    data = np.load(project_data / "cifar10_5k.npz")
    x = torch.as_tensor(data["x_test"][:200]).permute(0, 3, 1, 2).float() / 255
    net = CIFARThinResNet(depth, weights=project_data / f"cifar_resnet{depth}.safetensors").eval()
    with torch.no_grad():
        right = net(x).argmax(-1) == torch.as_tensor(data["y_test"][:200])
    assert float(right.float().mean()) == pytest.approx(accuracy, abs=0.05)
