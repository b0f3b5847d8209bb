"""Builds the site of documentation: the pages of docs/, the labs, the results of the benchmarks, and every public name.

python tools/build_site.py [FOLDER]        (site, if no folder is named; a warning is an error)

Zensical makes the pages from Markdown, as `mkdocs.yml` says. What GitHub and JupyterLab show as it is, and Python's
Markdown does not, is rewritten on the way: links between files, lists, formulas, notebooks.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import nbformat
import yaml
from latex2mathml.converter import convert

ROOT = Path(__file__).parent.parent
CONFIGURATION = ROOT / "mkdocs.yml"
LABS, RESULTS = "labs", "tests/benchmarks/results"
ELSEWHERE = {
    "CONTRIBUTING.md": "how_it_is_built.md",
    "CHANGELOG.md": "changes.md",
    "README.md": "index.md",
    LABS: "labs/index.md",
    RESULTS: "benchmarks/index.md",
    "docs/labs.md": "labs/index.md",
    "docs/benchmarks.md": "benchmarks/index.md",
}
"""A file or folder of the repository -> the page that shows it, where the two have not the same name."""
SHOWN = {"README.md", LABS, RESULTS}
"""Those of them that have no page of their own: a link to one leads to another page."""
FILES = (".png", ".css", ".js", ".html", ".cnnlab")
"""Endings of the files in docs/ that go to the site as they are."""
CODE = re.compile(r"(^ *(`{3,}).*?^ *\2 *$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
HOME = re.compile(r'href="(?:\./)?(\.\.(?:/\.\.)*|\.)/?"')
"""Zensical's link to the first page: a folder, which without a server shows a list of files."""
ITEM = re.compile(r"(?:[-*]|\d+\.) ")
NOTEBOOK = """
!!! note "To play, not only to read"

    This page shows the text and the code of `labs/{name}`, and pictures of what its cells draw. To run it, with the
    dashboards and their buttons, [open it in JupyterLab](../docs/index.md#start).
"""


def main() -> None:
    """Build the site into the folder that the command names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "site")
    build(parser.parse_args().folder)


def build(folder: Path) -> None:
    """Build the site into a folder; what is there already is replaced. A warning ends it with an error."""
    with tempfile.TemporaryDirectory() as work:
        gather(Path(work) / "pages")
        render(Path(work))
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(Path(work) / "site", folder)


def render(work: Path) -> None:
    """Make pages of the Markdown in work/pages, into work/site."""
    settings = yaml.safe_load(CONFIGURATION.read_text(encoding="utf-8"))
    settings |= {"docs_dir": "pages", "site_dir": "site", "nav": list(fill_navigation(settings["nav"]))}
    (work / "mkdocs.yml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    surroundings = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", "mkdocs.yml"]
    run = subprocess.run(command, cwd=work, env=surroundings, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"the site was not built:\n{run.stdout}{run.stderr}")
    for path in (work / "site").rglob("*.html"):
        path.write_text(HOME.sub(r'href="\1/index.html"', path.read_text(encoding="utf-8")), encoding="utf-8")


def fill_navigation(sections: list[dict]) -> Iterator[dict]:
    """The navigation with a page for each lab and each result: who adds one has no list to add it to."""
    for section in sections:
        ((title, pages),) = section.items()
        if isinstance(pages, list) and "labs/index.md" in pages:
            pages = [*pages, *({name_lab(path): page_of(path)} for path in list_labs())]
        if isinstance(pages, list) and "benchmarks/index.md" in pages:
            pages = [*pages, *({path.stem.replace("_", " "): page_of(path)} for path in list_results())]
        yield {title: pages}


def list_labs() -> list[Path]:
    """The notebooks, in the order of reading."""
    return sorted((ROOT / LABS).glob("*.ipynb"))


def list_results() -> list[Path]:
    """The tables of the benchmarks."""
    return sorted((ROOT / RESULTS).glob("*.md"))


def page_of(path: Path) -> str:
    """The page of the site that shows a file or a folder of the repository; empty if none does."""
    name = path.relative_to(ROOT).as_posix()
    if name in ELSEWHERE:
        return ELSEWHERE[name]
    if name.startswith("docs/") and path.suffix in {".md", *FILES}:
        return name.removeprefix("docs/")
    if path.parent == ROOT / LABS and path.suffix == ".ipynb":
        return f"labs/{path.stem}.md"
    return f"benchmarks/{path.name}" if path.parent == ROOT / RESULTS and path.suffix == ".md" else ""


def gather(pages: Path) -> None:
    """Put the Markdown and the pictures of all pages into a folder."""
    for path in sorted((ROOT / "docs").rglob("*")):
        if path.suffix in FILES:
            (pages / page_of(path)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, pages / page_of(path))
    texts = [*sorted((ROOT / "docs").rglob("*.md")), *list_results()]
    texts += [ROOT / name for name in ELSEWHERE if name not in SHOWN and not name.startswith("docs/")]
    for path in texts:
        write(pages, path, path.read_text(encoding="utf-8") + list_pages(page_of(path)))
    for path in list_labs():
        write(pages, path, write_lab(path))


def write(pages: Path, source: Path, text: str) -> None:
    """Keep a page, in the Markdown of Python."""
    target = pages / page_of(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    parts = CODE.split(open_lists(text))  # text, code, the code's fence, text, ..
    parts[::3] = [convert_formulas(replace_links(part, source)) for part in parts[::3]]
    del parts[2::3]
    target.write_text("".join(parts), encoding="utf-8")


def list_pages(page: str) -> str:
    """What stands below the text of a page: the labs, or the benchmarks, each with its first line."""
    if page == "labs/index.md":
        return "\n" + "".join(f"- [{name_lab(path)}](../labs/{path.name})\n" for path in list_labs())
    if page == "benchmarks/index.md":
        rows = (
            f"| [{path.stem.replace('_', ' ')}](../{RESULTS}/{path.name}) | {first_line(path)} |\n"
            for path in list_results()
        )
        return "\n| table | what it asks |\n| --- | --- |\n" + "".join(rows)
    return ""


def first_line(path: Path) -> str:
    """The heading of a file of Markdown."""
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def name_lab(path: Path) -> str:
    """A lab's number and question."""
    title = nbformat.read(path, as_version=4).cells[0].source.partition("\n")[0]
    return f"{path.name[:2]} {title.removeprefix('# ')}"


