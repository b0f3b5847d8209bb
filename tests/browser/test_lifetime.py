"""A lab's life in a real JupyterLab: nothing stays when it goes, and nothing that happens around it breaks it."""

from jupyter_page import until

LEFT = (
    "len(__import__('comm').get_comm_manager().comms), "
    "len([thread for thread in __import__('threading').enumerate() if 'cnnlab' in thread.name]), "
    "len([task for task in __import__('asyncio').all_tasks(loop) if 'cnnlab' in task.get_name()]), "
    "len(cnnlab.dashboards.cell.OPEN) if hasattr(cnnlab, 'dashboards') and hasattr(cnnlab.dashboards, 'lab') else 0"
)
"""What a lab may leave behind: comms, threads, tasks, entries in the list of open labs."""
LOOP = "import asyncio\nimport cnnlab\nloop = asyncio.get_running_loop()"
LONG_LAB = 'lab = cnnlab.Lab("question", learning_rate=1e-5, epochs=100_000)'
SLOW_PLOTLY = """async () => {
    const Plotly = await Object.values(window.cnnlabPlotly)[0], { react, purge } = Plotly;
    const order = (window.cnnlabOrder = []);
    const later = (note) => new Promise((done) => setTimeout(() => done(order.push(note)), 500));
    Plotly.react = (...given) => (order.push("began"), react(...given).then(() => later("drawn")));
    Plotly.purge = (graph) => (order.push("purged"), purge(graph));
}"""
"""Has plotly take half a second longer to draw, and note what it does."""
RAISES = """
import traceback
import torch
calls = 0
class Stumbling(torch.nn.Linear):
    def forward(self, x):
        global calls
        # In an update of the run; what measures curvature and what forecasts call it, too.
        frames = traceback.extract_stack()
        calls += any(frame.name == "update" and frame.filename.endswith("run.py") for frame in frames)
        if calls == 4:
            calls += 1
            raise RuntimeError("the fourth call stumbles")
        return super().forward(x)
x = torch.linspace(-1, 1, 8)[:, None]
cost = lambda outputs, y: ((outputs - y) ** 2).mean()
lab = cnnlab.Lab(network=Stumbling(1, 1), data=(x, 2 * x), cost=cost)
"""


def test_running_the_cell_again_and_closing_leave_nothing_behind(open_notebook):
    notebook = open_notebook(LOOP, LONG_LAB, "")
    notebook.run(0)
    before = notebook.value(LEFT)
    notebook.do("labs = []")
    after = []
    for _ in range(3):
        lab = notebook.lab(index=1)
        lab.press("Play")
        lab.wait_for_update(2)
        notebook.do("labs.append(lab)")
        after.append(notebook.value(LEFT))
        assert notebook.page.locator(".cnnlab-lab").count() == 1
    assert after[0] == after[1] == after[2]
    assert after[0][1:] == (1, 1, 1)
    assert notebook.value("[lab.closed for lab in labs]") == [True, True, False]
    assert notebook.errors == []
    notebook.write("lab.close()", 2)
    notebook.run(2)
    kept = (before[0] + 1, *before[1:])  # plotly's script, for the next figure
    until(lambda: notebook.value(LEFT) == kept, "comms, threads, tasks and labs as before the first lab")
    assert notebook.value("len(lab.record) >= 2")
    notebook.page.locator(".cnnlab-lab").wait_for(state="detached")


def test_an_interrupt_while_playing_leaves_the_lab_working(open_notebook):
    notebook = open_notebook(LOOP, LONG_LAB, "import time\nprint('asleep')\ntime.sleep(60)")
    notebook.run(0)
    lab = notebook.lab(index=1)
    lab.press("Play")
    lab.wait_for_update(5)
    notebook.interrupt()
    drawn = lab.update()
    lab.wait_for_update(drawn + 10)
    notebook.edit(2)
    notebook.page.keyboard.press("Control+Enter")
    until(lambda: "asleep" in notebook.output(2).inner_text(), "the cell to run")
    notebook.interrupt()
    until(lambda: "KeyboardInterrupt" in notebook.output(2).inner_text(), "the cell to be interrupted")
    drawn = lab.update()
    lab.wait_for_update(drawn + 10)
    lab.press("Pause")
    lab.wait_until_paused()
    paused = lab.update()
    lab.press("Play")
    lab.wait_for_update(paused + 5)
    assert notebook.value(LEFT)[1:] == (1, 1, 1)


