"""The shell of IPython that runs this, and the cell that what is displayed goes to. No widgets."""

from __future__ import annotations

import contextvars
from typing import Any


def get_shell() -> Any:
    """IPython's shell; None outside one."""
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    return get_ipython()  # type: ignore[no-untyped-call, unused-ignore]


def in_notebook() -> bool:
    """Whether a kernel runs this, which can show widgets."""
    return hasattr(get_shell(), "kernel")


def remember_cell() -> contextvars.Context:
    """A context in which what is displayed goes to the cell that runs now, later and in another thread too.

    What a thread displays goes else to whatever message the kernel has taken last: to another cell, or nowhere.
    """
    context, shell = contextvars.copy_context(), get_shell()
    if hasattr(shell, "set_thread_parent"):  # where this is a thread, its context knows no cell
        context.run(shell.set_thread_parent, shell.get_parent())
    return context
