"""The command line: open the labs, print the question's table, say what the machine has.

torch, rich and JupyterLab are imported only by the command that needs them, so that `cnnlab --help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cnnlab
from cnnlab.cli.check import FIRST_LAB, inspect_machine
from cnnlab.config.links import Plan, opened
from cnnlab.config.settings import (
    LIMITS,
    PRESETS,
    Choice,
    Limit,
    Number,
    NumberOrName,
    Pair,
    Settings,
    check_names,
    presets,
)
from cnnlab.course.lab_files import PACKAGE, copy_labs, find_labs

if TYPE_CHECKING:
    from cnnlab.training.run import Run

LAB_OPTIONS = ("--port", "--ip", "--no-browser", "--folder")
"""Options of `cnnlab lab` that `cnnlab` alone takes, too."""
NEWS = "@jupyterlab/apputils-extension:announcements"
"""The extension of JupyterLab that asks 'Would you like to get notified about official Jupyter news?'"""

COPIES = "cnnlab-labs"
"""The folder for copies of labs that were installed from a wheel."""
CLOSED_PIPE = 141
"""Exit status of a program that wrote into a closed pipe, as a shell gives it: 128 and the number of SIGPIPE."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command line and return its exit status.

    0, 1 (check found a lack, or the output cannot be written), 2 (misuse), 130 (Ctrl-C) or 141 (a closed pipe).
    """
    try:
        try:
            return carry_out(arguments)
        finally:
            flush_output()
    except CommandError as error:
        say(error)
        return error.status
    except ModuleNotFoundError as error:
        say(f"{error.name} is not installed; pip install -e . brings all that is needed")
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # such as that of `cnnlab run | head`, which has read enough
        silence_output()
        return CLOSED_PIPE
    except OSError as error:
        say(f"the output cannot be written: {error.strerror or error}" if error.filename is None else error)
        silence_output()
        return 1


def carry_out(arguments: Sequence[str] | None) -> int:
    """Carry out one command line; what cannot be written is an OSError."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0].partition("=")[0] in LAB_OPTIONS:
        words.insert(0, "lab")
    given, rest = make_parser().parse_known_args(words)
    match given.command:
        case "run":
            start, plan = read_settings(given, rest)
            check_output()
            return train(start, plan, as_json=given.json, explain=given.explain)
        case "lab":
            return open_lab(list_server_arguments(given, rest), given.folder)
    refuse(rest)
    if given.command is None:
        return open_lab([])
    if given.command == "labs":
        return report_copies(Path(given.folder), given.version)
    if given.command == "class":
        return make_class_page(Path(given.folder))
    check_output()
    if given.command == "check":
        return check()
    width = max(map(len, presets())) + 2
    print(*(f"{name:<{width}}{describe_preset(name)}" for name in presets()), sep="\n")
    return 0


def say(sentence: object) -> None:
    """Tell the user one sentence, if there is a place for it."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(f"cnnlab: {sentence}", file=sys.stderr)


def check_output() -> None:
    """CommandError if there is nothing to print to: such as after `>&-`, where a file of ours would take its place."""
    if getattr(sys.stdout, "closed", sys.stdout is None):
        raise CommandError("there is no standard output to write to", status=1)


def flush_output() -> None:
    """Write what is printed now, while an error can still be answered by a sentence."""
    if not getattr(sys.stdout, "closed", sys.stdout is None):
        sys.stdout.flush()


def silence_output() -> None:
    """Forget what could not be written: Python would try again at its end, and say so."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)


class CommandError(Exception):
    """One sentence for the user, and the exit status that goes with it."""

    def __init__(self, sentence: object, status: int = 2) -> None:
        super().__init__(sentence)
        self.status = status


