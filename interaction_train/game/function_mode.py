"""What torch's functions are replaced by for a while, however a network calls them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch.overrides import TorchFunctionMode

Function = Callable[..., Any]


class FunctionMode(TorchFunctionMode):
    """What torch's functions are replaced by; those entered are known, innermost last."""

    entered: ClassVar[list[FunctionMode]] = []

    def __torch_function__(
        self,
        function: Function,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return self.call(function, args, kwargs or {})

    @abstractmethod
    def call(self, function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """A call of one of torch's functions, or what takes its place."""

    def __enter__(self) -> Any:
        self.entered.append(self)
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        self.entered.remove(self)
        super().__exit__(*error)  # type: ignore[no-untyped-call]
