"""The dashboard's figure with the lowest plotly that the project allows, and with the newest, in a page of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from jupyter_page import until
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
ALLOWED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
(PLOTLY,) = (requirement for requirement in map(Requirement, ALLOWED) if requirement.name == "plotly")
LOWEST = re.fullmatch(r">=([\d.]+)", str(PLOTLY.specifier))[1]
OUT_OF_REACH = ("No matching distribution", "Connection", "Network", "timed out", "Retrying")
"""What pip says where it reaches no index."""
FIGURE = """
import base64, json
import numpy as np
import plotly
from handmade import record_of
from cnnlab.dashboards.live_figure import LiveFigure, list_names, pack, take_apart
from cnnlab.plots.dashboard import draw_dashboard, refresh_dashboard
from cnnlab.plots.recorder import FigureRecorder, put_values

def draw(cost):
    drawn = FigureRecorder(list_names(start))
    refresh_dashboard(drawn, record_of(cost), (), 20, pictures=False)
    return drawn

def encode(value):
    return base64.b64encode(value).decode()

start = take_apart(draw_dashboard(record_of([5.0]), 20))
put_values(start, draw([5.0, 1e7]))
figure = LiveFigure(start, {"displayModeBar": False}, {}, moves=True)
state = {name: getattr(figure, name) for name in ("config", "events", "moves", "dark")}
spec = json.dumps(pack(figure.spec), default=encode)
sent = []
figure.state.send = lambda message, buffers: sent.append((message, encode(buffers[0])))
figure.take(draw([5.0, 1e7, 1e31, np.nan]))
print(json.dumps({
    "figure": state | {"state": "IPY_MODEL_state", "plotly": "IPY_MODEL_plotly"},
    "spec": json.loads(spec), "sent": sent[0],
    "script": figure._esm, "version": plotly.__version__, "code": encode(figure.plotly.code),
}, default=encode))
"""
"""A dashboard's figure after two updates, and the frame of two more, as a page gets them."""
SHOW = """async ({figure, spec, sent, script, version, code}) => {
    const decode = (text) => new DataView(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
    const restore = (value) => {
        if (Array.isArray(value)) return value.map(restore);
        if (value === null || typeof value !== "object") return value;
        if (Object.keys(value).join() === "type,bytes") return {type: value.type, bytes: decode(value.bytes)};
        return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, restore(part)]));
    };
    const heard = {}, models = {};
    const makeModel = (values) => ({
        get: (name) => values[name], on: (name, call) => { heard[name] = call; }, off: () => {}, send: () => {},
        widget_manager: {get_model: async (name) => models[name]},
    });
    const model = makeModel(figure);
    Object.assign(models, {plotly: makeModel({version, code: decode(code)}), state: makeModel({spec: restore(spec)})});
    const address = URL.createObjectURL(new Blob([script], {type: "text/javascript"}));
    const widget = (await import(address)).default();
    await widget.initialize({model});
    const el = document.createElement("div");
    el.style.setProperty("--cnnlab-paper", "#123456");
    widget.render({model, el});
    window.place = () => document.body.append(el);
    window.graph = () => el.querySelector(".js-plotly-plot");
    window.send = () => heard["msg:custom"](sent[0], [decode(sent[1])]);
}"""
COSTS = """() => {
    const graph = window.graph();
    const cost = graph?._fullLayout && graph.data.find((trace) => trace.name === "cost");
    const moving = document.querySelector(".cnnlab-moving");
    return cost && !moving && Array.from(cost.y, (value) => Number.isFinite(value) ? value : null);
}"""


def install(requirement: str, folder: Path) -> None:
    """Install a package without what it needs into a folder; the test is skipped where no index is reached."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", str(folder)]
    done = subprocess.run([*pip, requirement], capture_output=True, text=True)
    if done.returncode and any(words in done.stderr for words in OUT_OF_REACH):
        pytest.skip(f"pip reaches no index to install {requirement} from")
    assert done.returncode == 0, done.stderr


def make_figure(folder: Path) -> dict[str, object]:
    """What a page gets of a figure that is made with the plotly of a folder."""
    places = os.pathsep.join(map(str, (folder, ROOT, ROOT / "tests")))
    made = subprocess.run(
        [sys.executable, "-c", FIGURE], env={**os.environ, "PYTHONPATH": places}, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    return json.loads(made.stdout)


@pytest.mark.parametrize("requirement", [f"plotly=={LOWEST}", str(PLOTLY)], ids=["the lowest", "the newest"])
def test_a_figure_is_made_and_drawn_with_the_plotly(requirement, tmp_path, browser):
    install(requirement, tmp_path)
    figure = make_figure(tmp_path)
    (installed,) = tmp_path.glob("plotly-*.dist-info")
    assert installed.name == f"plotly-{figure['version']}.dist-info"
    page = browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.evaluate(SHOW, figure)
    until(lambda: page.evaluate("!!window.graph()?._fullLayout"), "a figure that is not on the page yet")
    page.evaluate("window.place()")
    until(lambda: page.evaluate("window.graph()._fullLayout.paper_bgcolor") == "#123456", "the colour of its place")
    until(lambda: page.evaluate(COSTS) == [5, 1e7], "two updates")
    page.evaluate("window.send()")
    until(lambda: (page.evaluate(COSTS) or [])[:3] == [5, 1e7, 1e31], "the updates of the frame")
    assert page.locator(".scatterlayer path.js-line").count() >= 3
    page.close()
    assert errors == []
