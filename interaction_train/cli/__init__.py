"""The command line."""

from interaction_train.cli.main import main

__all__ = ["main"]
