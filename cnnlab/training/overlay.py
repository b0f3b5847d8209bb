"""Something of ours laid over what others may replace, too: a function of torch, the handler of Ctrl-C.

Both are for what is right, not for speed: without the first a watch does not know of the backward passes of an update,
and without the second an interrupt ends a watched loop in the middle of one.
"""

from __future__ import annotations

import functools
import signal
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

LOCK = threading.RLock()
"""Held while overlays come and go: watches may be entered and left in several threads."""


class Overlay:
    """A block within which `around` is called in place of a function of a module or class, with that and its arguments.

    Left, it puts back what it lay on if it is still on top. If something else has been laid over it, that stays, and
    this one passes every call on from then on. So whatever the order in which several are left, what was there first
    comes back, and what another has put there is not touched.
    """

    def __init__(self, holder: ModuleType | type, name: str, around: Callable[..., Any]) -> None:
        self.holder = holder
        self.name = name
        self.around = around
        self.active = False

    def __enter__(self) -> Overlay:
        with LOCK:
            self.below = uncovered(self.get())
            self.top = self.wrap_below()
            self.active = True
            self.put(self.top)
        return self

    def __exit__(self, *error: object) -> None:
        with LOCK:
            self.active = False
            if self.get() is self.top:
                self.put(uncovered(self.below))

    def get(self) -> Any:
        """What is there now."""
        return getattr(self.holder, self.name)

    def put(self, value: Any) -> None:
        """Have something be there."""
        setattr(self.holder, self.name, value)

    def wrap_below(self) -> Any:
        """The function that is laid on top; it knows its overlay."""

        @functools.wraps(self.below)
        def top(*arguments: Any, **keywords: Any) -> Any:
            if not self.active:
                return self.call_below(*arguments, **keywords)
            return self.around(self.below, *arguments, **keywords)

        top.overlay = self  # type: ignore[attr-defined]
        return top

    def call_below(self, *arguments: Any, **keywords: Any) -> Any:
        """Do what would be done without this."""
        return self.below(*arguments, **keywords)


class InterruptOverlay(Overlay):
    """The same over the handler of SIGINT, which only the main thread may replace."""

    def __init__(self, around: Callable[..., Any]) -> None:
        super().__init__(signal, "SIGINT", around)

    def get(self) -> Any:
        """The handler that is there now."""
        return signal.getsignal(signal.SIGINT)

    def put(self, value: Any) -> None:
        """Have another handler; in another thread than the main one the lifted handler stays, and passes calls on."""
        if receives_interrupts():
            signal.signal(signal.SIGINT, value)

    def call_below(self, *arguments: Any, **keywords: Any) -> Any:
        """Call the handler below; where that is the system's own, have the system act."""
        if callable(self.below):
            return self.below(*arguments, **keywords)
        signal.signal(signal.SIGINT, self.below)
        signal.raise_signal(signal.SIGINT)
        return None


def uncovered(value: Any) -> Any:
    """What lies below all overlays that have ended."""
    overlay = getattr(value, "overlay", None)
    # A function made with functools.wraps has the attributes of what it wraps, and is another all the same.
    while isinstance(overlay, Overlay) and overlay.top is value and not overlay.active:
        value = overlay.below
        overlay = getattr(value, "overlay", None)
    return value


def receives_interrupts() -> bool:
    """Whether this is the thread that hears of interrupts."""
    return threading.current_thread() is threading.main_thread()


def handles_interrupts() -> bool:
    """Whether to listen to Ctrl-C from here: not where its handler is none that Python can put back."""
    return receives_interrupts() and signal.getsignal(signal.SIGINT) is not None


def exclude_from_compiling(call: Callable[..., Any]) -> Callable[..., Any]:
    """A function that runs as it is within a compiled step, too, if what compiles is there already."""
    return torch.compiler.disable(call) if "torch._dynamo" in sys.modules else call
