"""Pictures of five moments in a real JupyterLab, light and dark, for the README and the gallery.

python docs/make_screenshots.py [--into docs/screenshots]

A page of 1280 x 800 with the file browser open, as on a laptop. Runs, seeds and settings are those of the labs. Look at
each picture before you commit it.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "browser"))
from jupyter_page import LONG, Jupyter, Lab, Notebook, launched, until

HERE = Path(__file__).parent
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
LAB = 'import cnnlab\nlab = cnnlab.Lab("question")'
CALM = 'import cnnlab\nlab = cnnlab.Lab("question", learning_rate=1e-4, epochs=60)'
ATLAS = """rates = [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
atlas = cnnlab.Atlas(learning_rate=rates, init_scale=[0.3, 0.5, 0.7, 0.9, 1.1, 1.3])"""
PLAYED = 40
"""The first update at which playing may be shown."""
STOPPED = 6
"""The update at which Play stops by itself."""
CELL = (4, 3)
"""The cell of the map whose run is opened: at a learning rate of 1e-3 and the question's scale."""
COLOURS = 256
SETTLED = 700
"""Milliseconds for plotly to draw and for hints and scroll bars to go."""


class Laptop(Notebook):
    """A notebook beside JupyterLab's file browser."""

    def open(self, page: object = None) -> None:
        """Open the notebook, and the file browser that tests close."""
        super().open(page)
        self.page.keyboard.press("Control+b")
        self.page.locator("#jp-left-stack").wait_for(state="visible")


def main() -> None:
    """Make all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=HERE / "screenshots", help="the folder for the pictures")
    folder = parser.parse_args().into
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = launched(playwright)
        for name, theme in THEMES.items():
            with tempfile.TemporaryDirectory() as home:
                jupyter = Jupyter(Path(home))
                try:
                    show_moments(jupyter, browser, theme, folder, name)
                finally:
                    jupyter.close()
        browser.close()


def show_moments(jupyter: Jupyter, browser: Browser, theme: str, folder: Path, name: str) -> None:
    """The five moments in a theme, each as a picture."""
    notebook = Laptop(jupyter, browser, "lab.ipynb", [LAB, ATLAS])
    change = "theme => window.jupyterapp.commands.execute('apputils:change-theme', { theme }).then(() => null)"
    notebook.page.evaluate(change, theme)
    lab = notebook.lab()
    until(lambda: "Forecast" in lab.line.inner_text(), "the forecast", 60)
    lab.wait_until_drawn()
    take(notebook, folder / f"start-{name}.png")
    lab.press("Play")
    lab.wait_for_update(STOPPED)
    lab.wait_until_paused()
    lab.wait_until_drawn()
    take(notebook, folder / f"exploded-{name}.png")
    ask_why(lab)
    take(notebook, folder / f"why-{name}.png")
    lab = notebook.lab(CALM)
    lab.press("Play")
    lab.wait_for_update(PLAYED)
    take(notebook, folder / f"playing-{name}.png", settled=0)
    lab.press("Pause")
    fill_atlas(notebook)
    take(notebook, folder / f"atlas-{name}.png")
    assert notebook.errors == []
    notebook.page.close()
    notebook.close()


def ask_why(lab: Lab) -> None:
    """Press Why?, and wait for the answer and the remedies that are tried."""
    lab.area.get_by_role("button", name="Find out why, and try remedies on copies of the run").click()
    lab.area.locator(".cnnlab-card").first.wait_for(timeout=LONG)


def fill_atlas(notebook: Notebook) -> None:
    """Compute a map and open a run of it; the map's cell is at the top of the page."""
    notebook.run(1)
    output = notebook.output(1)
    output.locator(".js-plotly-plot").first.wait_for(timeout=LONG)
    output.get_by_role("button", name="Start", exact=True).click()
    until(lambda: notebook.value("atlas.survey.done == atlas.survey.total and not atlas.computing"), "the map", 600)
    notebook.do(f"atlas.open{CELL}")
    below = Lab(notebook, 1)
    below.line.wait_for(timeout=LONG)
    until(lambda: notebook.value("len(atlas.lab.record) == 20 and not atlas.lab.worker.training"), "the run below")
    below.wait_for_update(20)
    below.wait_until_paused()
    notebook.cell(1).evaluate("cell => cell.scrollIntoView({block: 'start'})")


def take(notebook: Notebook, path: Path, settled: int = SETTLED) -> None:
    """Keep a picture of the page, with a palette: a third of the bytes."""
    notebook.page.mouse.move(5, 5)
    notebook.page.evaluate("() => document.activeElement.blur()")
    notebook.page.wait_for_timeout(settled)
    picture = Image.open(io.BytesIO(notebook.page.screenshot())).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(path.name, path.stat().st_size, flush=True)


if __name__ == "__main__":
    main()
