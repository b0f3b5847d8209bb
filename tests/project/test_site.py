"""The site: it is built with warnings as errors, every link leads somewhere, and nothing comes from elsewhere."""

import os
import re
from collections import Counter
from functools import cache
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from jupyter_page import BROWSERS, chromium, launched

import cnnlab

pytest.importorskip("zensical", reason='the site needs pip install -e ".[docs]"')

ROOT = Path(__file__).parents[2]
LINKS = Path(__file__).with_name("links.txt")
RESOURCES = {
    "img": "src",
    "script": "src",
    "link": "href",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "object": "data",
}
"""Element -> the attribute that names what a page loads; a `link` of kind prev, next or canonical loads nothing."""
LISTS = {"autopsy.html"}
"""Pages that are lists of links by themselves: the reports of a NaN that somebody posted."""
LOADS_NOTHING = {"prev", "next", "canonical"}


class Page(HTMLParser):
    """What a page links to, what it loads, the anchors that it has, and its words outside code."""

    def __init__(self, text):
        super().__init__()
        self.links, self.resources, self.anchors, self.words = [], [], set(), ""
        self.inside = Counter()
        self.feed(text)

    def handle_starttag(self, tag, pairs):
        attributes = dict(pairs)
        self.inside[tag] += 1
        self.anchors |= {attributes.get("id"), attributes.get("name")}
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        if tag in RESOURCES and RESOURCES[tag] in attributes and attributes.get("rel") not in LOADS_NOTHING:
            self.resources.append(attributes[RESOURCES[tag]])
        self.resources += re.findall(r"url\(([^)]*)\)", attributes.get("style") or "")

    def handle_endtag(self, tag):
        self.inside[tag] -= 1

    def handle_data(self, text):
        if not any(self.inside[tag] > 0 for tag in ("code", "pre", "script", "style", "math")):
            self.words += text


