"""How often the autopsy is right on posted failures: given a Run, given the record of a watch, and beside torch's own.

python tests/benchmarks/autopsy.py [WORD ...] [--write]

Each case of tests/diagnosis/posted is trained three ways: (a) `cnnlab.Run` and `autopsy(run)`, where plain SGD shows
the trouble; (b) a plain loop within `cnnlab.watch` and `autopsy(watch.record)`; (c) the same loop under
`torch.autograd.set_detect_anomaly(True)`. No remedy is tried. WORDs choose cases by their names.

right: the first cause and its evidence or chain say the case's kind, and its operation and place where it has them.
partly: the kind is among the causes but not first, or what lies behind it, operation or place is missing, or
"undecided" says a word of it.
wrong: another cause with a confidence of at least 0.5, or "healthy" beside a NaN, or an error within the autopsy.
misleads: a wrong cause comes first with at least 0.5, even where the right one is among the others.
silent: "undecided", "unknown", or "healthy" where nothing was learnt. Of anomaly mode: right names the operation,
later names another function, silent raises nothing.
--write keeps the table in tests/benchmarks/results/autopsy.md; each half is counted by itself.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import re
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "diagnosis"))
from posted import CASES
from posted.case import NAN, Parts, PostedCase, train
from time_limit import limit_time

import cnnlab
from cnnlab import Run
from cnnlab.diagnosis.autopsy import Autopsy
from cnnlab.diagnosis.nan_tracer import find_first_update

RESULTS = Path(__file__).parent / "results" / "autopsy.md"
SECONDS = 60
"""Most that one case may take one way."""
RIGHT, PARTLY, WRONG, SILENT, LATER, ABSENT = "right", "partly", "wrong", "silent", "later", "–"
FOUND = ("found anew", "found last")
"""Groups of reports whose right answers were written when the causes had been built, and when they had been mended."""
VERDICTS = (RIGHT, PARTLY, WRONG, SILENT)


@dataclass(frozen=True)
class Said:
    """What one way said of a case."""

    verdict: str
    words: str
    """What it said, shortened; empty where the way does not show the trouble."""
    seconds: float = 0.0
    misleads: bool = False
    """Whether a wrong cause came first with a confidence of at least 0.5, whatever came after it."""


# -- the three ways


def ask_run(case: PostedCase, parts: Parts) -> Autopsy | Said:
    """(a) The network in a Run."""
    knobs = {"learning_rate": parts.learning_rate, "momentum": parts.momentum, "l2": parts.l2}
    run = Run(network=parts.network, data=parts.loader(), cost=parts.cost, device="cpu", **knobs)
    with contextlib.suppress(IndexError, RuntimeError):  # the user's own errors: what then?
        run.advance(case.updates, until="nonfinite")
    if case.symptom == NAN and find_first_update(run.record) is None:
        return Said(ABSENT, "the Run stays finite")
    return cnnlab.autopsy(run, prove=False)


def ask_watch(case: PostedCase, parts: Parts) -> Autopsy:
    """(b) A loop of one's own under a watch."""
    optimizer, scaler = parts.make_optimizer(), parts.scaler() if parts.scaler is not None else None
    with (
        contextlib.suppress(IndexError, RuntimeError),
        cnnlab.watch(parts.network, optimizer, scaler=scaler, show=False) as watch,
    ):
        collections.deque(train(parts, optimizer, scaler, case.updates), maxlen=0)
    return cnnlab.autopsy(watch.record)


def ask_anomaly_mode(case: PostedCase, parts: Parts) -> Said:
    """(c) torch's anomaly mode."""
    optimizer, scaler = parts.make_optimizer(), parts.scaler() if parts.scaler is not None else None
    with warnings.catch_warnings(record=True) as heard, torch.autograd.set_detect_anomaly(True):
        warnings.simplefilter("always")
        try:
            collections.deque(train(parts, optimizer, scaler, case.updates), maxlen=0)
        except (IndexError, RuntimeError, ValueError) as error:
            found = re.search(r"Function '(\w+)' returned nan", str(error))
            if found is None:
                said = str(error).splitlines()[0][:80]
                return Said(RIGHT if any(word in said.lower() for word in case.right) else SILENT, f"raises: {said}")
            line = find_line(heard)
            node = re.sub(r"backward\d*$|^linalg", "", found[1].lower())
            named = node in {word.replace("_", "") for word in case.operation}
            return Said(RIGHT if named else LATER, f"{found[1]}{f': `{line}`' if line else ''}")
    return Said(SILENT, "nothing")


