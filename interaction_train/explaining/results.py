"""What a network's outputs on masked copies of some inputs tell about these inputs: the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import index
from typing import Any

import torch
from torch import Tensor

from interaction_train.concepts.concepts import Concepts
from interaction_train.concepts.graph import ConceptGraph, concept_graph
from interaction_train.concepts.selection import select_concepts
from interaction_train.concepts.sparse import sparse_concepts
from interaction_train.concepts.trees import InteractionTree, interaction_tree
from interaction_train.errors import InputError
from interaction_train.explaining.sampled import Sampler, pair_matrices
from interaction_train.game.players import Players
from interaction_train.indices.exact import multi_order_interactions
from interaction_train.indices.means import ratio, standard_error
from interaction_train.recovery import Recovered, strongest


@dataclass(eq=False, repr=False, kw_only=True)
class Results:
    """What each of n players, and each pair, adds to the payoff of B samples.

    Tensors are on the CPU; numbers are in the unit of the payoff and, where not said otherwise,
    float64.

    Attributes:
        x: the inputs ``(B, ...)``.
        labels: ``(B,)`` int64, the classes that are explained.
        players: how an input splits into players.
        names: of the n players.
        payoff: what v(S) is, by name.
        network: a name for titles.
        classes: names of the classes, or None.
        values: v of all coalitions, ``(B, 2^n)`` in the dtype of the outputs; None when sampled.
        empty: ``(B,)``, v(∅), where all players are absent.
        full: ``(B,)``, v(N), of the inputs as they are.
        shapley: Shapley values ``(B, n)``; they sum to full − empty.
        shapley_stderr: ``(B, n)``, their standard errors; 0 if exact.
        pairs: Shapley interactions ``(B, n, n)``, symmetric with a diagonal of 0.
        pairs_stderr: ``(B, n, n)``, their standard errors; 0 if exact.
        evaluations: coalitions evaluated per sample, of orders that were asked for since as well.
        sampler: of orders that are not exact; it holds the network, which a pickle leaves out.
    """

    x: Tensor
    labels: Tensor
    players: Players
    names: tuple[str, ...]
    payoff: str
    network: str
    classes: Sequence[str] | None
    values: Tensor | None
    empty: Tensor
    full: Tensor
    shapley: Tensor
    shapley_stderr: Tensor
    pairs: Tensor
    pairs_stderr: Tensor
    evaluations: int
    sampler: Sampler | None = None
    _concepts: dict[str, Concepts] = field(default_factory=dict, init=False)

    def __repr__(self) -> str:
        how = "exact" if self.exact else "sampled"
        samples = f"{len(self)} sample{'s' * (len(self) != 1)}"
        return (
            f"Explanation({self.network}, {self.payoff}, {samples}, {self.n} players, "
            f"{how} from {self.evaluations} evaluations each)"
        )

    def __len__(self) -> int:
        return len(self.x)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "sampler": None}

    @property
    def n(self) -> int:
        """The number of players."""
        return len(self.names)

    @property
    def exact(self) -> bool:
        """Whether all coalitions were evaluated."""
        return self.values is not None

    def order(self, m: int) -> Tensor:
        """Multi-order interactions I^(m)(i,j), ``(B, n, n)``, of contexts of m = 0 … n−2 players.

        Where the explanation is sampled, the first call with an m evaluates the network, which must
        be as it was, for at most another budget.

        Raises:
            InputError: m out of range, or a budget that is too small for a sampled order.
        """
        return self._order(m)[0]

    def order_stderr(self, m: int) -> Tensor:
        """Standard errors of :meth:`order`, ``(B, n, n)``; 0 if exact, as m = 0 and n−2 are."""
        return self._order(m)[1]

    def spectrum(self) -> dict[str, Any]:
        """How strong the interactions of each order are.

        Of the ``orders``, as lists: ``value``, the mean |I^(m)(i,j)| over pairs and samples, in the
        unit of the payoff, and ``J``, the same relative to its mean over the orders (survey,
        Eq. 21); with ``stderr`` and ``J_stderr`` over the samples, NaN for one. ``reading`` is
        ``"mean"``. Where the explanation is sampled there is no unbiased estimate of a mean |I|:
        then it is ``"rms"``, of the root mean square, and of some orders; the first call costs at
        most another budget, of a network that must be as it was.

        Raises:
            InputError: a budget that is too small for three sampled orders.
        """
        if self.exact:
            pairs = self._multi_order.abs().sum((-2, -1)) / (self.n * (self.n - 1))
            orders, reading, value = list(range(self.n - 1)), "mean", pairs.mean(0)
            deviations = pairs - value
        else:
            sampler = self._sampler("spectrum")
            orders, squares = sampler.spectrum()
            self.evaluations, reading = sampler.evaluations, "rms"
            value = squares.mean(0).clamp(min=0).sqrt()
            deviations = (squares - squares.mean(0)) / (2 * value)
        overall = value.mean(-1, keepdim=True), deviations.mean(-1, keepdim=True)
        relative, changes = ratio((value, deviations), overall)
        told = {"value": value, "stderr": standard_error(deviations)}
        told |= {"J": relative, "J_stderr": standard_error(changes)}
        numbers = {key: tensor.tolist() for key, tensor in told.items()}
        return {"orders": orders, **numbers, "reading": reading}

    def concepts(self, **settings: Any) -> Concepts:
        """The sparse AND-OR concepts of each sample; computed once for the same settings.

        Args:
            **settings: of :func:`~interaction_train.concepts.sparse.sparse_concepts`.

        Raises:
            InputError: a sampled explanation.
        """
        values = self.all_values("concepts")
        key = repr(sorted(settings.items()))
        if key not in self._concepts:
            self._concepts[key] = sparse_concepts(values.double(), **settings)
        return self._concepts[key]

    def graph(
        self, sample: int = 0, count: int = 12, merges: int = 5, **settings: Any
    ) -> ConceptGraph:
        """The graph of a sample's strongest concepts, refitted, with the coalitions they share.

        ``plot.graph()`` draws it over the image.

        Args:
            sample: which sample.
            count: how many concepts, at most.
            merges: how many shared coalitions, at most.
            **settings: of :meth:`concepts`.

        Raises:
            InputError: arguments out of range, or a sampled explanation.
        """
        at = self.at(sample)
        values = self.all_values("concepts").double()
        chosen = select_concepts(self.concepts(**settings), values, min(count, 2 << self.n))
        return concept_graph(chosen[at], self.names, merges)

    def tree(self, sample: int = 0, **settings: Any) -> InteractionTree:
        """Which neighbouring players form phrases, and which of these join, for words above all.

        Args:
            sample: which sample; a sampled explanation needs to be of a single one, and evaluates
                the network, which must be as it was.
            **settings: of :func:`~interaction_train.concepts.trees.interaction_tree`.

        Raises:
            InputError: arguments out of range.
        """
        at = self.at(sample)
        if self.values is not None:
            return interaction_tree(self.values[at], names=self.names, **settings)
        game = self._sampler("tree").game
        return interaction_tree(game, names=self.names, **settings)

    def strongest(self, count: int = 12, max_order: int | None = None) -> Recovered:
        """The few ANDs and ORs that explain a sampled game best, and how well they do.

        Of any players, from a fit of all sets at once
        (:func:`~interaction_train.recovery.fit.fit_walsh`). The first call evaluates the network,
        which must be as it was, for at most another budget and at most 2048 coalitions. Warns of
        samples that a few interactions do not explain.

        Args:
            count: how many, at most.
            max_order: players of one, at most; default: 5, or all where there are fewer.

        Raises:
            InputError: an exact explanation, whose :meth:`concepts` are to be had; a budget below
                9/4 of the players, or a network that answers all coalitions alike.
        """
        if self.exact:
            raise InputError("explanation", "an exact one", "a sampled one: see concepts()")
        sampler = self._sampler("strongest")
        model = sampler.fit()
        self.evaluations = sampler.evaluations
        return strongest(model, count, max_order)

    def all_values(self, what: str) -> Tensor:
        """The values of all coalitions, or an InputError that says that ``what`` needs them."""
        if self.values is None:
            expected = f"all coalitions, for {what}: fewer players, or a budget of 2^{self.n}"
            raise InputError("explanation", f"one sampled of {self.n} players", expected)
        return self.values

    def cells(self, sample: int = 0) -> Tensor | None:
        """The player of each pixel of a sample, int64 ``(H, W)``; None for other players."""
        at = self.at(sample)
        players = self.players.part(slice(at, at + 1))
        cells = players.cells(self.x.shape[1:], torch.device("cpu"))
        return cells[0] if cells is not None and cells.dim() == 3 else cells

    def title(self, sample: int = 0) -> str:
        """Network, explained class and payoff."""
        shown = self.class_name(int(self.labels[self.at(sample)]))
        return f"{self.network}, {shown}, {self.payoff.replace('_', ' ')}"

    def class_name(self, label: int) -> str:
        """The name of a class; "class 1" where it has none but a number."""
        name = str(label) if self.classes is None else self.classes[label]
        return f"class {name}" if name.lstrip("-").isdigit() else name

    def at(self, sample: int) -> int:
        """The place of a sample in the batch, counted from the end where negative."""
        sample = index(sample)
        if not -len(self) <= sample < len(self):
            raise InputError("sample", sample, f"one of the {len(self)} samples, from 0 on")
        return sample % len(self)

    @cached_property
    def _multi_order(self) -> Tensor:
        values = self.all_values("orders")
        return multi_order_interactions(values.double(), values.dtype)

    def _order(self, m: int) -> tuple[Tensor, Tensor]:
        m = index(m)
        if not 0 <= m <= self.n - 2:
            raise InputError("m", m, f"an order 0 … n − 2 = {self.n - 2}")
        if self.exact:
            return self._multi_order[:, m], torch.zeros_like(self.pairs)
        sampler = self._sampler("order")
        found = pair_matrices(sampler.order(m), self.n)
        self.evaluations = sampler.evaluations
        return found

    def _sampler(self, what: str) -> Sampler:
        if self.sampler is None:
            got = "a sampled one from a pickle, which has no network"
            raise InputError("explanation", got, f"the one that explain() gave, for {what}")
        return self.sampler
