"""Many games of one network, with different numbers of players, evaluated together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from interaction_train.errors import InputError, at_least
from interaction_train.game.evaluation import without_grad
from interaction_train.game.masked import MaskedGame
from interaction_train.game.samples import Samples, filling

Request = tuple[int, Tensor]
"""A game's place in the batch, and coalitions ``(K, n)`` or ``(B, K, n)`` of its players."""


class GameBatch:
    """Games of one network, for sentences of different lengths say, whose rows share its chunks.

    Args:
        games: of the same network and the same further inputs; chunk sizes of their own are not
            looked at.
        pad: what fills samples up, along their first axis, to the longest of a chunk: the id, or
            number, that the network takes no notice of; further inputs are filled up with 0.
            Default: only samples of one shape share a chunk.
        chunk_size: rows sent through the network at once; default: the fastest size.
        progress: called with the number of rows of every chunk, once it went through the network.

    Raises:
        InputError: no games, games of different networks, or samples that cannot be filled up.

    Examples:
        >>> from interaction_train.game.tokens import TokenPlayers
        >>> def network(ids):  # two logits: the ids' sum, 0 for padding, and 0
        ...     return torch.stack([ids.sum(1), 0 * ids.sum(1)], 1).float()
        >>> texts, label = [torch.tensor([[5, 7]]), torch.tensor([[1, 2, 4]])], torch.tensor([0])
        >>> games = [MaskedGame(network, ids, 0, TokenPlayers(), labels=label) for ids in texts]
        >>> everyone = [torch.ones(1, game.n, dtype=torch.bool) for game in games]
        >>> GameBatch(games, pad=0)(everyone)
        [tensor([[12.]]), tensor([[7.]])]
    """

    def __init__(
        self,
        games: Sequence[MaskedGame],
        pad: float | None = None,
        chunk_size: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        if not games:
            raise InputError("games", "none", "at least one")
        first = games[0]
        for k, game in enumerate(games):
            if not isinstance(game, MaskedGame):
                raise InputError("games", type(game).__name__, "MaskedGame objects")
            if game.model is not first.model or list(game.extra) != list(first.extra):
                got = f"game {k} of another network, or with other inputs, than game 0"
                raise InputError("games", got, "games of one network")
            shapes = [(one.present.dtype, one.present.shape[2:]) for one in (first, game)]
            if pad is not None and (shapes[0] != shapes[1] or game.present.dim() < 2):
                got = f"{tuple(game.present.shape[1:])} beside {tuple(first.present.shape[1:])}"
                raise InputError("games", f"samples {got}", "ones that differ in their first axis")
        if pad is not None:
            filling("pad", pad, first.present)
        if chunk_size is not None:
            at_least("chunk_size", chunk_size, 1)
        self.games, self.pad, self.chunk_size = list(games), pad, chunk_size
        self.progress = progress

    def __len__(self) -> int:
        return len(self.games)

    def __call__(self, coalitions: Sequence[Tensor], *, grad: bool = False) -> list[Tensor]:
        """Payoffs of every game, ``(B, K)`` or ``(B, K, classes)``, as the game alone has them.

        Args:
            coalitions: for every game bool ``(K, n)`` or ``(B, K, n)``, of its own K and n.
            grad: whether the results are differentiable.

        Raises:
            InputError: another number of them, or what a game alone refuses.
        """
        if len(coalitions) != len(self.games):
            expected = f"{len(self.games)}, one tensor for each game"
            raise InputError("coalitions", f"{len(coalitions)} tensors", expected)
        return self.evaluate(list(enumerate(coalitions)), grad=grad)

    def evaluate(self, requests: Sequence[Request], *, grad: bool = False) -> list[Tensor]:
        """Payoffs for each request; a game may come several times."""
        games = [at for at, _ in requests]
        wanted = [self.games[at].checked(masks) for at, masks in requests]
        parts: list[list[Tensor]] = [[] for _ in wanted]
        run: Callable[..., list[Tensor]] = _values
        if grad and torch.is_grad_enabled() and self.chunk_size is not None:
            run = partial(checkpoint, run, use_reentrant=False, preserve_rng_state=False)
        with nullcontext() if grad else without_grad():
            for chunk in self._chunks(games, wanted, grad):
                blocks = [self._block(games[k], wanted[k], rows) for k, rows in chunk]
                own = [self.games[games[k]] for k, _ in chunk]
                for (k, _), value in zip(chunk, run(own, blocks, self.pad), strict=True):
                    parts[k].append(value)
                if self.progress is not None:
                    self.progress(sum(len(rows) for _, rows in chunk))
        return [
            torch.cat(own).unflatten(0, masks.shape[:2])
            for own, masks in zip(parts, wanted, strict=True)
        ]

    def _block(self, game: int, masks: Tensor, rows: range) -> tuple[Samples, Tensor]:
        """Rows of a request's B · K, as samples of one coalition each, or one of several."""
        if len(masks) == 1:  # no copies of it
            return self.games[game].samples, masks[:, rows.start : rows.stop]
        number = torch.arange(rows.start, rows.stop, device=masks.device)
        sample, coalition = number // masks.shape[1], number % masks.shape[1]
        return self.games[game].samples.take(sample), masks[sample, coalition].unsqueeze(1)

    def _chunks(
        self, games: list[int], wanted: list[Tensor], grad: bool
    ) -> Iterator[list[tuple[int, range]]]:
        """Pieces of requests that go through the network together, of similar shapes."""
        counts = [masks.shape[0] * masks.shape[1] for masks in wanted]
        shapes = [tuple(self.games[at].present.shape[1:]) for at in games]
        longest = self.games[games[max(range(len(games)), key=shapes.__getitem__)]]
        most = self.chunk_size or longest.fastest_chunk(sum(counts), grad)
        chunk: list[tuple[int, range]] = []
        room = most
        for k in sorted(range(len(games)), key=shapes.__getitem__):
            start = 0
            while start < counts[k]:
                alien = chunk and self.pad is None and shapes[chunk[0][0]] != shapes[k]
                if room == 0 or alien:
                    yield chunk
                    chunk, room = [], most
                stop = min(counts[k], start + room)
                chunk.append((k, range(start, stop)))
                room, start = room - (stop - start), stop
        yield chunk


def _values(
    games: list[MaskedGame], blocks: list[tuple[Samples, Tensor]], pad: float | None
) -> list[Tensor]:
    """The payoffs of every block, in one pass of the network."""
    rows, extras = zip(*(samples.rows(masks) for samples, masks in blocks), strict=True)
    length = max(part.shape[1:2] for part in rows)
    joined = torch.cat([_filled(part, length, pad) for part in rows])
    extra = {}
    for name in extras[0]:
        own = [more[name] for more in extras]
        # An input that goes along with the samples does so in all games.
        if all(one.shape[1:2] == part.shape[1:2] for one, part in zip(own, rows, strict=True)):
            own = [_filled(one, length, 0) for one in own]
        extra[name] = torch.cat(own)
    logits = games[0].network(joined, extra).split([len(part) for part in rows])
    return [
        samples.read(game.payoff, part.unflatten(0, masks.shape[:2])).flatten(0, 1)
        for game, (samples, masks), part in zip(games, blocks, logits, strict=True)
    ]


def _filled(x: Tensor, length: Sequence[int], value: float | None) -> Tensor:
    """``x`` filled up to a length along the axis after the rows."""
    if x.shape[1:2] == length:
        return x
    missing = length[0] - x.shape[1]
    return F.pad(x, (*(0 for _ in range(2 * (x.dim() - 2))), 0, missing), value=value)
