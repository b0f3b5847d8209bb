"""When Play stops by itself: two updates after the cost or a weight is NaN or inf. Knows no threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

AFTER = 2
"""Updates that Play makes after the first one that is broken: enough to see it in every plot."""


class Breakable(Protocol):
    """What may break: a Run."""

    @property
    def updates(self) -> int: ...  # noqa: D102
    @property
    def broken(self) -> bool: ...  # noqa: D102


@dataclass
class NanStop:
    """The switch, and what it knows of the updates that Play makes now."""

    wanted: bool = True
    """Whether Play stops after a NaN at all."""
    watching: bool = False
    """Whether the updates that are made now are stopped; those that were asked for by number never are."""
    broken_at: int | None = None
    """The first of them after which the run was broken."""
    stopped: bool = False
    """Whether the last Play was stopped."""

    def begin(self, run: Breakable, playing: bool) -> None:
        """Watch a run from here on, if it is played; but one that was trained into a NaN is played on to its end."""
        self.watching = playing and self.wanted and not has_broken(run)
        self.broken_at, self.stopped = None, False

    def choose(self, wanted: bool, run: Breakable, playing: bool) -> None:
        """Turn the switch; it is in force at once."""
        self.wanted = wanted
        self.watching = playing and wanted and (self.watching or not has_broken(run))

    def is_due(self, run: Breakable) -> bool:
        """Whether the update just made is the last one."""
        if self.watching and self.broken_at is None and run.broken:
            self.broken_at = run.updates
        self.stopped = self.broken_at is not None and self.watching and run.updates >= self.broken_at + AFTER
        return self.stopped


def has_broken(run: Breakable) -> bool:
    """Whether the run's last update was broken."""
    return run.updates > 0 and run.broken
