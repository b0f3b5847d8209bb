"""What a person sees: nothing is cut off at 1280x800 and on a projector."""

import re

import pytest
from jupyter_page import until

from cnnlab.plots.gauges import PLOTS


@pytest.mark.parametrize(("size", "scale"), [((1280, 800), 1.0), ((1920, 1080), 1.5)])
def test_the_dashboard_fits_the_screen_with_nothing_cut_off(open_notebook, size, scale):
    notebook = open_notebook(
        f"import cnnlab\nlab = cnnlab.Lab('question', scale={scale}, stop_at_nan=False)", size=size
    )
    lab = notebook.lab()
    for update in (1, 2, 3):  # the longest lines of words are those that warn
        lab.press("One update")
        lab.wait_for_update(update)
        lab.wait_until_paused()
        assert lab.line.evaluate("it => it.scrollWidth <= it.clientWidth"), lab.line.inner_text()
    assert lab.line.inner_text().startswith("Warning: update 3 was ")
    assert float(lab.line.evaluate("it => parseFloat(getComputedStyle(it.firstChild).fontSize)")) >= 13 * scale
    lab.choice("Speed").select_option("full")
    lab.press("Play")
    lab.wait_for_update(20)
    lab.wait_until_paused()
    box = lab.box.bounding_box()
    visible = notebook.page.locator(".jp-Notebook").first.bounding_box()
    lab.box.evaluate("box => box.scrollIntoView({block: 'end'})")
    lab.screenshot(f"fits-{size[0]}x{size[1]}")
    assert box["height"] <= visible["height"]
    assert box["x"] + box["width"] <= size[0]
    parts = lab.box.locator(".cnnlab-line, .cnnlab-transport, .cnnlab-controls, .cnnlab-strip, .cnnlab-watched")
    overflowing = parts.evaluate_all(
        """found => found.filter((it) => it.scrollWidth > it.clientWidth || it.scrollHeight > it.clientHeight + 1)
                         .map((it) => [it.className, it.scrollWidth - it.clientWidth, it.scrollHeight])"""
    )
    assert overflowing == []
    inside = lab.box.locator("button:not(.modebar-btn), input, select, .main-svg, .cnnlab-name, img, td, th, progress")
    cut = inside.evaluate_all(
        """found => {
            const box = found[0].closest(".cnnlab-lab").getBoundingClientRect();
            return found.filter((it) => {
                const at = it.getBoundingClientRect();
                const outside = at.left < box.left - 1 || at.right > box.right + 1 || at.bottom > box.bottom + 1;
                const cut = it.scrollWidth > it.clientWidth + 1 && it.matches(".cnnlab-name");
                return it.checkVisibility() && at.width > 0 && (outside || cut);
            }).map((it) => it.outerHTML.slice(0, 120));
        }"""
    )
    assert cut == []
    plots = lab.figure.bounding_box()
    controls = lab.area.locator(".cnnlab-controls").bounding_box()
    assert controls["x"] + controls["width"] <= plots["x"] + 1
    assert float(lab.line.evaluate("it => parseFloat(getComputedStyle(it).fontSize)")) >= 15 * scale


@pytest.mark.parametrize(("size", "scale"), [((1280, 800), 1.0), ((1280, 800), 1.5), ((1920, 1080), 1.5)])
def test_no_title_lies_on_another_or_leaves_the_plots(open_notebook, size, scale):
    notebook = open_notebook(f"import cnnlab\nlab = cnnlab.Lab('converges', scale={scale})", size=size)
    lab = notebook.lab()
    lab.press("One update")
    lab.wait_for_update(1)
    lab.wait_until_paused()
    wanted = "graph => graph._fullLayout.width === graph.layout.width && graph._fullLayout.width < 1700"
    until(lambda: lab.figure.evaluate(wanted), "the width of the page")
    plots = lab.figure.bounding_box()
    boxes = lab.figure.locator(".annotation-text-g").evaluate_all(
        """found => Object.fromEntries(found.filter((it) => it.getClientRects().length).map((it) => {
            const {x, y, width, height} = it.getBoundingClientRect();
            return [it.textContent, {x, y, width, height}];
        }))"""
    )
    boxes = {text: box for text, box in boxes.items() if text not in ("NaN", "inf")}
    for plot in PLOTS.values():
        assert any(text.startswith((plot.title, plot.short or plot.title)) for text in boxes), plot.title
    for text, box in boxes.items():
        assert box["x"] + box["width"] <= plots["x"] + plots["width"], text
        for other, place in boxes.items():
            apart = box["x"] + box["width"] <= place["x"] or place["x"] + place["width"] <= box["x"]
            above = abs(box["y"] - place["y"]) > min(box["height"], place["height"]) / 2
            assert text == other or apart or above, (text, other)
    right = lab.box.bounding_box()["x"] + lab.box.bounding_box()["width"]
    captions = [caption for caption in lab.area.locator("figcaption").all() if caption.is_visible()]
    ends = {caption.text_content(): caption.evaluate("it => it.getBoundingClientRect().left + it.scrollWidth")
            for caption in captions}  # fmt: skip
    assert {text for text, end in ends.items() if end > right} == set()


def test_a_larger_scale_has_larger_type(notebook, lab):
    sizes = []
    for scale in (1, 1.5):
        shown = lab(f'"question", scale={scale}').unfold()
        sizes.append(
            [
                shown.line.evaluate("it => parseFloat(getComputedStyle(it).fontSize)"),
                shown.slider("Seed").locator("..").evaluate("it => parseFloat(getComputedStyle(it).fontSize)"),
                shown.figure.evaluate("graph => graph._fullLayout.font.size"),
            ]
        )
    assert sizes[1] == pytest.approx([1.5 * size for size in sizes[0]])


def test_no_number_beside_an_axis_is_cut_off_where_the_file_browser_takes_its_share_of_the_page(open_notebook):
    notebook = open_notebook("import cnnlab\nlab = cnnlab.Lab('question')", size=(1028, 800))
    lab = notebook.lab()
    notebook.do("lab.step(20)")
    lab.wait_until_paused()
    numbers = lab.figure.locator(".ytick text")
    until(lambda: re.search(r"10\W*25", " ".join(numbers.all_text_contents())), "a cost of 10^25")
    lab.wait_until_drawn()
    least = "all => Math.min(...all.map((it) => it.getBoundingClientRect().left))"
    until(lambda: numbers.evaluate_all(least) >= lab.figure.bounding_box()["x"], "all numbers, each within the figure")
    captions = lab.area.locator("figcaption").evaluate_all("all => all.filter((it) => it.scrollWidth > it.clientWidth)")
    assert captions == []
    lab.screenshot("narrow")
