"""`HookManager`: hooks on modules named by path, removed when the context ends.

Knows nothing about what the hooks do.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from traitlens.errors import MissingModuleError

ForwardHook = Callable[[nn.Module, tuple[Any, ...], Any], Any]
ForwardPreHook = Callable[[nn.Module, tuple[Any, ...]], Any]


class HookManager:
    """Holds hooks on one model while its `with` block is open; all are removed when it ends.

    Paths are PyTorch's: "model.layers.16" is block 16, whose output is layer 17 of this toolkit.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> HookManager:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove_all()

    def add_forward_hook(self, path: str, hook: ForwardHook) -> RemovableHandle:
        """Call hook(module, inputs, output) after the module; what it returns replaces the output.

        Raises MissingModuleError when the model has no module at this path.
        """
        return self._held(self._module(path).register_forward_hook(hook))

    def add_forward_pre_hook(self, path: str, hook: ForwardPreHook) -> RemovableHandle:
        """Call hook(module, inputs) before the module; what it returns replaces the inputs."""
        return self._held(self._module(path).register_forward_pre_hook(hook))

    def remove_all(self) -> None:
        """Remove every hook now; safe to call twice."""
        while self._handles:
            self._handles.pop().remove()

    def _held(self, handle: RemovableHandle) -> RemovableHandle:
        self._handles.append(handle)
        return handle

    def _module(self, path: str) -> nn.Module:
        try:
            return self._model.get_submodule(path)
        except AttributeError as error:
            lists = [
                f"{name}.0..{len(module) - 1}"
                for name, module in self._model.named_modules()
                if isinstance(module, nn.ModuleList)
            ]
            raise MissingModuleError(
                f"{type(self._model).__name__} has no module {path!r}: its blocks are at "
                f"{', '.join(lists) or 'no list of modules'}"
            ) from error
