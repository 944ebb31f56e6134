"""The one exception that bad input raises at a public boundary."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: the message names the argument, what came and what was expected.

    The command line prints it as one line and exits with status 2; anything else that is raised
    there is a defect and keeps its traceback.
    """

    def __init__(self, argument: str, got: object, expected: str) -> None:
        super().__init__(f"{argument}: got {got}, expected {expected}")
        self.argument, self.got, self.expected = argument, got, expected

    def __reduce__(self) -> tuple[type[InputError], tuple[str, object, str]]:
        # pytest-xdist and DataLoader workers send exceptions between processes.
        return type(self), (self.argument, str(self.got), self.expected)
