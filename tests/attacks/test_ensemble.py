"""The ensemble against closed forms on models with given logits."""

import pytest
import torch
from torch import nn

from interaction_train.attacks.ensemble import Ensemble
from interaction_train.errors import InputError

ONE = torch.tensor([[1.0, 2.0, -1.0], [0.0, 3.0, 0.5]], dtype=torch.float64)
TWO = torch.tensor([[-2.0, 0.5, 4.0], [1.0, 1.0, 0.0]], dtype=torch.float64)


class Fixed(nn.Module):
    """Gives the same logits for every input, plus the input's mean."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, x):
        return self.logits[: len(x)] + x.flatten(1).mean(1, keepdim=True)


def images(batch=2):
    return torch.zeros(batch, 3, 4, 4, dtype=torch.float64)


@pytest.mark.parametrize("average", ["logits", "losses"])
@pytest.mark.parametrize(
    ("weights", "shares"), [(None, (0.5, 0.5)), ([3, 1], (0.75, 0.25)), ([0.2, 0.6], (0.25, 0.75))]
)
def test_mean_logits(average, weights, shares):
    ensemble = Ensemble([Fixed(ONE), Fixed(TWO)], average, weights)
    assert ensemble.weights == pytest.approx(shares, abs=1e-15)
    torch.testing.assert_close(ensemble(images()), shares[0] * ONE + shares[1] * TWO)


def test_mean_probability():
    ensemble = Ensemble([Fixed(ONE), Fixed(TWO)], "probabilities", [3, 1])
    logits = ensemble(images())
    torch.testing.assert_close(logits.exp(), 0.75 * ONE.softmax(-1) + 0.25 * TWO.softmax(-1))
    torch.testing.assert_close(logits.softmax(-1), logits.exp())


def test_probabilities_that_underflow_keep_their_gradient():
    """Both models are certain of class 0 by 2000 nats: p of class 1 is 0 in any float."""
    sure = torch.tensor([[2000.0, 0.0]], dtype=torch.float64)
    ensemble = Ensemble([Fixed(sure), Fixed(sure + 5)], "probabilities")
    logits = ensemble(images(1))
    torch.testing.assert_close(logits, torch.tensor([[0.0, -2000.0]], dtype=torch.float64))
    logits[0, 1].backward()
    for member in ensemble.members:
        torch.testing.assert_close(
            member.logits.grad, torch.tensor([[-0.5, 0.5]], dtype=torch.float64)
        )


@pytest.mark.parametrize("average", ["logits", "probabilities", "losses"])
def test_one_model_decides_as_alone(average):
    logits = Ensemble([Fixed(ONE)], average)(images())
    torch.testing.assert_close(logits.softmax(-1), ONE.softmax(-1))


def test_is_a_module():
    ensemble = Ensemble([Fixed(ONE), Fixed(TWO)]).eval()
    assert not any(m.training for m in ensemble.modules())
    assert set(ensemble.state_dict()) == {"members.0.logits", "members.1.logits"}
    assert Ensemble([Fixed(ONE.half())])(images().half()).dtype == torch.float32


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        ([], {}, "models: got none"),
        ([Fixed(ONE)], {"average": "votes"}, "average: got 'votes'"),
        ([Fixed(ONE)], {"weights": [1, 2]}, "weights: got .1, 2., expected 1 positive"),
        ([Fixed(ONE)], {"weights": [0]}, "weights: got .0."),
        ([Fixed(ONE)], {"weights": [float("nan")]}, "weights: got .nan."),
        ([Fixed(ONE)], {"weights": [float("inf")]}, "weights: got .inf."),
    ],
)
def test_refusals(models, options, message):
    with pytest.raises(InputError, match=message):
        Ensemble(models, **options)


def test_members_that_do_not_fit():
    with pytest.raises(InputError, match=r"models: got outputs of \[3, 2\] classes"):
        Ensemble([Fixed(ONE), Fixed(TWO[:, :2])])(images())
    with pytest.raises(InputError, match=r"models\[1\]: got an output of \(2, 3, 4, 4\)"):
        Ensemble([Fixed(ONE), nn.Identity()])(images())
