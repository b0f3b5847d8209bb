"""Records made by hand, for tests that need numbers which no training gives."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

import cnnlab
from cnnlab.plots.dashboard import draw_dashboard, refresh_dashboard
from cnnlab.records.frame import GAUGES, LAYER_GAUGES, NOT_MEASURED
from cnnlab.records.histograms import EXPONENTS
from cnnlab.records.log import Log
from cnnlab.records.record import Record

LAYERS = ("first", "second", "last")


def record_of(
    cost: object,
    *,
    layers: tuple[str, ...] = LAYERS,
    precision: str = "float32",
    updates_per_epoch: int = 1,
    lost: tuple[int, ...] = (),
    lost_weights: int = 3,
    weights: int = 10,
    settings: Mapping[str, object] | None = None,
    **gauges: object,
) -> Record:
    """A record with these costs; other gauges by name, (updates + 1,) or (updates + 1, layers), else 1.

    There is no loss scale, and no penalty in the cost. `settings` are changes of the question's. `weights` of
    each layer are finite; `lost`: the places of the layers that end with `lost_weights` that are NaN.
    """
    costs = np.asarray(cost, dtype=float)
    start = cnnlab.settings("question", precision=precision, **(settings or {}))
    log = Log(start, layers, ("first.weight[0,0]",), updates_per_epoch)
    rows = len(costs) + 1
    columns = {name: np.ones(rows) for name in GAUGES} | {name: np.ones((rows, len(layers))) for name in LAYER_GAUGES}
    columns |= {name: np.zeros((rows, len(layers))) for name in LAYER_GAUGES if name.endswith(("_nan", "_inf"))}
    columns |= {name: np.full(rows, NOT_MEASURED) for name in ("scale", "skipped")} | {"penalty": np.zeros(rows)}
    columns["cost"] = columns["data_cost"] = np.append(np.nan, costs)
    columns |= {name: np.broadcast_to(value, columns[name].shape) for name, value in gauges.items()}
    table = np.column_stack([columns[name] for name in (*GAUGES, *LAYER_GAUGES)] + [np.ones(rows)])
    histograms = np.zeros((rows, len(layers), EXPONENTS[precision].count), dtype=np.int32)
    histograms[:, :, EXPONENTS[precision].bias - 2] = weights
    histograms[-1, list(lost), -1] = lost_weights
    log.append(table, histograms)
    return log.record()


def drawn(record: Record, ghosts: tuple[Record, ...] = (), goal: int = 20) -> dict[str, go.Scatter]:
    """The traces of a record's dashboard, by name."""
    figure = draw_dashboard(record, goal)
    refresh_dashboard(figure, record, ghosts, goal)
    return {trace.name: trace for trace in figure.data}


def unpack_film(page: str) -> dict:
    """The film that a page of `cnnlab.export_html` holds."""
    (packed,) = re.findall(r'<script type="text/plain" id="run">([^<]*)</script>', page)
    return json.loads(gzip.decompress(base64.b64decode(packed)))
