"""The games of a network that a baseline is learned on, or measured by."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interaction_train.baselines.measures import Measures, measure
from interaction_train.baselines.objectives import Objective, dividend_l1, get_objective
from interaction_train.errors import InputError, at_least, checked_classes, checked_labels
from interaction_train.game.evaluation import Network, eval_logits, unwrap, without_grad
from interaction_train.game.layers import LayerSuffix, features
from interaction_train.game.masked import MaskedGame
from interaction_train.game.payoffs import Payoff
from interaction_train.game.players import Players
from interaction_train.game.tokens import kept_tokens, special_ids
from interaction_train.indices.curve import end_coalitions
from interaction_train.sampling.random import Draws, content_hash

Data = tuple[Tensor, Tensor] | Iterable[tuple[Tensor, Tensor]]

_PREFIX_ROWS = 256  # samples at once up to a layer


class BaselineProblem:
    """Games of samples against one baseline, and the objective on them.

    Arguments are those of :func:`~interaction_train.baselines.learn.learn_baseline`.

    Raises:
        InputError: an argument out of its range.
    """

    def __init__(
        self,
        model: nn.Module,
        players: Players,
        objective: str | Objective = "low_order_shapley",
        payoff: str | Payoff = "log_odds",
        contexts: int = 100,
        layer: str | None = None,
        seed: int = 0,
        chunk_size: int | None = None,
        relative: bool | None = None,
    ) -> None:
        at_least("contexts", contexts, 1)
        if not isinstance(players, Players):
            raise InputError("players", repr(players), "such as FeaturePlayers()")
        self.model, self.players, self.payoff, self.layer = model, players, payoff, layer
        self.objective, self.contexts = get_objective(objective), contexts
        self.seed, self.chunk_size = seed, chunk_size
        self.relative = self.objective is not dividend_l1 if relative is None else relative

    def settings(self) -> dict[str, Any]:
        """What it was made with, as JSON has it."""
        named = {"objective": self.objective, "payoff": self.payoff}
        return {
            **{key: getattr(value, "__name__", str(value)) for key, value in named.items()},
            "players": repr(self.players),
            "relative": self.relative,
            "contexts": self.contexts,
            "layer": self.layer,
            "seed": self.seed,
        }

    def present(self, x: Tensor) -> Tensor:
        """What the players are parts of: the samples, or the layer's output.

        Raises:
            InputError: samples of integers.
        """
        if self.layer is None:
            if not x.is_floating_point() or x.dim() < 2:
                expected = "floating point (B, ...); of token ids, learn an embedding at a layer"
                raise InputError("data", f"{x.dtype} of shape {tuple(x.shape)}", expected)
            return x
        with without_grad():
            parts = x.split(_PREFIX_ROWS)
            return torch.cat([features(self.model, self.layer, part) for part in parts])

    def observed(self, x: Tensor) -> Tensor:
        """What a start and the standard deviations are taken from; of words ``(words, D)``."""
        present = self.present(x)
        kept = self._kept(x, present)
        return present if kept is None else present[~kept]

    def game(self, x: Tensor, y: Tensor, baseline: Tensor) -> MaskedGame:
        """The game of samples x ``(B, ...)`` of labels y ``(B,)``."""
        network: Network = self.model
        present, extra = self.present(x), dict[str, Tensor]()
        if self.layer is not None:
            extra = _attention(self.model, x)
            network = LayerSuffix(self.model, self.layer, x, extra)
        kept = self._kept(x, present)
        if kept is not None:
            baseline = torch.where(kept.unsqueeze(2), present, baseline)
        return MaskedGame(
            network, present, baseline, self.players, self.payoff, y,
            chunk_size=self.chunk_size, owner=unwrap(self.model), extra=extra,
        )  # fmt: skip

    def _kept(self, x: Tensor, present: Tensor) -> Tensor | None:
        """Of embeddings ``(B, L, D)`` of ids: which are of tokens that are always present."""
        of_ids = not x.is_floating_point() and present.dim() == 3
        return kept_tokens(self.model, x) if of_ids and x.shape == present.shape[:2] else None

    def draws(self, x: Tensor, step: int = 0) -> Draws:
        """The contexts' random numbers, for samples x at a step."""
        return Draws(content_hash(x), self.seed, "baselines", step)

    def loss(
        self,
        x: Tensor,
        y: Tensor,
        baseline: Tensor,
        step: int = 0,
        average: Callable[[Tensor], Tensor] = lambda own: own,
    ) -> tuple[Tensor, Tensor]:
        """A scalar with the gradient of a batch's loss, and that loss, without gradient.

        ``average`` is over processes: the gradient of a ratio of means needs those of all samples.
        """
        game = self.game(x, y, baseline)
        loss = self.objective(game, self.contexts, self.draws(x, step)).mean()
        if not self.relative:
            return loss, loss.detach()
        effect = game(end_coalitions(game), grad=True).diff().abs().mean()
        top, bottom = average(torch.stack([loss, effect]).detach())
        return loss / bottom - effect * top / bottom.square(), top / bottom

    def measure(self, x: Tensor, y: Tensor, baseline: Tensor) -> Measures:
        """What the baseline makes of these samples' games."""
        game = self.game(x, y, baseline)
        return measure(game, self.objective, self.contexts, self.draws(x))

    def measure_start(self, x: Tensor, y: Tensor, start: Tensor) -> Measures:
        """The measures of a start, or InputError where nothing is absent, nor any gradient."""
        found = self.measure(x, y, start)
        if found.effect == 0:
            got = "a baseline that leaves v(∅) = v(N) for all samples"
            raise InputError("start", got, "one that differs from the samples")
        return found