def write_lab(path: Path) -> str:
    """A notebook as Markdown; its pictures stand with the text that explains them."""
    title, *cells = nbformat.read(path, as_version=4).cells
    heading, _, rest = title.source.partition("\n")
    parts = [heading, NOTEBOOK.format(name=path.name), rest]
    for cell in cells:
        parts.append(f"```python\n{cell.source}\n```" if cell.cell_type == "code" else add_pictures(cell, path))
    return "\n\n".join(parts).replace("<details>", '<details markdown="1">') + "\n"


def add_pictures(cell: nbformat.NotebookNode, path: Path) -> str:
    """The text of a cell, with the picture that is named after it at the end of what is folded."""
    name = f"labs/{path.name[:2]}-{cell.id.removesuffix('-explain')}"
    if not cell.id.endswith("-explain") or not (ROOT / "docs" / f"{name}-light.png").exists():
        return cell.source
    pictures = "\n".join(
        f"![What the cells above have drawn, {ground}](../docs/{name}-{ground}.png#only-{ground})"
        for ground in ("light", "dark")
    )
    return cell.source.replace("</details>", f"{pictures}\n\n</details>")


def replace_links(text: str, source: Path) -> str:
    """Each link to a file leads to the page that shows it; of a file without a page the name alone is left."""

    def replace(match: re.Match[str]) -> str:
        sign, label, target = match.groups()
        if re.match(r"\w+:|#", target):
            return match[0]
        name, number, anchor = target.partition("#")
        path = (source.parent / name).resolve()
        if not path.exists():
            raise SystemExit(f"{source.relative_to(ROOT)}: no file {name}")
        page = page_of(path)
        if not page:
            return label
        return f"{sign}[{label}]({lead(page_of(source), page)}{number}{anchor})"

    return LINK.sub(replace, text)


def lead(page: str, target: str) -> str:
    """The way from a page to another one."""
    return PurePosixPath(os.path.relpath(target, Path(page).parent)).as_posix()


def open_lists(text: str) -> str:
    """An empty line before each list, and four blanks before what belongs to an item: so Python's Markdown wants it."""
    lines: list[str] = []
    fence, width, loose = "", 0, False
    for line in text.split("\n"):
        bare = line.lstrip()
        item = "" if fence else (ITEM.match(line) or [""])[0]
        if item:
            lines += [""] if (loose or not width) and lines and lines[-1].strip() else []
            width, loose = len(item), False
        elif width and bare and len(line) - len(bare) < width and (lines[-1] == "" or bare[0] in "#<|"):
            width = 0
        loose = loose or not bare
        inside = width and not item and line.startswith(" " * width)
        lines.append(" " * (4 - width) + line if inside and width < 4 else line)
        if mark := re.match("`{3,}", bare):
            fence = "" if fence else mark[0]
    return "\n".join(lines)


def convert_formulas(text: str) -> str:
    """LaTeX between dollars as MathML, which browsers draw themselves: no script, no font."""
    text = re.sub(r"\$\$(.+?)\$\$", draw_formula("block"), text, flags=re.DOTALL)
    return re.sub(r"(?<!\\)\$([^$\n]+)\$", draw_formula("inline"), text)


def draw_formula(display: str) -> Callable[[re.Match[str]], str]:
    """What turns a formula into MathML, in a line of its own or not, with no sign that Markdown reads.

    Python's Markdown takes a line that begins with <math> for the end of a paragraph, and one with <span> not.
    """

    def draw(match: re.Match[str]) -> str:
        drawn = convert(match[1].strip(), display=display)
        drawn = re.sub(r"[*_]", lambda sign: f"&#{ord(sign[0])};", drawn)
        return f"<span>{drawn}</span>" if display == "inline" else drawn

    return draw


if __name__ == "__main__":
    main()
