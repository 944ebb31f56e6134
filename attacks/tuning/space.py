"""What a search of attacks chooses from: parts, objectives and ranges of their settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pydoc import locate
from typing import Any

from jsonargparse import ArgumentParser

from interaction_train.attacks.norms import Norm
from interaction_train.attacks.objectives import Objective
from interaction_train.attacks.parts.base import Part
from interaction_train.attacks.run import AttackFactory
from interaction_train.errors import InputError

Settings = dict[str, Any]

ALPHA = "alpha"
_CANDIDATES: Settings = {
    "Objective": {"loss": ["cross_entropy", "margin"]},
    "RandomMask": {"keep": {"low": 0.7, "high": 0.95}},
    "AdaptiveWarp": {
        "radius": {"low": 0.2, "high": 1.0},
        "need": {"low": 0.2, "high": 1.0},
    },
    "StructureInvariance": {"blocks": [2, 3, 4], "copies": [1, 2, 4]},
    "BlockShuffle": {"blocks": [2, 3], "angle": {"low": 5.0, "high": 45.0}},
    "SpectrumScaling": {"rho": {"low": 0.2, "high": 0.8}},
    "RandomNoise": {
        "radius": {"low": 0.25, "high": 4.0, "log": True},
        "kind": ["uniform", "normal"],
        "copies": [1, 2, 4],
    },
    "InputDiversity": {
        "resize_rate": {"low": 0.7, "high": 0.95},
        "probability": {"low": 0.3, "high": 1.0},
    },
    "ScaleInvariance": {"copies": [2, 3, 5]},
    "TranslationInvariance": {},
    "Momentum": {"decay": {"low": 0.0, "high": 1.0}},
    ALPHA: {"low": 1.0, "high": 16.0, "log": True},
}


class Space:
    """Attacks that a trial may try.

    A list is a choice; ``{low, high}``, with ``log: true`` on a logarithmic scale, is a range, of
    integers if both are; anything else is a fixed value.

    Args:
        space: the name or path of a part's class → its settings, in the order in which parts apply,
            each of which a trial uses or not; of an objective → its settings, of which a trial has
            one; ``alpha``: the step size in units of eps / steps. Default: the package's parts.

    Raises:
        InputError: a name that is no part or objective, or a setting that its class refuses.
    """

    def __init__(self, space: Mapping[str, Any] | None = None) -> None:
        known = _known()
        if not isinstance(space, Mapping | None):
            raise InputError("space", repr(space), "a mapping, name → settings")
        space = _CANDIDATES if space is None else space
        self.described = dict(space)
        self.alpha: Any = space.get(ALPHA, _CANDIDATES[ALPHA])
        _check_range(ALPHA, self.alpha)
        values = self.alpha if isinstance(self.alpha, list) else [self.alpha]
        values = [self.alpha["low"]] if _is_range(self.alpha) else values
        if not all(type(value) in (int, float) and value > 0 for value in values):
            raise InputError(f"space.{ALPHA}", repr(self.alpha), "positive numbers")
        self.parts: dict[str, Settings] = {}
        self.objectives: dict[str, Settings] = {}
        for name, settings in space.items():
            if name == ALPHA:
                continue
            kind: Any = known.get(name) or (locate(name) if "." in name else None)
            if not isinstance(kind, type) or not issubclass(kind, Part | Objective):
                expected = f"alpha, a part or an objective: {', '.join(sorted(known))}"
                raise InputError("space", repr(name), expected)
            settings = {} if settings is None else settings
            if not isinstance(settings, Mapping):
                raise InputError(f"space.{name}", repr(settings), "a mapping, setting → range")
            for key, setting in settings.items():
                _check_range(f"{name}.{key}", setting)
            group = self.parts if issubclass(kind, Part) else self.objectives
            group[name] = dict(settings)
        self.objectives = self.objectives or {"Objective": {}}
        for end in (0, -1):  # classes refuse what they do not know, here and not in the tenth trial
            read_attack(self._attack(list(self.parts), list(self.objectives)[end], _End(end)))

    def suggest(self, trial: Any) -> tuple[dict[str, Any], float]:
        """What an Optuna trial tries: the attack as in YAML, and α in units of eps / steps."""
        names = list(self.objectives)
        objective = trial.suggest_categorical("objective", names) if len(names) > 1 else names[0]
        parts = [name for name in self.parts if trial.suggest_categorical(name, [True, False])]
        return self._attack(parts, objective, trial), float(_suggest(trial, ALPHA, self.alpha))

    def alone(self, number: int) -> dict[str, bool] | None:
        """The choice of the number's part alone, then of none; after these None."""
        if number > len(self.parts):
            return None
        return {name: k == number for k, name in enumerate(self.parts)}

    def _attack(self, parts: list[str], objective: str, trial: Any) -> dict[str, Any]:
        def made(name: str, settings: Settings) -> dict[str, Any]:
            init = {key: _suggest(trial, f"{name}.{key}", value) for key, value in settings.items()}
            return {"class_path": name, **({"init_args": init} if init else {})}

        found = {
            "objective": made(objective, self.objectives[objective]),
            "parts": [made(name, self.parts[name]) for name in parts],
        }
        return {"class_path": "TransferAttack", "init_args": found}


