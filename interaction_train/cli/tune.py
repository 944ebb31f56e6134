"""``interaction-train tune-attack``: the arguments of one function as options and as YAML."""

from __future__ import annotations

from jsonargparse import ArgumentParser

from interaction_train import __version__
from interaction_train.attacks.tuning.job import tune_attack as job
from interaction_train.cli.configs import with_bases

COMMAND = "tune-attack"


def tune_attack(args: list[str]) -> None:
    """Search an attack as :func:`~interaction_train.attacks.tuning.job.tune_attack` does."""
    parser = ArgumentParser(
        prog=f"interaction-train {COMMAND}",
        description="Search parts and settings of an attack for your own networks and images.",
        version=__version__,
        exit_on_error=False,
    )
    parser.add_argument("--config", action="config", help="A YAML file, or a packaged one's name.")
    parser.add_argument("--base", type=str | None, default=None, help="As in other configs.")
    parser.add_function_arguments(job, sub_configs=True)
    config = parser.parse_args(with_bases(args))
    made = parser.instantiate(config)
    job(**{key: value for key, value in made.items() if key not in ("config", "base")})
