"""The backward passes that come to some parameters, as long as they are listened to."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from cnnlab.training import passes
from cnnlab.training.forward_hooks import pause_hooks
from cnnlab.training.gradients import gradients, have_changed, holds_gradient
from cnnlab.training.overlay import Overlay, exclude_from_compiling

UNHEARD: list[int] = []
"""Threads whose backward passes are nobody's affair, as often as they are within `listen_to_nothing`."""


@contextlib.contextmanager
def listen_to_nothing() -> Iterator[None]:
    """A block whose forward and backward passes no watch takes note of, for what is measured beside a loop."""
    thread = threading.get_ident()
    UNHEARD.append(thread)
    try:
        with pause_hooks():
            yield
    finally:
        UNHEARD.remove(thread)


def is_unheard() -> bool:
    """Whether what this thread computes is beside the loop that it runs."""
    return bool(UNHEARD) and threading.get_ident() in UNHEARD


class PassListener:
    """A block within which note is taken of each backward pass that comes to some parameters."""

    def __init__(self, parameters: Sequence[Tensor], scaler: Any, on_pass: Callable[[Sequence[Any]], object]) -> None:
        self.parameters = sorted(parameters, key=Tensor.numel)  # so that a look for one that is not 0 is short
        self.ids = frozenset(map(id, parameters))
        self.scaler = scaler
        self.on_pass = on_pass
        self.within: set[int] = set()
        self.skipped = 0
        self.forget()

    def forget(self) -> None:
        """Know of no pass."""
        self.passes: list[passes.Noted] = []
        self.has_heard = False
        self.added_to: frozenset[int] = frozenset()
        self.scale = 1.0

    @contextlib.contextmanager
    def patch_backward(self) -> Iterator[None]:
        """Have torch's backward and grad tell of each pass; put back what was there at the end.

        A hook on a parameter is not enough: it is called in the middle of a pass, and does not tell what was asked for.
        """
        with (
            BackwardOverlay(torch.autograd, "backward", self.wrap_backward),
            Overlay(torch.autograd, "grad", self.wrap_grad),
        ):
            yield

    def wrap_backward(self, below: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """torch.autograd.backward, of which note is taken."""
        return self.around(passes.of_backward, below, arguments, keywords)

    def wrap_grad(self, below: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """torch.autograd.grad, of which note is taken."""
        return self.around(passes.of_grad, below, arguments, keywords)

    def around(self, kind: Callable[..., passes.Pass], below: Callable[..., Any], arguments: Any, keywords: Any) -> Any:
        """A backward pass, of which note is taken if it comes to one of the parameters."""
        if torch.compiler.is_compiling() or passes.is_within_another():
            return below(*arguments, **keywords)
        thread = threading.get_ident()
        if (
            thread in UNHEARD or thread in self.within
        ):  # what listens to functions of torch has called this one by its name again
            return below(*arguments, **keywords)
        arguments = [passes.lasting(value) for value in arguments]
        keywords = {name: passes.lasting(value) for name, value in keywords.items()}
        try:
            coming = kind(*arguments, **keywords)
            comes = coming.find_out_if_reaches(self.ids)
        except (TypeError, ValueError, AttributeError):  # torch itself says what is wrong with them
            return below(*arguments, **keywords)
        if comes is False:
            return below(*arguments, **keywords)
        noted = coming.noted(self.present_scale())
        make = functools.partial(below, *arguments, **keywords)
        self.within.add(thread)
        try:
            record = self.record_first if comes else self.record_afterwards
            return record(noted, coming.roots, make)
        finally:
            self.within.discard(thread)

    def record_first(self, noted: passes.Noted, roots: Sequence[Any], make: Callable[[], Any]) -> Any:
        """A pass that comes to the parameters; within it an optimiser may step."""
        self.hear(noted, roots)
        try:
            return make()
        except BaseException:
            self.passes = [each for each in self.passes if each is not noted]
            raise

    def record_afterwards(self, noted: passes.Noted, roots: Sequence[Any], make: Callable[[], Any]) -> Any:
        """A pass that may come to them by a function written in Python, such as a checkpoint: their gradients tell."""
        written = gradients(self.parameters)
        result = make()
        if have_changed(self.parameters, written):
            self.hear(noted, roots)
        return result

    def hear(self, noted: passes.Noted, roots: Sequence[Any]) -> None:
        """Take note of a pass; those before it count no more if their gradient has been set to 0 since.

        The first one after an update adds to the gradients of that update that it finds there.
        """
        if noted.accumulates:
            if self.passes and not any(map(holds_gradient, self.parameters)):
                self.passes = []
            if not self.passes and self.has_heard:
                self.added_to = frozenset(id(each) for each in self.parameters if holds_gradient(each))
        self.passes.append(noted)
        self.has_heard = True
        self.on_pass(roots)

    @property
    def scales(self) -> bool:
        """Whether gradients have the scale of mixed precision until it is taken off.

        torch's scaler makes its scale when it is first asked to multiply a cost by it.
        """
        used = getattr(self.scaler, "_scale", self.scaler) is not None
        return used and bool(self.scaler.is_enabled())

    def present_scale(self) -> float:
        """The scale of mixed precision; what it has left out is dropped."""
        if not self.scales:
            return 1.0
        self.drop_skipped()
        self.scale = float(self.scaler.get_scale())
        return self.scale

    def drop_skipped(self) -> bool:
        """Drop the passes since the last update if the scale fell since: they had an inf, and were left out."""
        if not self.passes or not self.scales or float(self.scaler.get_scale()) >= self.scale:
            return False
        self.skipped += 1
        self.passes = []
        return True


class BackwardOverlay(Overlay):
    """An overlay that is not compiled together with the step that calls it."""

    def wrap_below(self) -> Any:
        """The function that is laid on top."""
        plain = super().wrap_below()
        excluded = exclude_from_compiling(plain)
        if excluded is plain:
            return plain

        @functools.wraps(plain)  # which knows the overlay, too
        def top(*arguments: Any, **keywords: Any) -> Any:
            return (excluded if torch.compiler.is_compiling() else plain)(*arguments, **keywords)

        return top
