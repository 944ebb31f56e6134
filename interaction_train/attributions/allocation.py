"""How much of the effect of every set of players an attribution method gives to each player."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from interaction_train.attributions.attribute import METHODS, Method, get_method
from interaction_train.attributions.integrated_gradients import (
    expected_gradients,
    integrated_gradients,
)
from interaction_train.attributions.occlusion import (
    occlusion,
    occlusion_patch,
    patch_places,
    prediction_difference,
)
from interaction_train.attributions.shapley import all_values, shapley
from interaction_train.attributions.subgames import masked_attributions, over_baselines
from interaction_train.errors import InputError
from interaction_train.game.masked import MaskedGame
from interaction_train.indices.exact import CELLS, all_coalitions, dividends

MOST = 12  # players


def allocation(game: MaskedGame, method: str | Method, **options: Any) -> Tensor:
    """W[i, S] = Σ_{T⊆S} (−1)^{|S|−|T|} A_i(x_T), what player i gets from set S, ``(B, n, 2^n)``.

    A_i(x_T) is the attribution of the masked input x_T, for the same baseline. Over S it sums to
    the attribution of x; where the network is analytic it is Σ w_{i,κ} I(κ) over the κ on exactly S
    (Deng et al. 2024, Eq. 12), and it exists for any network. The paper's ratios W/J(S) (Eq. 13) do
    not, where J(S) = 0: these are amounts. Sets are in the order of the value tensors.

    A method's own error, as of a quadrature over kinks, grows in the differences: ``incomplete``
    shows it.

    In 2^n attributions, with flat memory beyond the result; from the dividends for occlusion,
    occlusion_patch, prediction_difference and shapley. With ``absents`` it is the mean of the
    allocations of each baseline's game, to compare with the mean of their dividends.

    Args:
        game: of at most 12 players; its payoff is one number.
        method: as in :func:`~interaction_train.attributions.attribute.attribute`.
        **options: of the method, likewise.

    Raises:
        InputError: more players, or what ``attribute`` refuses.

    Examples:
        >>> import torch
        >>> import interaction_train as it
        >>> def network(x):  # logits x0 + x0 x1 and 0
        ...     return torch.stack([x[:, 0] + x[:, 0] * x[:, 1], 0 * x[:, 0]], 1)
        >>> x, y = torch.ones(1, 2), torch.tensor([0])
        >>> game = it.MaskedGame(network, x, 0.0, it.UnitPlayers(), labels=y)
        >>> allocation(game, "shapley")[0]  # sets: none, {0}, {1}, {0, 1}
        tensor([[0.0000, 1.0000, 0.0000, 0.5000],
                [0.0000, 0.0000, 0.0000, 0.5000]])
    """
    if game.n > MOST:
        expected = f"at most {MOST} for an allocation; a coarser grid will do"
        raise InputError("game", f"{game.n} players", expected)
    get_method(method, options)  # refuses what does not fit before any work
    absents = options.get("absents")
    if absents is None:
        return _one_baseline(game, method, options)
    rows = max(1, min(game.chunk_size or CELLS, CELLS // (game.n << game.n)))
    return over_baselines(game, absents, lambda one: _one_baseline(one, method, options), rows)


def _one_baseline(game: MaskedGame, method: str | Method, options: dict[str, Any]) -> Tensor:
    function = METHODS[method] if isinstance(method, str) else method
    if function in (occlusion, occlusion_patch, prediction_difference, shapley):
        effects = dividends(all_values(game)).unsqueeze(1)
        members = all_coalitions(game.n, effects.device).T
        if function is shapley:
            return effects * members / members.sum(0).clamp(min=1).to(effects)
        if function is occlusion_patch:
            place = patch_places(game.n, options["patches"]).to(effects.device)
            together = place.unsqueeze(0) == place.unsqueeze(1)
            members = (together.unsqueeze(-1) & members).any(1)
        return effects * members

    own = {"check": False} if function in (expected_gradients, integrated_gradients) else {}

    def run(inner: MaskedGame) -> Tensor:
        absents = {"absents": inner.absent.unsqueeze(0)} if "absents" in options else {}
        return get_method(method, {**options, **absents, **own})(inner)

    return dividends(masked_attributions(game, all_coalitions(game.n), run))