def find_line(heard: list[warnings.WarningMessage]) -> str:
    """The line of the forward pass that anomaly mode shows: the innermost of the case's own."""
    for warning in heard:
        lines = str(warning.message).splitlines()
        own = [at for at, text in enumerate(lines) if "/posted/" in text and "in train" not in text]
        if own:
            return lines[own[-1] + 1].strip()[:70].replace("|", "\\|")
    return ""


# -- what was said, and whether it is right


def holds(text: str, words: tuple[str, ...]) -> bool:
    """Whether a text holds any of the words, as they are or as plurals."""
    return any(re.search(rf"(?<![a-z]){re.escape(word.lower())}(s|es)?(?![a-z_])", text.lower()) for word in words)


def find_last_layer(case: PostedCase) -> str:
    """The name of the last layer that has parameters."""
    names = [name for name, part in case.build().network.named_modules() if list(part.parameters(recurse=False))]
    return names[-1]


def names_place(case: PostedCase, found: Autopsy, text: str) -> bool:
    """Whether the place is said; the slope of a cost belongs to the cost, whichever layer it is handed to first."""
    if case.place is None:
        return True
    if case.place == "cost":
        last = found.phase == "gradient" and found.layer in ("", find_last_layer(case))
        return found.phase in ("cost", "probability") or last or holds(text, ("the cost's", "in the cost"))
    if case.place in ("inputs", "targets"):
        return holds(text, (case.place[:-1],))
    return case.place == found.layer or holds(text, (case.place,))


def judge(case: PostedCase, found: Autopsy) -> str:
    """right, partly, wrong or silent."""
    text = "; ".join((found.cause, *found.evidence, *found.chain, str(found.operation), str(found.phase)))
    others = any(holds("; ".join((cause.name, *cause.evidence)), case.right) for cause in found.causes[1:])
    if found.cause in ("undecided", "unknown"):
        return PARTLY if holds(text, case.right) or holds(text, case.operation) else SILENT
    if found.cause == "healthy":
        return WRONG if case.symptom == NAN else SILENT
    if holds(found.cause, case.wrong) or not holds(text, case.right):
        near = others or holds(found.cause, case.allowed)
        return PARTLY if near else WRONG if found.confidence >= 0.5 else SILENT
    complete = names_place(case, found, text) and (not case.operation or holds(text, case.operation))
    return RIGHT if complete else PARTLY


def misleads(case: PostedCase, found: Autopsy) -> bool:
    """Whether the first cause is a wrong one that is held for likely."""
    sure = found.confidence >= 0.5 and holds(found.cause, case.wrong)
    return sure and (found.cause != "healthy" or case.symptom == NAN)


def shorten(found: Autopsy) -> str:
    """What an autopsy said, in a line."""
    where = "" if found.step is None else f" @{found.step} {found.phase} {found.layer} ({found.operation})"
    return f"{found.cause} {found.confidence:.2f}{where}: {found.evidence[0][:90]}".replace("|", "\\|")


