"""Forward hooks that no module carries: torch's global ones, which ask whether the module is one that is watched.

So a watched module can be copied, pickled, scripted and traced, and no copy of it is watched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.jit._trace import is_tracing
from torch.nn.modules import module as modules

from cnnlab.training.overlay import LOCK, Overlay

Hook = Callable[..., None]
Hooks = Sequence[tuple[nn.Module, Hook]]
"""Modules, and what is called for each, with the arguments of torch's hooks."""
ATTACHED: list[tuple[Hooks, Hooks]] = []
"""What is called before and after forward passes, one pair a watch."""
BEFORE: dict[int, list[tuple[nn.Module, Hook]]] = {}
"""The id of a module -> the module, so that no other takes its id, and a hook of it."""
AFTER: dict[int, list[tuple[nn.Module, Hook]]] = {}
HANDLES: list[Any] = []
"""torch's handles of our two hooks, while they are registered."""
PAUSES: list[None] = []
"""One entry for each call during which torch is to have no hooks of ours."""


def before_forward(module: nn.Module, inputs: Any) -> None:
    """Call the hooks of a watched module before its forward pass; nothing while torch compiles or traces."""
    if torch.compiler.is_compiling():
        return
    found = BEFORE.get(id(module))
    if found is not None and not is_tracing():
        for _, hook in found:
            hook(module, inputs)


def after_forward(module: nn.Module, inputs: Any, keywords: Any, output: Any) -> None:
    """The same after it; a hook that says that it `takes_keywords` is given these last."""
    if torch.compiler.is_compiling():
        return
    found = AFTER.get(id(module))
    if found is not None and not is_tracing():
        for _, hook in found:
            if getattr(hook, "takes_keywords", False):
                hook(module, inputs, output, keywords)
            else:
                hook(module, inputs, output)


@contextlib.contextmanager
def call_hooks(before: Hooks, after: Hooks) -> Iterator[None]:
    """Call hooks before and after the forward passes of modules.

    Meanwhile torch does without global hooks as it would without ours: `torch.export.export(strict=True)` refuses them,
    a trace compares with forward passes that are not the loop's, a compiled module warns of them.
    """
    pair = (before, after)
    with contextlib.ExitStack() as stack:
        stack.enter_context(Overlay(torch.export, "export", call_without_hooks))
        stack.enter_context(Overlay(torch.jit, "trace", call_without_hooks))
        if hasattr(modules, "_has_any_global_hook"):
            stack.enter_context(Overlay(modules, "_has_any_global_hook", has_other_hooks))
        stack.callback(change, lambda: ATTACHED.remove(pair))
        change(lambda: ATTACHED.append(pair))
        yield


def call_without_hooks(below: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """Call a function while torch has no hooks of ours."""
    with pause_hooks():
        return below(*arguments, **keywords)


@contextlib.contextmanager
def pause_hooks() -> Iterator[None]:
    """A block within which torch has no hooks of ours."""
    change(lambda: PAUSES.append(None))
    try:
        yield
    finally:
        change(PAUSES.pop)


def has_other_hooks(below: Callable[..., Any]) -> bool:
    """Whether torch has global hooks of others."""
    ours = {handle.id for handle in HANDLES}
    tables = [table for name, table in vars(modules).items() if name.startswith("_global_") and name.endswith("_hooks")]
    return bool(below()) and any(set(table) - ours for table in tables)


def change(what: Callable[[], object]) -> None:
    """Change what is wanted, make the tables anew, and register the two hooks if they are wanted, else remove them."""
    with LOCK:
        what()
        for place, table in enumerate((BEFORE, AFTER)):
            found: dict[int, list[tuple[nn.Module, Hook]]] = {}
            for pair in ATTACHED:
                for module, hook in pair[place]:
                    found.setdefault(id(module), []).append((module, hook))
            table.update(found)  # not cleared before: another thread may be within a forward pass
            for gone in table.keys() - found.keys():
                del table[gone]
        wanted = bool(ATTACHED) and not PAUSES
        if wanted and not HANDLES:
            HANDLES.append(modules.register_module_forward_pre_hook(before_forward))
            HANDLES.append(modules.register_module_forward_hook(after_forward, with_kwargs=True))
        while HANDLES and not wanted:
            HANDLES.pop().remove()
