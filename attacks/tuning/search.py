"""A resumable search by Optuna for the attack of the best score within a budget of passes."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from interaction_train.attacks.norms import Norm
from interaction_train.attacks.tuning.score import Bench
from interaction_train.attacks.tuning.space import Space, read_attack, with_budget
from interaction_train.errors import InputError

_NAME = "tune-attack"
_RANDOM = 10  # trials at random, before the sampler learns
_SETTINGS = "settings"


class Search:
    """Trials of attacks: every part alone, then some at random, then by TPE.

    A trial depends on the seed and the trials before it alone: a search that was stopped goes on as
    if it had not been. ``trials.journal`` and ``trials.csv`` are in the folder.

    Args:
        folder: of this search, new or of an earlier one with equal settings.
        space: what to try.
        settings: what tells searches apart, as in JSON.
        seed: of the choices.

    Raises:
        InputError: no optuna; a folder with a search of other settings.
    """

    def __init__(self, folder: Path, space: Space, settings: dict[str, Any], seed: int = 0) -> None:
        self.folder, self.space, self.seed = folder, space, seed
        self._optuna = optuna = import_optuna()
        folder.mkdir(parents=True, exist_ok=True)
        journal = optuna.storages.journal.JournalFileBackend(str(folder / "trials.journal"))
        storage = optuna.storages.JournalStorage(journal)
        self._study = optuna.create_study(
            storage=storage, study_name=_NAME, direction="maximize", load_if_exists=True
        )
        settings = json.loads(json.dumps(settings))
        known = self._study.user_attrs.get(_SETTINGS, settings)
        if changed := [key for key in settings if known.get(key) != settings[key]]:
            got = f"{str(folder)!r}, of a search with other {', '.join(changed)}"
            raise InputError("folder", got, "a new one, or one with the same settings")
        self._study.set_user_attr(_SETTINGS, settings)
        for trial in self._trials("RUNNING"):  # killed in its midst
            self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)

    def run(self, bench: Bench, trials: int, passes: int, eps: float, norm: Norm) -> dict[str, Any]:
        """Go on until there are so many trials, and return the best attack, as in YAML.

        Raises InputError if no trial worked.
        """
        best = max((trial.value for trial in self._done if trial.value is not None), default=-1.0)
        columns = (TextColumn("Tuning"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        console = Console(soft_wrap=True)
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("", total=trials, completed=len(self._done))
            while (number := len(self._done)) < trials:
                trial = self._ask(number)
                attack, alpha = self.space.suggest(trial)
                try:
                    attack = self._within(bench, attack, alpha, passes, eps, norm)
                    score = bench.score(read_attack(attack))
                except InputError as error:  # a part that does not fit these images, for instance
                    trial.set_user_attr("refused", str(error))
                    self._study.tell(trial, state=self._optuna.trial.TrialState.PRUNED)
                else:
                    for key, value in (("attack", attack), *vars(score).items()):
                        trial.set_user_attr(key, value)
                    self._study.tell(trial, score.value)
                    if score.value > best:
                        best = score.value
                        said = f"trial {number + 1}: {100 * score.success:.1f} %, {title(attack)}"
                        console.print(said, highlight=False)
                pd.DataFrame(self.records()).to_csv(self.folder / "trials.csv", index=False)
                progress.update(bar, completed=number + 1)
        worked = [trial for trial in self._done if trial.value is not None]
        if not worked:
            said = self._done[-1].user_attrs["refused"]
            raise InputError("space", f"{number} trials that failed", f"one that works ({said})")
        return max(worked, key=lambda trial: trial.value).user_attrs["attack"]

    def records(self) -> list[dict[str, Any]]:
        """A flat dictionary per trial: what it chose, and how it went."""
        found = []
        for number, trial in enumerate(self._done, 1):
            about = {k: v for k, v in trial.user_attrs.items() if k != "attack"}
            attack = trial.user_attrs.get("attack")
            steps = attack["init_args"]["steps"] if attack else None
            same = {"trial": number, "success": None, "lead": None, "passes": None, "refused": None}
            found.append({**same, "steps": steps, **about, **trial.params})
        return found

    def _ask(self, number: int) -> Any:
        alone = self.space.alone(number)
        if alone is not None and not self._trials("WAITING"):
            self._study.enqueue_trial(alone)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # both options are new, says Optuna
            self._study.sampler = self._optuna.samplers.TPESampler(
                n_startup_trials=len(self.space.parts) + 1 + _RANDOM,
                seed=(self.seed * 1_000_003 + number) % 2**32,
                multivariate=True,
                group=True,
            )
        return self._study.ask()

    def _within(
        self,
        bench: Bench,
        attack: dict[str, Any],
        alpha: float,
        passes: int,
        eps: float,
        norm: Norm,
    ) -> dict[str, Any]:
        """An attack with as many steps as the passes allow."""
        each, before = bench.cost(read_attack(with_budget(attack, eps, norm, 1, alpha)), passes)
        if before + each > passes:
            raise InputError("passes", passes, f"{before + each:g} at least, which a step takes")
        return with_budget(attack, eps, norm, int((passes - before) / each), alpha)

    @property
    def _done(self) -> list[Any]:
        return self._trials("COMPLETE", "PRUNED")

    def _trials(self, *states: str) -> list[Any]:
        kinds = [self._optuna.trial.TrialState[state] for state in states]
        return self._study.get_trials(deepcopy=False, states=kinds)


def title(attack: dict[str, Any]) -> str:
    """An attack's parts and objective in a line."""
    init = attack["init_args"]
    parts = " + ".join(_part(part) for part in init["parts"]) or "no parts"
    return f"{parts}; {_part(init['objective'])}; {init['steps']} steps of {init['alpha']:.3g}"


def _part(spec: dict[str, Any]) -> str:
    said = (
        f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in spec.get("init_args", {}).items()
    )
    return f"{spec['class_path'].split('.')[-1]}({', '.join(said)})"


def import_optuna() -> Any:
    """Optuna, quiet; InputError, which names the extra, without it."""
    try:
        import optuna
    except ImportError:
        expected = "the extra: pip install 'interaction-train[tune]'"
        raise InputError("tune-attack", "no optuna", expected) from None
    optuna.logging.set_verbosity(logging.WARNING)
    return optuna
