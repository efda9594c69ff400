"""Hooks on modules named by path or on every layer, and keeping what hooked modules put out over a
generation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from traitlens.errors import MissingModuleError, ShapeError

ForwardHook = Callable[[nn.Module, tuple[Any, ...], Any], Any]
ForwardPreHook = Callable[[nn.Module, tuple[Any, ...]], Any]

# Receives a layer and its states [batch, tokens, d_model]; what it returns takes the states' place.
LayerTap = Callable[[int, Tensor], Tensor | None]


class HookManager:
    """Holds hooks on one model while its `with` block is open; all are removed when it ends.

    Paths are PyTorch's: "model.layers.16" is block 16, whose output is layer 17 of this toolkit.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> HookManager:
        return self

    def __exit__(self, *error: object) -> None:
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


class ActivationCapture:
    """Captures module outputs under names; `get` joins the steps of a generation.

    During `model.generate` a block is called once with the prompt and then once a token; the last
    generated token is never fed back, so N generated tokens give prompt + N - 1 columns: column t
    is the state at token t itself, padding columns included.
    """

    def __init__(self) -> None:
        self._steps: dict[str, list[Tensor]] = {}

    def make_hook(self, name: str) -> ForwardHook:
        """A forward hook that keeps the module's output (its first, when it gives a tuple)."""

        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            # A copy, because later layers may add into the same memory.
            self._steps.setdefault(name, []).append(hidden.detach().clone())

        return hook

    @property
    def names(self) -> list[str]:
        """Names under which something was captured."""
        return sorted(self._steps)

    def get(self, name: str) -> Tensor:
        """Everything captured under a name: [batch, seq, hidden], on the model's device and dtype.

        Calls are joined along the sequence; `clear` between unrelated forward passes. Raises
        MissingModuleError when nothing was captured and ShapeError when batch sizes differ.
        """
        steps = self._steps.get(name)
        if not steps:
            raise MissingModuleError(
                f"nothing captured as {name!r} (have {self.names}): "
                "run the model while the hook is in place"
            )
        if len({(step.shape[0], step.shape[-1]) for step in steps}) > 1:
            raise ShapeError(
                f"calls under {name!r} have shapes {[tuple(step.shape) for step in steps]}: "
                "clear() between unrelated forward passes"
            )
        return torch.cat(steps, dim=1)

    def clear(self) -> None:
        """Forget everything captured so far."""
        self._steps.clear()


@contextmanager
def tapped(decoder: nn.ModuleList, tap: LayerTap) -> Iterator[None]:
    """Call `tap` with every layer's states in each forward pass inside the context.

    Layer 0 is the input of block 0, layer l the output of block l-1, before the final norm.
    """
    with ExitStack() as hooks:
        before = decoder[0].register_forward_pre_hook(_on_input(tap), with_kwargs=True)
        hooks.callback(before.remove)
        for layer, block in enumerate(decoder, start=1):
            hooks.callback(block.register_forward_hook(_on_output(tap, layer)).remove)
        yield


def _on_input(tap: LayerTap) -> Callable[..., Any]:
    def hook(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        changed = tap(0, args[0] if args else named["hidden_states"])
        if changed is None:
            return None
        return (
            ((changed, *args[1:]), named) if args else (args, {**named, "hidden_states": changed})
        )

    return hook


def _on_output(tap: LayerTap, layer: int) -> Callable[..., Any]:
    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        # Blocks return a tensor or, in some families, a tuple that starts with it.
        is_tuple = isinstance(output, tuple)
        changed = tap(layer, output[0] if is_tuple else output)
        if changed is None:
            return None
        return (changed, *output[1:]) if is_tuple else changed

    return hook