def make_parser() -> argparse.ArgumentParser:
    """The options of every command; those of `run` come from LIMITS."""
    top = argparse.ArgumentParser(
        prog="cnnlab",
        description="Watch a convolutional network explode or converge. Without a command: open JupyterLab.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"cnnlab {cnnlab.__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    lab = commands.add_parser(
        "lab", help="open JupyterLab on the first lab", epilog="Other options go to `jupyter lab`.", allow_abbrev=False
    )
    lab.add_argument("--port", help="port of the server")
    lab.add_argument("--ip", help="address that the server listens on")
    lab.add_argument("--no-browser", action="store_true", help="print the address, open no browser")
    lab.add_argument("--folder", metavar="DIR", help="copy the labs there, never over changed files, and open them")

    run = commands.add_parser("run", help="train a preset and print the question's table", allow_abbrev=False)
    names = f"one of {', '.join(presets())}, or a link (default: question)"
    run.add_argument("preset", nargs="?", default="question", help=names)
    run.add_argument("--json", action="store_true", help="one JSON object; nan, inf and -inf are written as text")
    run.add_argument("--explain", action="store_true", help="say why it broke, where, and which remedies mend it")
    for name, limit in LIMITS.items():
        add_setting(run, name, limit)

    labs = commands.add_parser("labs", help="copy the labs into a folder, never over changed files", allow_abbrev=False)
    labs.add_argument("folder", metavar="DIR", help="where to; it is made")
    version = labs.add_mutually_exclusive_group()
    for name, words in (
        ("student", "without solutions"),
        ("solutions", "with the solutions in the cells, for nbgrader"),
    ):
        version.add_argument(f"--{name}", dest="version", action="store_const", const=name, default="all", help=words)

    page = commands.add_parser("class", help="make one page of a class's hand-ins", allow_abbrev=False)
    page.add_argument("folder", metavar="DIR", help="where the hand-ins (*.json) lie; class.html is written there")

    commands.add_parser("check", help="say what the machine has and what is missing", allow_abbrev=False)
    commands.add_parser("presets", help="list the presets and what they change", allow_abbrev=False)
    return top


def add_setting(run: argparse.ArgumentParser, name: str, limit: Limit) -> None:
    """Give `run` the option of one field. Its range is checked by Settings, which says more than argparse does."""
    number = limit.each if isinstance(limit, Pair) else limit
    kind = str if isinstance(number, Choice) else read_whole if number.whole else read_decimal
    named = isinstance(number, (Choice, NumberOrName))
    run.add_argument(
        f"--{name.replace('_', '-')}",
        dest=name,
        type=kind,
        nargs=2 if isinstance(limit, Pair) else None,
        metavar="NAME" if named else "N" if kind is read_whole else "X",
        default=argparse.SUPPRESS,
        help=f"{limit.label}: {list_values(number)}",
    )


def list_values(limit: Number | Choice | NumberOrName) -> str:
    """What a field may be, in few words."""
    if isinstance(limit, Number):
        return limit.interval
    return ", ".join([*limit.options, *([limit.number.interval] if isinstance(limit, NumberOrName) else [])])


def read_whole(text: str) -> int | str | None:
    """A whole number, or None for the words none and all; other text stays as it is, for Settings to refuse."""
    try:
        return None if text.lower() in ("none", "all") else int(text)
    except ValueError:
        return text


def read_decimal(text: str) -> float | str:
    """A number; other text stays as it is, for Settings to refuse in its own words."""
    try:
        return float(text)
    except ValueError:
        return text


def read_settings(given: argparse.Namespace, rest: Sequence[str]) -> tuple[Settings, Plan]:
    """The settings that `run` was given, and a link's plan; CommandError if Settings refuses them."""
    changes = {name: value for name, value in vars(given).items() if name in LIMITS}
    try:
        for word in rest:
            if close := get_close_matches(word, ("--json", "--explain"), n=1, cutoff=0.7):
                raise CommandError(f"not understood: {word}; did you mean {close[0]}?")
        check_names(word.removeprefix("--").partition("=")[0].replace("-", "_") for word in rest if word[:2] == "--")
        refuse(rest)
        return opened(given.preset, **changes)
    except (TypeError, ValueError) as error:
        raise CommandError(error) from None


def describe_preset(preset: str) -> str:
    """The fields that a preset changes, as the options of `cnnlab run` that would; the question's own changes none."""
    words = (
        f"--{name.replace('_', '-')} {' '.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, value in PRESETS[preset].items()
    )
    return " ".join(words) or "the question's own network, which explodes to NaN"


def refuse(rest: Sequence[str]) -> None:
    """CommandError if the command line holds words that no command reads."""
    if rest:
        raise CommandError(f"not understood: {' '.join(rest)}")


def list_server_arguments(given: argparse.Namespace, rest: Sequence[str]) -> list[str]:
    """The arguments for `jupyter lab` that the user gave."""
    named = [f"--{name}={value}" for name in ("port", "ip") if (value := getattr(given, name)) is not None]
    return [*named, *(["--no-browser"] if given.no_browser else []), *rest]


def open_lab(arguments: Sequence[str], folder: str | None = None) -> int:
    """Serve JupyterLab, opened on the first lab, until it is stopped."""
    try:
        root, first = find_served() if folder is None else copy_served(Path(folder).expanduser().absolute())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CommandError(error) from None
    from jupyterlab.labapp import LabApp

    # `jupyter lab labs/x.ipynb` would make labs/ the root, so the root and the address are given apart.
    fixed = [f"--ServerApp.root_dir={root}", f"--LabApp.default_url=/lab/tree/{first}"]
    server = LabApp.initialize_server([*fixed, *arguments], tornado_settings={"page_config_hook": disable_news})
    server.start()
    return 0


def find_served() -> tuple[Path, str]:
    """The folder to serve and the first lab in it: the clone itself, or copies of the labs that a wheel has brought.

    The copies are the present folder if it holds them, else a folder cnnlab-labs in it: what is there already stays.
    """
    labs, present = find_labs(), Path.cwd()
    if not labs.is_relative_to(PACKAGE):
        return labs.parent, f"{labs.name}/{FIRST_LAB}"
    if (present / FIRST_LAB).is_file():
        return present, FIRST_LAB
    return copy_served(present / COPIES)


def copy_served(folder: Path) -> tuple[Path, str]:
    """The same where the labs are copied into a folder first; files that are there already stay as they are."""
    copies = copy_labs(folder)
    kept = f"; {len(copies.changed)} that you changed are left as they are" if copies.changed else ""
    say(f"the labs are in {folder}: work there, they are your own copies{kept}")
    return folder, FIRST_LAB


def disable_news(_handler: Any, page: dict[str, Any]) -> dict[str, Any]:
    """The configuration of JupyterLab's page without the extension that asks whether to fetch news."""
    return {**page, "disabledExtensions": sorted({*page.get("disabledExtensions", ()), NEWS})}


def report_copies(folder: Path, version: Any) -> int:
    """Copy the labs and say what was written; 1 if a file that was changed was left alone."""
    try:
        copies = copy_labs(folder, version)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CommandError(error) from None
    print(f"{len(copies.written)} files written to {folder}, {len(copies.same)} were there already")
    for name in copies.changed:
        say(f"{folder / name} differs from the lab and is left alone; move it away to get a new copy")
    return 1 if copies.changed else 0


def make_class_page(folder: Path) -> int:
    """Make the page of a class and say where it is; 1 if a file was left out."""
    from cnnlab.course.class_page import make_class_page
    from cnnlab.records.formats import format_count

    try:
        page = make_class_page(folder)
    except (ValueError, NotADirectoryError) as error:
        raise CommandError(error) from None
    print(f"{page.path}: {format_count(page.students, 'hand-in')}")
    for sentence in page.refused:
        say(sentence)
    return 1 if page.refused else 0


def train(start: Settings, plan: Plan, *, as_json: bool, explain: bool = False) -> int:
    """Train for the epochs that the settings ask for and print what happened. Divergence is data: its status is 0."""
    from cnnlab.cli.tables import show_tables, write_json
    from cnnlab.training.run import Run

    try:
        run = Run(start, plan=plan)
    except (RuntimeError, ValueError) as error:  # such as a device that is not there
        raise CommandError(str(error).splitlines()[0]) from None
    finished = advance(run, start.epochs)
    found = cnnlab.autopsy(run) if explain and finished else None
    write_json(run.record, found) if as_json else show_tables(run.record)
    if found is not None and not as_json:
        print(f"\n{found}")
    if finished:
        return 0
    say(f"stopped after {len(run.record)} of {start.epochs * run.updates_per_epoch} updates")
    return 130


def advance(run: Run, epochs: int) -> bool:
    """Train epoch by epoch behind a progress bar; False if Ctrl-C ended it."""
    from rich.console import Console
    from rich.progress import Progress

    errors = Console(stderr=True)
    try:
        with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
            for _ in progress.track(range(epochs), description="epochs"):
                run.advance(run.updates_per_epoch)
    except KeyboardInterrupt:
        return False
    return True


def check() -> int:
    """Print a line for each thing that the labs need; 1 if one is missing."""
    from rich.console import Console
    from rich.text import Text

    console, complete = Console(), True
    for finding in inspect_machine():
        mark = Text("ok     ", "green") if finding.present else Text("missing", "bold red")
        with console.capture() as line:
            console.print(mark, Text(f"{finding.name:<10} {finding.words}"), soft_wrap=True)
        print(line.get(), end="", flush=True)
        complete = complete and finding.present
    return 0 if complete else 1