@pytest.fixture(scope="module")
def builder():
    """The script that builds the site."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        yield import_module("build_site")


@pytest.fixture(scope="module")
def site(builder, tmp_path_factory):
    """The site, built once."""
    folder = tmp_path_factory.mktemp("site") / "site"
    builder.build(folder)
    return folder


@pytest.fixture(scope="module")
def pages(site):
    """The pages by their paths, without the one that a server shows for a page that is not there."""
    found = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html") if path.name != "404.html"}
    return {path: page for path, page in found.items() if "films" not in path.relative_to(site).parts}


def is_elsewhere(target):
    """Whether a link or a resource is not of the site."""
    parts = urlsplit(target)
    return bool(parts.netloc) or parts.scheme not in {"", "data"}


@cache
def read_links():
    """The links to elsewhere that are allowed."""
    return LINKS.read_text(encoding="utf-8").split()


def test_every_link_within_the_site_leads_to_a_page_and_its_anchor(pages, site):
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if is_elsewhere(link) or (target.is_file() and not parts.fragment):
                continue
            if target not in pages or unquote(parts.fragment) not in pages[target].anchors:
                broken.append(f"{path.relative_to(site)}: {link}")
    assert not broken


def test_every_link_to_elsewhere_is_in_the_list_and_the_list_has_no_other(pages):
    own = [page for path, page in pages.items() if path.name not in LISTS]
    assert sorted({link for page in own for link in page.links if is_elsewhere(link)}) == read_links()


def test_every_link_to_elsewhere_has_the_form_of_an_address(pages):
    linked = {link for page in pages.values() for link in page.links if is_elsewhere(link)}
    assert len(linked) > 50
    assert not [link for link in linked if not re.fullmatch(r"https://[a-z0-9-]+(\.[a-z0-9-]+)+/\S*", link)]


def test_no_page_loads_anything_from_elsewhere(pages, site):
    loaded = [
        f"{path.relative_to(site)}: {name}"
        for path, page in pages.items()
        for name in page.resources
        if is_elsewhere(name)
    ]
    assert not loaded
    assert all(
        (path.parent / unquote(urlsplit(name).path)).is_file()
        for path, page in pages.items()
        for name in page.resources
        if not name.startswith("data:")
    )


def test_no_style_loads_anything_from_elsewhere(site):
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    named = [
        name.strip("'\"")
        for text in styles
        for name in re.findall(r"url\(([^)]*)\)|@import +([^;]+)", text)
        for name in name
    ]
    assert len(styles) >= 2
    assert not [name for name in named if is_elsewhere(name)]


def test_every_lab_has_a_page_with_its_question_and_all_its_code(pages, site):
    labs = sorted((ROOT / "labs").glob("*.ipynb"))
    assert len(labs) >= 10
    for path in labs:
        page = site / "labs" / f"{path.stem}.html"
        cells = nbformat.read(path, as_version=4).cells
        text = re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8"))
        assert cells[0].source.partition("\n")[0].removeprefix("# ") in pages[page].words
        assert text.count("guess.compare(") == sum("guess.compare(" in cell.source for cell in cells)


def test_what_explains_a_lab_is_folded_and_its_lists_are_lists(site):
    for path in (site / "labs").glob("[0-9]*.html"):
        folded = re.findall(r"<details>.*?</details>", path.read_text(encoding="utf-8"), re.DOTALL)
        assert len(folded) >= 3
        assert all("<li>" in text for text in folded)


def test_each_picture_of_a_lab_is_folded_with_what_explains_it_and_is_small(site, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    names = import_module("make_lab_pictures").PICTURES
    files = {path.name: path.stat().st_size for path in (ROOT / "docs" / "labs").glob("*.png")}
    assert set(files) == {f"{name}-{ground}.png" for name in names for ground in ("light", "dark")}
    assert max(files.values()) < 30_000
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((site / "labs").glob("[0-9]*.html")))
    folded = "".join(re.findall(r"<details>.*?</details>", text, re.DOTALL))
    shown = re.findall(r'src="([\w-]+\.png)#only-(light|dark)"', folded)
    assert [name for name, _ in shown] == [
        f"{name}-{ground}.png" for name in find_units(names) for ground in ("light", "dark")
    ]


def find_units(names):
    """The names of pictures in the order of their units in the labs."""
    labs = sorted((ROOT / "labs").glob("*.ipynb"))
    cells = [f"{path.name[:2]}-{cell.id}" for path in labs for cell in nbformat.read(path, as_version=4).cells]
    return sorted(names, key=lambda name: cells.index(f"{name}-explain"))


def test_every_public_name_is_described_once(site):
    text = (site / "api.html").read_text(encoding="utf-8")
    names = re.findall(r'<h3 id="cnnlab\.([A-Za-z_]+)"', text)
    assert sorted(names) == sorted(cnnlab.__all__)


def test_the_first_page_installs_as_the_readme_does_and_names_what_there_is():
    start, readme = (path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "index.md", ROOT / "README.md"))
    commands = re.findall(r"```sh\n(.*?)\n```", start)
    assert len(commands) == 2
    assert all(f"```sh\n{command}\n```" in readme for command in commands)
    assert set(re.findall(r"cnnlab\.(\w+)\(", start)) <= set(cnnlab.__all__)


def test_every_table_of_the_benchmarks_has_a_page(pages, site):
    for path in (ROOT / "tests" / "benchmarks" / "results").glob("*.md"):
        assert site / "benchmarks" / f"{path.stem}.html" in pages


def test_no_markdown_and_no_latex_is_left_in_the_words_of_a_page(pages, site):
    left = r"\$[^$\n]+\$|\\(?:frac|lambda|eta|sqrt)|\]\([\w./#]+\)|^ *```|^#+ |^\|.*\|$|\*\*\w"
    found = [
        f"{path.relative_to(site)}: {match[0]}"
        for path, page in pages.items()
        for match in re.finditer(left, page.words, re.M)
    ]
    assert not found


def test_formulas_are_drawn_by_the_browser(site):
    physics = [path for path in (site / "physics").glob("*.html") if path.stem != "index"]
    assert len(physics) == 6
    texts = [path.read_text(encoding="utf-8") for path in physics]
    assert all("<math" in text for text in texts)
    assert not [text for text in texts if re.search(r"</p>\s*(<span>)?<math[^>]*inline", text)]


def test_opened_from_a_file_a_page_asks_no_other_host_and_can_be_searched(site, opened):
    page, asked, wrong = opened
    for name in ("physics/step_size", "labs/00_start_here", "api", "index"):
        page.goto((site / f"{name}.html").as_uri())
        page.locator("article h1").wait_for()
    page.locator(".md-search__button").click()
    page.locator("input[type=text][aria-label=Search]").fill("catapult")
    page.get_by_role("option").filter(has_text="Step size and curvature").first.wait_for()
    assert asked
    assert not [address for address in asked if urlsplit(address).scheme not in {"file", "data", "blob", "about"}]
    assert not wrong


@pytest.fixture
def opened():
    """A page in chromium, the addresses that it asks for, and the errors that it tells of."""
    if chromium() is None:
        reason = f"this test needs a browser ({', '.join(BROWSERS)})"
        pytest.fail(reason) if os.environ.get("CNNLAB_REQUIRE_BROWSER") else pytest.skip(reason)
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = launched(playwright)
        page, asked, wrong = browser.new_page(), [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        yield page, asked, wrong
        browser.close()


def test_a_link_to_a_file_that_is_not_there_is_refused(builder):
    with pytest.raises(SystemExit, match=re.escape("docs/index.md: no file physics/nowhere.md")):
        builder.replace_links("[a page](physics/nowhere.md)", ROOT / "docs" / "index.md")


def test_a_broken_anchor_and_an_unknown_name_end_the_build_with_an_error(builder, tmp_path):
    builder.gather(tmp_path / "pages")
    text = "# Start\n\n[a place](nan.md#nowhere)\n\n::: cnnlab.nothing\n"
    builder.write(tmp_path / "pages", ROOT / "docs" / "index.md", text)
    with pytest.raises(SystemExit, match=r"(?s)not built.*nothing"):
        builder.render(tmp_path)
