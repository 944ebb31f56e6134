"""The group norm over networks, against its definition and a generic solver."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from interaction_train.concepts.penalty import Penalty


def points(networks: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(networks)
    return 2 * torch.randn(1, networks, 2, 8, dtype=torch.float64, generator=generator)


def dual_norm(y: np.ndarray, alpha: float) -> float:
    """max ⟨x, y⟩ with (1 − α) max|x| + α Σ|x| ≤ 1, as a linear programme."""
    m = len(y)  # x = p − q and s = max|x|
    cost = np.concatenate([-y, y, [0]])
    limits = [[*np.eye(m)[k], *np.eye(m)[k], -1] for k in range(m)]
    limits.append([alpha] * (2 * m) + [1 - alpha])
    return -linprog(cost, A_ub=limits, b_ub=[0] * m + [1]).fun


@pytest.mark.parametrize("networks", [1, 2, 4])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_gauge_is_the_dual_norm(networks, alpha):
    y = points(networks)
    columns = y.movedim(1, -1).reshape(-1, networks).numpy()
    expected = max(dual_norm(column, alpha) for column in columns)
    assert float(Penalty(alpha).gauge(y)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("networks", [1, 2, 5])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_projection(networks, alpha):
    """The projection p is in the ball, and no point q of the ball makes ⟨y − p, q − p⟩ positive."""
    penalty, y = Penalty(alpha), points(networks)
    nearest = penalty.project(y)
    assert float(penalty.gauge(nearest)) <= 1 + 1e-9
    inside = 0.9 * y / penalty.gauge(y)
    torch.testing.assert_close(penalty.project(inside), inside)
    # max over q of ⟨y − p, q⟩ is the norm of y − p, interaction by interaction.
    rest = y - nearest
    norms = (1 - alpha) * rest.abs().amax(1) + alpha * rest.abs().sum(1)
    torch.testing.assert_close(norms, (rest * nearest).sum(1), atol=1e-9, rtol=1e-9)


def test_total_leaves_the_constant_out():
    x = points(3)
    sizes = x.abs()
    norms = 0.7 * sizes.amax(1) + 0.3 * sizes.sum(1)
    torch.testing.assert_close(Penalty(0.3).total(x), norms.sum((1, 2)) - norms[:, 0, 0])
