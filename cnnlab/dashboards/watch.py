"""The public `cnnlab.watch`: a watch around a loop of one's own, with the dashboard beside it."""

from __future__ import annotations

import contextvars
import threading
from typing import Any

from torch import nn

from cnnlab.dashboards.shell import in_notebook, remember_cell
from cnnlab.diagnosis.watch import Watch


def watch(model: nn.Module, optimizer: Any, *, show: bool | None = None, **options: Any) -> Watch:
    """Watch a training loop of your own: `with cnnlab.watch(model, optimizer) as watch:` around it, and nothing within.

    `optimizer` is any torch.optim one, or a list of them. `scaler`: the GradScaler of mixed precision, so that the cost
    is known without its scale, which `record.scale` holds. `stop_before_nan=True` ends the block before a NaN or inf
    gets into the weights, which stay the last good ones, and at a cost that is NaN; `watch.pause()`, or one interrupt,
    ends it before the next update. `watch` names single weights to follow. `show` draws a dashboard beside the loop; by
    default in a notebook only. Afterwards `watch.record` holds all of it, and `cnnlab.autopsy(watch.record)` says why.
    A cost whose backward pass is not seen is not measured: `watch.step(loss)` tells it.

    Every gauge is measured at every update. `budget=0.05` leaves out gauges where updates are short: to measure them
    then takes at most that share of the loop's time, beside the 0.1 to 0.2 ms that each update needs for its cost, a
    look for NaN, and what the place of the first one is found from. No NaN is missed: the update that breaks is
    measured whatever it takes, and so are those whose cost leaps, and the last one. `record.is_measured(gauge)` tells
    which were.

    `curvature=50` measures, at the start and after every 50 updates, how far the learning rate is from the edge, with
    torch's SGD, RMSprop, Adam or AdamW: `print(watch.critical)`, and the curve in the dashboard. It goes backward some
    dozen times through the graph of the cost that is sent backward first, which it leaves as it is; see
    `cnnlab.critical_learning_rate`.

    The block is ended by `cnnlab.diagnosis.watch.Stopped`, which an `except Exception` in the loop does not catch; to a
    loop that catches even that it comes again at each step, so that no weight changes any more. TypeError if model,
    optimizer, scaler or budget is something else, or curvature is asked of another optimizer; ValueError for a model
    without trainable parameters, a budget beyond (0, 1] and a curvature below 1.
    """
    shown, cell = in_notebook() if show is None else show, remember_cell()
    return Watch(model, optimizer, show=shown, dashboard=lambda made: open_dashboard(made, cell), **options)


def open_dashboard(watch: Watch, cell: contextvars.Context) -> Any:
    """The dashboard of a watch: in the cell that runs now, or, from a thread, in the one that is remembered."""
    from cnnlab.dashboards.watch_dashboard import WatchLab  # not above: plots and widgets are needed only now

    is_cell = threading.current_thread() is threading.main_thread()
    return WatchLab(watch) if is_cell else cell.run(WatchLab, watch)