def gathered(model: nn.Module, data: Data) -> tuple[Tensor, Tensor]:
    """All samples ``(B, ...)`` and labels ``(B,)`` int64, on the network's device.

    Args:
        model: the network.
        data: both tensors, or batches of them, such as a ``DataLoader``; sentences may differ in
            length.

    Raises:
        InputError: anything else, or no samples.
    """
    pair = tuple(data) if isinstance(data, list | tuple) else ()
    whole = len(pair) == 2 and all(isinstance(part, Tensor) for part in pair)
    batches = [pair] if whole else list(data)
    try:
        xs, ys = zip(*batches, strict=True)
        x, y = torch.cat(_filled(model, xs)), torch.cat(ys)
    except (TypeError, ValueError, RuntimeError):
        expected = "samples and labels (x, y), or batches of them"
        raise InputError("data", type(data).__name__, expected) from None
    at_least("data (samples)", len(x), 1)
    checked_labels(y, len(x), "data (labels)")
    tensors = (*model.parameters(), *model.buffers())
    device = tensors[0].device if tensors else x.device
    return x.detach().to(device), y.to(device)


def check_labels(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Refuse labels of more classes than the network has."""
    checked_classes(y, eval_logits(model, x[:1]).shape[-1], "data (labels)")


def _filled(model: nn.Module, batches: tuple[Tensor, ...]) -> list[Tensor]:
    """Batches of sentences, of ids, filled up to the longest of all."""
    special = special_ids(model)
    if special is None or special.pad is None or any(x.is_floating_point() for x in batches):
        return list(batches)
    length = max(x.shape[1] for x in batches)
    return [F.pad(x, (0, length - x.shape[1]), value=special.pad) for x in batches]


def _attention(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Which ids are no padding, if the network takes it: it need not look at the ids for that."""
    special = special_ids(model)
    if x.is_floating_point() or special is None or special.pad is None:
        return {}
    takes = "attention_mask" in inspect.signature(unwrap(model).forward).parameters
    return {"attention_mask": x != special.pad} if takes else {}


def some_of(x: Tensor, y: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """``count`` samples, at most all, spread evenly."""
    at_least("samples", count, 1)
    count = min(count, len(x))
    places = torch.arange(count, device=x.device) * len(x) // count
    return x[places], y[places]