def test_a_restarted_kernel_holds_nothing_and_a_new_lab_works(open_notebook):
    notebook = open_notebook(LOOP, LONG_LAB)
    notebook.run(0)
    before = notebook.value(LEFT)
    lab = notebook.lab(index=1)
    lab.press("Play")
    lab.wait_for_update(2)
    notebook.restart()
    notebook.run(0)
    assert notebook.value(LEFT) == before
    notebook.errors.clear()
    lab = notebook.lab(index=1)
    assert lab.update() == 0
    lab.press("One update")
    lab.wait_for_update(1)
    assert notebook.page.locator(".cnnlab-lab").count() == 1
    assert notebook.errors == []


def test_closing_the_page_pauses_and_opening_it_again_shows_the_present_state(open_notebook):
    notebook = open_notebook(LOOP, LONG_LAB)
    notebook.run(0)
    lab = notebook.lab(index=1)
    notebook.do("cnnlab.dashboards.frame_publisher.GONE = cnnlab.dashboards.frame_publisher.UNWATCHED = 3")
    lab.press("Play")
    lab.wait_for_update(5)
    notebook.save()
    notebook.page.close()
    gone = notebook.value("len(lab.record)")
    until(lambda: notebook.value("not lab.worker.thread.alive"), "training to pause")
    updates, cost, rate = notebook.value("len(lab.record), lab.record.cost.tolist(), lab.settings.learning_rate")
    assert updates > gone
    said = "paused: no page has shown this lab for 3 s; Play goes on"
    notebook.do("lab.set(learning_rate=2e-5)")
    notebook.open()
    lab = type(lab)(notebook, 1)
    lab.wait_for_figure()
    assert lab.update() == updates
    assert said in notebook.output(1).inner_text()
    assert float(lab.textbox("Learning rate").input_value()) == 2 * rate
    until(lambda: max(lab.trace("cost")["x"], default=0) == updates, "the cost up to the present")
    assert lab.axis("xaxis")[1] >= updates
    assert len(lab.trace("magnitudes 0")["x"]) == len(lab.trace("magnitudes 0")["y"]) > 20
    lab.press("Step by this many updates")
    lab.wait_for_update(updates + 5)
    assert notebook.value("lab.record.cost.tolist()")[:updates] == cost


def test_an_error_in_the_worker_is_shown_and_the_record_before_it_stays(open_notebook):
    notebook = open_notebook(LOOP, RAISES)
    notebook.run(0)
    lab = notebook.lab(index=1)
    lab.press("Play")
    until(lambda: "RuntimeError: the fourth call stumbles" in "".join(lab.alerts.all_inner_texts()), "the error's text")
    lab.wait_until_paused()
    updates = lab.update()
    assert updates == 3
    assert notebook.value("len(lab.record)") == updates
    assert lab.trace("cost")["x"] == [1, 2, 3]
    lab.screenshot("error")
    lab.press("Play")
    lab.wait_for_update(updates + 3)
    assert not any(lab.alerts.all_inner_texts())


def test_a_lab_that_nobody_drives_runs_and_ends_in_a_cell(open_notebook):
    notebook = open_notebook('import cnnlab\nlab = cnnlab.Lab("question", learning_rate=1e-5)\nlab.step(3)')
    lab = notebook.lab()
    lab.wait_for_update(3)
    until(lambda: notebook.value("not lab.worker.thread.alive"), "the last measurement")
    assert notebook.value("len(lab.record)") == 3


def test_a_figure_that_is_closed_while_plotly_draws_is_taken_apart_when_plotly_has_ended(open_notebook):
    notebook = open_notebook(f"import cnnlab\n{LONG_LAB}", own_page=True)
    notebook.lab()
    notebook.page.evaluate(SLOW_PLOTLY)
    notebook.do("lab.step()")
    until(lambda: "began" in notebook.page.evaluate("cnnlabOrder"), "plotly to draw")
    notebook.do("lab.close()")
    until(lambda: "purged" in notebook.page.evaluate("cnnlabOrder"), "the end of the figure")
    order = notebook.page.evaluate("cnnlabOrder")
    assert order[-1] == "purged"
    assert order.count("drawn") == order.count("began") > 0
    assert not notebook.errors