def with_budget(
    attack: dict[str, Any], eps: float, norm: Norm, steps: int, alpha: float
) -> dict[str, Any]:
    """An attack with steps of ``alpha``·eps / steps, of eps at most."""
    size = eps * min(1.0, alpha / steps)
    budget = {"eps": eps, "alpha": size, "steps": steps, "norm": norm}
    return {**attack, "init_args": budget | attack["init_args"]}


def read_attack(attack: dict[str, Any]) -> AttackFactory:
    """The factory that YAML of this content gives."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--attack", type=AttackFactory)
    return parser.instantiate(parser.parse_object({"attack": attack})).attack


class _End:
    """A trial that takes the first (0) or the last (−1) of everything."""

    def __init__(self, end: int) -> None:
        self.end = end

    def suggest_categorical(self, _: str, choices: list[Any]) -> Any:
        return choices[self.end]

    def suggest_float(self, _: str, low: float, high: float, **__: Any) -> float:
        return (low, high)[self.end]

    suggest_int = suggest_float


def _suggest(trial: Any, name: str, setting: Any) -> Any:
    if isinstance(setting, list):
        choices = {str(value): value for value in setting}  # Optuna keeps numbers and texts alone
        return choices[trial.suggest_categorical(name, list(choices))]
    if not _is_range(setting):
        return setting
    low, high, log = setting["low"], setting["high"], setting.get("log", False)
    whole = isinstance(low, int) and isinstance(high, int)
    return (trial.suggest_int if whole else trial.suggest_float)(name, low, high, log=log)


def _is_range(setting: Any) -> bool:
    return isinstance(setting, Mapping) and {"low", "high"} <= setting.keys()


def _check_range(name: str, setting: Any) -> None:
    if isinstance(setting, list) and not setting:
        raise InputError(f"space.{name}", "an empty list", "one of choices")
    if _is_range(setting):
        low, high, log = setting["low"], setting["high"], setting.get("log", False)
        numbers = all(type(bound) in (int, float) for bound in (low, high))
        good = numbers and low <= high and not (log and low <= 0) and set(setting) <= _RANGE
        if not good:
            expected = "{low, high} with low ≤ high, positive with log: true"
            raise InputError(f"space.{name}", dict(setting), expected)


_RANGE = {"low", "high", "log"}


def _known() -> dict[str, type[Part | Objective]]:
    """Name → class, of all parts and objectives there are."""
    bases: tuple[type, ...] = (Part, Objective)
    return {kind.__name__: kind for base in bases for kind in _kinds(base)}


def _kinds(base: type[Any]) -> Iterator[type[Any]]:
    if base is not Part:
        yield base
    for kind in base.__subclasses__():
        yield from _kinds(kind)