def ask(case: PostedCase, way: Callable[[PostedCase, Parts], Any], only_runs: bool = False) -> Said:
    """One way's answer; an error within it is one too."""
    start = time.process_time()
    parts = case.build()
    if only_runs and not parts.runs:
        return Said(ABSENT, "")
    try:
        with limit_time(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = way(case, parts)
    except Exception as error:  # what a user would see
        said = str(error).splitlines()[0][:90] if str(error) else ""
        return Said(WRONG, f"raised {type(error).__name__}: {said}", time.process_time() - start)
    if isinstance(found, Said):
        return dataclasses.replace(found, seconds=time.process_time() - start)
    return Said(judge(case, found), shorten(found), time.process_time() - start, misleads(case, found))


WAYS: dict[str, Callable[[PostedCase], Said]] = {
    "Run": lambda case: ask(case, ask_run, only_runs=True),
    "watch": lambda case: ask(case, ask_watch),
    "anomaly mode": lambda case: ask(case, ask_anomaly_mode),
}


# -- the tables

ABOUT = (
    "# How often the autopsy is right on posted failures",
    "",
    f"torch {torch.__version__.partition('+')[0]}, one thread; `python tests/benchmarks/autopsy.py --write`, whose",
    "head says what right, partly, wrong and silent mean. No remedy was tried. The cases: tests/diagnosis/posted;",
    "a report's half follows from the hash of its name; those found anew came, with their right answers, after the",
    "causes had been built, those found last after they had been mended for these. A Run is asked only where plain SGD",
    "shows the trouble. At first sight, before anything was mended for them, right were of those found anew 28 of 30",
    "by a Run and 29 of 37 under watch (3 misled), of those found last 10 of 11 and 12 of 13 (1 misled).",
)

Answers = dict[str, dict[str, Said]]
"""Case -> way -> what it said."""


def count(answers: Answers, way: str, cases: list[PostedCase]) -> list[str]:
    """Each verdict of a way, how many mislead, and all, in cells; of anomaly mode `later` counts as partly."""
    verdicts = [answers[case.name][way].verdict for case in cases]
    verdicts = [PARTLY if verdict == LATER else verdict for verdict in verdicts if verdict != ABSENT]
    numbers = [verdicts.count(verdict) for verdict in VERDICTS]
    numbers.append(sum(answers[case.name][way].misleads for case in cases))
    return [*(f"{number} ({number / max(1, len(verdicts)):.0%})" for number in numbers), str(len(verdicts))]


def list_groups(cases: list[PostedCase]) -> dict[str, list[PostedCase]]:
    """The halves of the reports, those found anew, and the inputs of the issue."""
    reports = [case for case in cases if case.is_report and not case.found]
    groups = {f"reports, {half}": [case for case in reports if case.half == half] for half in ("seen", "kept apart")}
    groups["reports, all"] = reports
    groups |= {f"reports, {found}": [case for case in cases if case.found == found] for found in FOUND}
    return {**groups, "smallest inputs": [case for case in cases if not case.is_report]}


def tabulate_scores(answers: Answers, cases: list[PostedCase]) -> list[str]:
    """The score of each way and group."""
    lines = [
        "| cases | way | right | partly, later | wrong | silent | misleads | of |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for group, members in list_groups(cases).items():
        lines += [f"| {group} | {way} | {' | '.join(count(answers, way, members))} |" for way in WAYS]
    return lines


def tabulate_cases(answers: Answers, cases: list[PostedCase]) -> list[str]:
    """One row a case."""
    lines = ["| case | kind | half | Run | watch | anomaly | Run said | watch said | anomaly mode said |",
             "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for case in cases:
        said = answers[case.name]
        name = f"[{case.name}]({case.source})" if case.source.startswith("https://") else case.name
        cells = [said[way].verdict for way in WAYS] + [said[way].words for way in WAYS]
        lines.append(f"| {name} | {case.kind} | {case.half} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("words", nargs="*")
    arguments.add_argument("--write", action="store_true")
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    cases = [case for case in CASES if not chosen.words or any(word in case.name for word in chosen.words)]
    answers: Answers = {}
    for case in cases:
        answers[case.name] = {way: answer(case) for way, answer in WAYS.items()}
        print(case.name, *(f"\n    {way}: {said.verdict}, {said.seconds:.1f} s: {said.words}"
                           for way, said in answers[case.name].items()), flush=True)  # fmt: skip
    scores = tabulate_scores(answers, cases)
    print("\n".join(["", *scores]))
    if chosen.write:
        RESULTS.write_text("\n".join([*ABOUT, "", *scores, "", *tabulate_cases(answers, cases), ""]))


if __name__ == "__main__":
    main()
