"""A real JupyterLab in a directory of its own, and notebooks open in headless chromium, for tests and benchmarks."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # where they are missing, the tests are collected all the same, and skipped with a reason
    from jupyter_client import BlockingKernelClient
    from playwright.sync_api import Browser, ConsoleMessage, Error, Locator, Page, Playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LONG = 60_000
"""Milliseconds to wait for what takes long: a kernel that starts, torch imported, a first figure."""
NOT_MADE, PATIENCE = "[anywidget] Failed to initialize model.", 2.0
"""What anywidget says so many seconds after it began to make a model, also of one that was closed meanwhile."""
NO_NEWS = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}


def chromium() -> str | None:
    """The path of a browser of the chromium family; None without one."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def launched(playwright: Playwright) -> Browser:
    """Headless chromium without its sandbox, which a container's root may not have."""
    return playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])


def until(condition: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """What the condition gives once it is true; AssertionError that says what was waited for if it never is."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {seconds} s in vain: {what}"
        time.sleep(0.05)
    return found


class Jupyter:
    """A JupyterLab server whose every file lies in one directory."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.root = home / "root"
        self.runtime = home / "runtime"
        self.token = secrets.token_hex(16)
        self.root.mkdir()
        news = home / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
        news.parent.mkdir(parents=True)
        news.write_text(json.dumps(NO_NEWS))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        places = {
            "JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces", "IPYTHONDIR": "ipython",
        }  # fmt: skip
        environment = {**os.environ, **{name: str(home / place) for name, place in places.items()}}
        self.log = (home / "log").open("w")
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}",
                "--ServerApp.port_retries=0", "--ServerApp.allow_root=True", f"--ServerApp.root_dir={self.root}",
                "--LabApp.expose_app_in_browser=True",
            ],
            env={**environment, "JUPYTER_TOKEN": self.token}, stdout=self.log, stderr=self.log,
        )  # fmt: skip
        until(self.answers, "JupyterLab to answer", 60)

    def answers(self) -> bool:
        """Whether the server is up; AssertionError with its log if it ended."""
        assert self.process.poll() is None, (self.home / "log").read_text()
        try:
            return bool(self.request("GET", "/api"))
        except OSError:
            return False

    def request(self, method: str, path: str) -> Any:
        """The JSON that the server answers to a request; None if it has nothing to say."""
        request = urllib.request.Request(
            self.url + path, method=method, headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def kernel_of(self, name: str) -> str | None:
        """The id of the kernel that runs a notebook; None before there is one."""
        sessions = self.request("GET", "/api/sessions")
        return next((session["kernel"]["id"] for session in sessions if session["path"] == name), None)

    def end_kernel(self, name: str) -> None:
        """End the kernel of a notebook, unless the server itself has ended."""
        with contextlib.suppress(OSError):
            for session in self.request("GET", "/api/sessions"):
                if session["path"] == name:
                    self.request("DELETE", f"/api/sessions/{session['id']}")

    def close(self) -> None:
        """End the server, and with it every kernel."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


class Notebook:
    """A notebook open alone in a page, with the left sidebar closed, and a second line to its kernel.

    It takes a page from `idle`, if there is one, and gives it back when it is closed: JupyterLab takes seconds to load.
    """

    def __init__(
        self,
        jupyter: Jupyter,
        browser: Browser,
        name: str,
        cells: list[str],
        size: tuple[int, int] = (1280, 800),
        idle: list[Page] | None = None,
    ) -> None:
        # A name of its own: the kernel of an earlier notebook of this name may still be about to end.
        self.name = name if name.endswith(".ipynb") else f"{name}-{secrets.token_hex(4)}.ipynb"
        self.jupyter, self.browser, self.size, self.idle = jupyter, browser, size, idle
        (jupyter.root / self.name).write_text(json.dumps(notebook_of(cells)))
        self.errors: list[str] = []
        self.ran: float | None = None
        """When the first cell was run."""
        self.client: BlockingKernelClient | None = None
        self.open(idle.pop() if idle else None)

    def open(self, page: Page | None = None) -> None:
        """Open the notebook in a page, a new one if none is given, and wait until its kernel is idle."""
        width, height = self.size
        self.page: Page = page or self.browser.new_page()
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.on("pageerror", self.note_error)
        self.page.on("console", self.note_message)
        if page is None:
            self.page.set_default_timeout(20_000)
            # A workspace of its own: JupyterLab would open what another page had open, too.
            workspace = f"/lab/workspaces/{secrets.token_hex(4)}/tree/{self.name}"
            self.page.goto(f"{self.jupyter.url}{workspace}?token={self.jupyter.token}")
            restored = "window.jupyterapp && window.jupyterapp.restored.then(() => true)"
            self.page.wait_for_function(restored, timeout=LONG)
        else:
            command = "path => window.jupyterapp.commands.execute('docmanager:open', { path }).then(() => null)"
            self.page.evaluate(command, self.name)
        self.page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=LONG)
        self.wait_until_idle()
        sidebar = self.page.locator("#jp-left-stack")
        if sidebar.is_visible():
            self.page.keyboard.press("Control+b")
            sidebar.wait_for(state="hidden")

    def note_error(self, error: Error | str) -> None:
        """Keep an error of the page's scripts, but for that of a model of the notebook before in this page."""
        is_early = self.ran is None or time.monotonic() - self.ran < PATIENCE
        if not (is_early and NOT_MADE in str(error)):
            self.errors.append(str(error))

    def note_message(self, message: ConsoleMessage) -> None:
        """Keep an error that the page has written to its console."""
        if message.type == "error":
            self.note_error(message.text)

    def wait_until_idle(self) -> None:
        """Wait until JupyterLab is connected to the kernel, and the kernel is idle."""
        self.page.wait_for_function(
            """() => {
                const context = window.jupyterapp.shell.currentWidget?.sessionContext;
                return context?.isReady && context.session?.kernel?.status === "idle";
            }""",
            timeout=LONG,
        )

    def cell(self, index: int = 0) -> Locator:
        """A cell of the notebook."""
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(index)

    def output(self, index: int = 0) -> Locator:
        """What a cell shows: buttons are looked for here only, for JupyterLab has buttons of its own."""
        return self.cell(index).locator(".jp-Cell-outputArea")

    def write(self, source: str, index: int = 0) -> None:
        """Put other text into a cell."""
        self.edit(index)
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(source)

    def edit(self, index: int) -> None:
        """Put the cursor into a cell."""
        editor = self.cell(index).locator(".cm-content")
        editor.scroll_into_view_if_needed()
        editor.click(position={"x": 5, "y": 5})

    def run(self, index: int = 0) -> None:
        """Run a cell, and wait until it is done."""
        self.ran = self.ran or time.monotonic()
        self.edit(index)
        self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-cell').then(() => null)")

    def lab(self, source: str | None = None, index: int = 0) -> Lab:
        """Run a cell that makes a lab, and wait until its figure is there."""
        if source is not None:
            self.write(source, index)
        self.run(index)
        lab = Lab(self, index)
        lab.wait_for_figure()
        return lab

    def value(self, expression: str) -> Any:
        """What an expression is in the kernel now, asked beside the page: numbers, text and what is made of them."""
        return ast.literal_eval(self.ask("", expression))

    def do(self, code: str) -> None:
        """Have the kernel do something, beside the page."""
        self.ask(code, "None")

    def begin(self, code: str) -> None:
        """Have the kernel begin something, without waiting until it is done."""
        self.connected().execute(code, store_history=False, allow_stdin=False)

    def ask(self, code: str, expression: str) -> str:
        """The repr of an expression after some code has run; AssertionError with the kernel's words if either fails."""
        client = self.connected()
        reply = client.execute(
            code, user_expressions={"it": expression}, store_history=False, reply=True, timeout=60, allow_stdin=False
        )["content"]
        assert reply["status"] == "ok", f"{code}\n{reply.get('ename')}: {reply.get('evalue')}"
        found = reply["user_expressions"]["it"]
        assert found["status"] == "ok", f"{expression}\n{found.get('ename')}: {found.get('evalue')}"
        return found["data"]["text/plain"]

    def connected(self) -> BlockingKernelClient:
        """The second line to the kernel."""
        from jupyter_client import BlockingKernelClient

        if self.client is None:
            client = BlockingKernelClient(connection_file=str(self.jupyter.runtime / f"kernel-{self.kernel}.json"))
            client.load_connection_file()
            client.start_channels()
            # Not wait_for_ready: it waits for a fifth of a second without a message; a lab that plays gives none.
            client.kernel_info(reply=True, timeout=60)
            self.client = client
        return self.client

    @property
    def kernel(self) -> str:
        """The id of the kernel."""
        return until(lambda: self.jupyter.kernel_of(self.name), "a kernel", 60)

    def interrupt(self) -> None:
        """Interrupt the kernel, as JupyterLab's stop button does."""
        self.jupyter.request("POST", f"/api/kernels/{self.kernel}/interrupt")

    def restart(self) -> None:
        """Restart the kernel, as JupyterLab's button does, which asks once more."""
        self.disconnect()
        toolbar = self.page.locator(".jp-NotebookPanel-toolbar")
        toolbar.locator("[data-jp-item-name='restart'] jp-button, [data-jp-item-name='restart'] button").first.click()
        self.page.locator(".jp-Dialog").locator(".jp-mod-accept").click()
        self.page.locator(".jp-Dialog").wait_for(state="detached")
        self.wait_until_idle()

    def save(self) -> None:
        """Save the notebook with its outputs, and wait until it is on the disk."""
        self.page.keyboard.press("Control+s")
        until(self.is_saved, "the notebook to be saved")

    def is_saved(self) -> bool:
        """Whether the file on the disk, which may be half written just now, holds outputs."""
        try:
            saved = json.loads((self.jupyter.root / self.name).read_text())
        except json.JSONDecodeError:
            return False
        return any(cell["outputs"] for cell in saved["cells"])

    def disconnect(self) -> None:
        """Hang up the second line."""
        if self.client is not None:
            self.client.stop_channels()
            self.client = None

    def close(self) -> None:
        """Close the notebook, give its page back, and end the kernel."""
        self.disconnect()
        if not self.page.is_closed():
            self.leave_page()
        Thread(target=self.jupyter.end_kernel, args=(self.name,), daemon=True).start()  # takes a second

    def leave_page(self) -> None:
        """Close all that is open in the page, for the next notebook; close the page if nobody waits for it."""
        self.page.remove_listener("pageerror", self.note_error)
        self.page.remove_listener("console", self.note_message)
        if self.idle is None or self.page.locator(".jp-Dialog").count():
            self.page.close()
            return
        self.page.evaluate("() => [...window.jupyterapp.shell.widgets('main')].forEach((widget) => widget.dispose())")
        self.idle.append(self.page)


class Lab:
    """A dashboard on the screen."""

    def __init__(self, notebook: Notebook, index: int) -> None:
        self.notebook, self.page = notebook, notebook.page
        self.area = notebook.output(index)
        self.box = self.area.locator(".cnnlab-lab")
        self.line = self.area.locator(".cnnlab-line")
        self.counter = self.area.locator(".cnnlab-transport .cnnlab-counter").first
        self.rate = self.area.locator(".cnnlab-rate")
        self.figure = self.area.locator(".js-plotly-plot")
        self.alerts = self.area.get_by_role("alert")

    def wait_for_figure(self) -> None:
        """Wait until the plots hold data."""
        self.figure.wait_for(timeout=LONG)
        until(lambda: self.figure.evaluate("graph => !!graph._fullLayout && graph.data.length > 0"), "a figure")
        self.line.scroll_into_view_if_needed()

    def press(self, name: str) -> None:
        """Press a button of the dashboard."""
        self.area.get_by_role("button", name=name, exact=True).click()

    def unfold(self) -> Lab:
        """Open what is folded: the controls that start again, the user's image, the branches."""
        for summary in self.area.locator("details:not([open]) > summary").all()[::-1]:
            summary.click()
        return self

    def slider(self, name: str) -> Locator:
        """A slider by its label."""
        return self.area.get_by_role("slider", name=name, exact=True)

    def textbox(self, name: str) -> Locator:
        """The box beside a slider, by the slider's label."""
        return self.area.get_by_role("textbox", name=f"{name}, value", exact=True)

    def choice(self, name: str) -> Locator:
        """A choice by its label."""
        return self.area.get_by_role("combobox", name=name, exact=True)

    def trace(self, name: str) -> dict[str, list[Any]]:
        """The x and y of a trace as plotly draws them when no more frames follow, NaN as None."""
        found = """(graph, name) => {
            if (graph.closest(".cnnlab-moving")) return null; // the points are on the canvases
            const numbers = (values) => Array.from(values ?? [], (value) => Number.isFinite(value) ? value : null);
            const found = graph.data.find((trace) => trace.name === name);
            return {x: numbers(found.x), y: numbers(found.y)};
        }"""
        return until(lambda: self.figure.evaluate(found, name), "plotly to draw the points")

    def wait_until_drawn(self) -> None:
        """Wait until plotly has drawn the points, a moment after the last frame."""
        until(lambda: self.area.locator(".cnnlab-moving").count() == 0, "plotly to draw the points")

    def axis(self, name: str) -> list[float]:
        """The range of an axis as the browser shows it."""
        return self.figure.evaluate("(graph, name) => graph._fullLayout[name].range.map(Number)", name)

    def update(self) -> int:
        """The update that the counter shows."""
        return int(self.counter.inner_text().split("update ")[1].split(" of ")[0])

    def wait_for_update(self, update: int) -> None:
        """Wait until the counter shows an update, or a later one."""
        until(lambda: self.update() >= update, f"update {update}")

    def wait_until_paused(self) -> None:
        """Wait until the dashboard says that it is paused."""
        self.page.wait_for_function("rate => rate.textContent === 'paused'", arg=self.rate.element_handle())

    def screenshot(self, name: str) -> None:
        """Keep a picture of the page, where CNNLAB_SCREENSHOTS names a directory."""
        if directory := os.environ.get("CNNLAB_SCREENSHOTS"):
            Path(directory).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=Path(directory) / f"{name}.png")


def notebook_of(cells: list[str]) -> dict[str, Any]:
    """A notebook file's content with these code cells."""
    made = [
        {"cell_type": "code", "id": f"cell-{place}", "metadata": {}, "execution_count": None, "outputs": [],
         "source": source}
        for place, source in enumerate(cells)
    ]  # fmt: skip
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": made, "metadata": {"kernelspec": python}, "nbformat": 4, "nbformat_minor": 5}
