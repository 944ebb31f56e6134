"""Sparse AND-OR concepts against the optimum, and against the released procedure.

The games are those of a packaged digits network on test images. The released procedure is rebuilt
here from its description: SGD with momentum .9 on the split γ and the noise q of one sample, dense
2^n x 2^n matrices, a rate that falls over one decade; greedy removal that tries the 20 weakest
concepts one by one. It gets the best of four rates, and as many seconds as ours needs.
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from common import interleaved, parse_arguments, peak_memory, report, synchronize
from scipy.optimize import linprog
from torch import Tensor

import interaction_train as it
from interaction_train.concepts import fidelity, select_concepts, sparse_concepts
from interaction_train.concepts.transforms import or_interactions, values_from_and_or
from interaction_train.indices import dividends

NOISE, RATES = 0.04, (1e-3, 1e-4, 1e-5, 1e-6)
WANTED = {
    "objective_over_optimum": "≤ 1.01",
    "objective_over_released": "≤ 0.7",
    "seconds_per_sample_16_over_1": "≤ 0.3",
    "memory_over_values_n14": "≤ 40",
    "released_removal_over_ours": "≥ 20",
}


def games(rows: int, cols: int, count: int, device: str) -> Tensor:
    """Values ``(count, 2^n)`` of test images."""
    model = it.pretrained(it.models.DigitsNet(), "digits_cnn").to(device)
    data = it.DigitsDataModule(batch_size=count)
    data.setup()
    x, y = (part.to(device) for part in next(iter(data.test_dataloader())))
    players, absent = it.GridPlayers(rows, cols), it.input_baseline(model, None, x)
    game = it.MaskedGame(model, x, absent, players, payoff="log_odds", labels=y)
    return it.exact_values(game).double()


def optimum(v: Tensor) -> float:
    """The least objective, by HiGHS."""
    eye = torch.eye(v.numel(), dtype=v.dtype)
    none = torch.zeros_like(eye)
    ands, ors = values_from_and_or(eye, none).T, values_from_and_or(none, eye).T
    k = torch.cat([ands, ors[:, 1:]], 1).numpy()
    cost = np.ones(k.shape[1])
    cost[0] = 0  # the constant
    bound = NOISE * abs(float(v[-1] - v[0]))
    limits = np.concatenate([v.numpy() + bound, bound - v.numpy()])
    both = np.hstack([k, -k])
    return linprog(np.tile(cost, 2), A_ub=np.vstack([both, -both]), b_ub=limits).fun


class Released:
    """The released optimiser of one sample."""

    def __init__(self, v: Tensor) -> None:
        eye = torch.eye(v.numel(), dtype=v.dtype, device=v.device)
        self.v, self.ands, self.ors = v, dividends(eye).T, or_interactions(eye).T
        self.bound = NOISE * (v[-1] - v[0]).abs()

    def objective(self, split: Tensor, noise: Tensor) -> Tensor:
        """Σ|I_and| + Σ|I_or| without ∅."""
        half = (self.v + noise.clamp(-self.bound, self.bound)) / 2
        parts = self.ands @ (half + split), self.ors @ (half - split)
        return sum(part[1:].abs().sum() for part in parts)

    def run(self, rate: float, seconds: float) -> float:
        """The objective after so many seconds."""
        split, noise = (torch.zeros_like(self.v, requires_grad=True) for _ in range(2))
        optimizer = torch.optim.SGD([split, noise], lr=rate, momentum=0.9)
        start = time.perf_counter()
        while (gone := time.perf_counter() - start) < seconds:
            optimizer.param_groups[0]["lr"] = rate * 0.1 ** (gone / seconds)
            optimizer.zero_grad()
            loss = self.objective(split, noise)
            loss.backward()
            optimizer.step()
        best = float(self.objective(split, noise).detach())
        return best if math.isfinite(best) else math.inf


def released_removal(v: Tensor, i_and: Tensor, i_or: Tensor, constant: float, r2: float) -> int:
    """Remove the best of the 20 weakest, each tried on all coalitions, while R² stays above."""
    eye = torch.eye(v.numel(), dtype=v.dtype, device=v.device)
    none = torch.zeros_like(eye)
    k = torch.cat([values_from_and_or(eye, none).T, values_from_and_or(none, eye).T], 1)
    weights = torch.cat([i_and, i_or])
    total = (v - v.mean()).square().sum()
    kept = weights.nonzero().flatten().tolist()
    while True:
        weakest = sorted(kept, key=lambda j: abs(float(weights[j])))[:20]
        errors = []
        for j in weakest:
            tried = weights.clone()
            tried[j] = 0
            errors.append(float((v - constant - k @ tried).square().sum()))
        least = min(range(len(errors)), key=errors.__getitem__)
        if errors[least] > (1 - r2) * total or len(kept) == 1:
            return len(kept)
        weights[weakest[least]] = 0
        kept.remove(weakest[least])


def main() -> None:
    arguments = parse_arguments(__doc__.splitlines()[0])
    device, quick = arguments.device, arguments.quick
    metrics: dict[str, float] = {}

    small = games(2, 4, 4 if quick else 16, device)
    best = torch.tensor([optimum(v) for v in small.cpu()])
    found = sparse_concepts(small, NOISE)
    metrics["objective_over_optimum"] = float((found.objective.cpu() / best).max())

    v = games(3, 3, 16, device)
    steps = {
        "one": lambda: sparse_concepts(v[0], NOISE),
        "16": lambda: sparse_concepts(v, NOISE),
    }
    seconds = interleaved(steps, 3 if quick else 7, device)
    concepts = sparse_concepts(v, NOISE)
    ratios = []
    for at in range(2 if quick else 8):
        released = Released(v[at])
        limit = seconds["one"]
        objective = min(released.run(rate, limit) for rate in RATES)
        ratios.append(float(concepts.objective[at]) / objective)
    metrics["objective_over_released"] = max(ratios)
    metrics["seconds_per_sample_16_over_1"] = seconds["16"] / 16 / seconds["one"]

    for rows, cols in ((3, 3), (2, 5)):
        game = games(rows, cols, 1, device)[0]
        one = sparse_concepts(game, NOISE)
        steps = {
            "ours": lambda game=game, one=one: select_concepts(one, game, r2=0.9, refit=False),
            "released": lambda game=game, one=one: released_removal(
                game, one.and_, one.or_, float(one.constant), 0.9
            ),
        }
        removal = interleaved(steps, 1 if quick else 5, device)
        ratio = removal["released"] / removal["ours"]
        metrics[f"released_removal_over_ours_n{rows * cols}"] = ratio

    many = torch.randn(16, 1 << 14, dtype=torch.float64, device=device)
    sparse_concepts(many[:1], NOISE, max_steps=2, tolerance=0.99)  # libraries are loaded
    synchronize(device)
    before = peak_memory(device, reset=True)
    sparse_concepts(many, NOISE, max_steps=30, tolerance=0.99)
    metrics["memory_over_values_n14"] = (peak_memory(device) - before) / (8 * many.numel())

    explained = fidelity(concepts, v, [20])
    metrics["k90_of_digits"] = float(explained.k90.double().median())
    metrics["r2_of_20_refitted"] = float(explained.r2_refitted.median())
    report("concepts", device, metrics, WANTED)


if __name__ == "__main__":
    main()
