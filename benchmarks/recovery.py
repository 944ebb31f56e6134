"""Interactions of many players: R² against a linear fit, SPEX and ProxySPEX, from as many rows.

R² is on 1000 fresh coalitions, each player present with probability ½; the mean over samples. The
linear fit (ridge on single players, its λ by leaving out rows) and ProxySPEX get our rows. SPEX has
rows of its own, of a structure that its decoder needs: the most that it takes of the same number.
Times are of fit and prediction, without the network; on a CPU those of one core, in which other
jobs do not count. The text network is trained here, in seconds. ``--quick`` is without SPEX, which
takes half a minute for a sample.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import spex
import torch
import torch.nn.functional as F
from common import data_folder, network_and_images, parse_arguments, report, synchronize
from sklearn.linear_model import RidgeCV
from sparse_games import sparse_game
from torch import Tensor, nn

import interaction_train as it
from interaction_train.data.grammar import grammar_sentences
from interaction_train.recovery import fit_rows
from interaction_train.recovery.rows import drawn
from interaction_train.sampling.random import Draws

RHO, FRESH, WORDS = "learned", 1000, 64
WANTED = {
    "r2_minus_proxyspex_least": "≥ −0.02",
    "r2_minus_proxyspex_median": "≥ 0.05",
    "r2_minus_linear/": "≥ −0.02",
    "r2_minus_proxyspex/": "≥ −0.02",
    "fit_seconds_over_proxyspex": "≤ 0.1",
}
Game = Callable[[Tensor], Tensor]


class Bed(NamedTuple):
    """Games of one sample each, with n players, and how many rows a fit gets."""

    name: str
    games: list[Game]
    n: int
    rows: int


def image_games(network: nn.Module, x: Tensor, y: Tensor, side: int) -> list[Game]:
    """The log odds of images on side × side cells."""
    absent, players = it.input_baseline(network, None, x), it.GridPlayers(side, side)
    return [
        it.MaskedGame(network, x[k : k + 1], absent, players, "log_odds", y[k : k + 1])
        for k in range(len(x))
    ]


def digits(count: int, device: str) -> list[Game]:
    """Test digits at 64 pixels."""
    network = it.pretrained(it.models.DigitsNet(), "digits_cnn").to(device)
    data = it.DigitsDataModule(batch_size=count)
    data.setup()
    x, y = (part.to(device) for part in next(iter(data.test_dataloader())))
    return image_games(network, x, y, 8)


def documents(count: int) -> tuple[list[list[str]], Tensor]:
    """Texts of 64 words, sentences of the grammar in a row, and the sign of their sum."""
    texts, labels, words, value = [], [], list[str](), 0
    for sentence in grammar_sentences(8 * count):
        words, value = words + list(sentence.tokens), value + sentence.value
        if len(words) >= WORDS:
            if value and len(texts) < count:
                texts.append(words[:WORDS])
                labels.append(int(value > 0))
            words, value = [], 0
    return texts, torch.tensor(labels)


def text(count: int, device: str) -> list[Game]:
    """The log odds of documents for a transformer that read 2000 others."""
    texts, labels = documents(2000 + count)
    vocabulary = sorted({word for words in texts for word in words})
    ids = {word: k for k, word in enumerate(vocabulary, 3)}
    x = torch.tensor([[ids[word] for word in words] for words in texts]).to(device)
    y = labels.to(device)
    torch.manual_seed(0)
    network = it.models.TextTransformer(len(ids) + 3, max_length=WORDS, width=32, dropout=0.0)
    network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for epoch in range(8):
        order = torch.randperm(len(x) - count, generator=torch.Generator().manual_seed(epoch))
        for part in order.split(50):
            optimizer.zero_grad()
            F.cross_entropy(network(x[part]), y[part]).backward()
            optimizer.step()
    network.eval()
    players = it.TokenPlayers()
    return [
        it.MaskedGame(network, x[k : k + 1], network.mask_id, players, "log_odds", y[k : k + 1])
        for k in range(len(x) - count, len(x))
    ]


def beds(quick: bool, device: str) -> Iterator[Bed]:
    """All beds, or the small ones."""
    count = 1 if quick else 3
    yield Bed("digits_64_500", digits(count, device), 64, 500)
    small = [
        sparse_game(100, 4, hierarchical=True, seed=seed, device=device) for seed in range(count)
    ]
    yield Bed("sparse_100_hierarchical", small, 100, 500)
    if quick:
        return
    yield Bed("digits_64_1500", digits(count, device), 64, 1500)
    flat = [sparse_game(100, 15, seed=seed, device=device) for seed in range(count)]
    yield Bed("sparse_100", flat, 100, 500)
    yield Bed("text_64", text(count, device), WORDS, 600)
    if data_folder() is None:
        print("resnet_64 and resnet_256 are left out: INTERACTION_TRAIN_DATA names no folder.")
    else:
        pictures = network_and_images(count, device)
        yield Bed("resnet_64", image_games(*pictures, 8), 64, 600)
        yield Bed("resnet_256", image_games(*pictures, 16), 256, 1500)
    many = sparse_game(1000, 4, hierarchical=True, device=device)
    yield Bed("sparse_1000_hierarchical", [many], 1000, 2000)
    yield Bed("sparse_1000", [sparse_game(1000, 15, device=device)], 1000, 2000)


def methods(bed: Bed, game: Game, asked: Tensor) -> dict[str, Callable[[], np.ndarray | None]]:
    """What each method predicts of a game for the coalitions ``asked``; None: too few rows."""
    content = torch.zeros(1, dtype=torch.int64, device=asked.device)
    rows, _ = drawn(Draws(content), bed.n, bed.rows)
    values = game(rows)
    x, v, fresh = rows.cpu().numpy(), values[0].double().cpu().numpy(), asked.cpu().numpy()

    def ours() -> np.ndarray:
        return fit_rows(rows, values, rho=RHO).predict(asked)[0].cpu().numpy()

    def linear() -> np.ndarray:
        ridge = RidgeCV(alphas=np.logspace(-3, 6, 40))  # leaves out rows in closed form
        return ridge.fit(1 - 2.0 * x, v).predict(1 - 2.0 * fresh)

    def spex_s() -> np.ndarray | None:
        def ask(own: np.ndarray) -> np.ndarray:
            return game(torch.from_numpy(own).to(asked.device))[0].double().cpu().numpy()

        found = spex.spex(ask, bed.n, bed.rows)
        return None if found is None else spex.predict(found, fresh)

    return {
        "ours": ours,
        "linear": linear,
        "proxyspex": lambda: spex.predict(spex.proxyspex(x, v), fresh),
        "spex": spex_s,
    }


def measure(bed: Bed, peers: list[str], device: str) -> dict[str, float]:
    """Means over samples: R² of each method, ``r2/<method>``, and ``seconds/<method>``."""
    random = torch.Generator().manual_seed(1)
    asked = (torch.rand(FRESH, bed.n, generator=random) < 0.5).to(device)
    clock = time.perf_counter if device.startswith("cuda") else time.process_time
    told: dict[str, list[float]] = {}
    for game in bed.games:
        truth = game(asked)[0].cpu().numpy()
        for method, run in methods(bed, game, asked).items():
            if method in spex.PEERS and method not in peers:
                continue
            synchronize(device)
            start = clock()
            predicted = run()
            seconds = clock() - start
            if predicted is not None:
                r2 = 1 - np.square(truth - predicted).sum() / np.square(truth - truth.mean()).sum()
                told.setdefault(f"r2/{method}", []).append(float(r2))
                told.setdefault(f"seconds/{method}", []).append(seconds)
    return {key: statistics.fmean(values) for key, values in told.items()}


def main() -> None:
    arguments = parse_arguments(__doc__.splitlines()[0])
    if not arguments.device.startswith("cuda"):
        torch.set_num_threads(1)  # as LightGBM is told to
    wanted = ["proxyspex"] if arguments.quick else list(spex.PEERS)
    peers = [peer for peer in wanted if spex.installed(peer)]
    metrics: dict[str, float] = {}
    gains: list[float] = []
    for bed in beds(arguments.quick, arguments.device):
        told = measure(bed, peers, arguments.device)
        shown = ", ".join(f"{key} {value:.3f}" for key, value in told.items())
        print(f"{bed.name}, {bed.rows} rows: {shown}", flush=True)
        metrics[f"r2/{bed.name}"] = told["r2/ours"]
        for method in ("linear", *peers):
            if f"r2/{method}" in told:
                gain = told["r2/ours"] - told[f"r2/{method}"]
                metrics[f"r2_minus_{method}/{bed.name}"] = gain
                gains += [gain] if method == "proxyspex" else []
        if "proxyspex" in peers:
            ratio = told["seconds/ours"] / told["seconds/proxyspex"]
            metrics[f"fit_seconds_over_proxyspex/{bed.name}"] = ratio
    if gains:
        metrics["r2_minus_proxyspex_least"] = min(gains)
        metrics["r2_minus_proxyspex_median"] = statistics.median(gains)
    report("recovery", arguments.device, metrics, WANTED)


if __name__ == "__main__":
    main()
