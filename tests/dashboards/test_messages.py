"""Messages and states are declared once, in Python: the page's scripts read and send just those names."""

import re
from importlib.resources import files

import pytest

import cnnlab
from cnnlab.dashboards.autopsy_panel import CardState, DetectorState, PanelState
from cnnlab.dashboards.messages import BUTTONS, FIELDS, Message
from cnnlab.dashboards.view_state import BandState, BranchState, ControlsState, HeaderState, StripState

STATIC = files("cnnlab.dashboards") / "static"
PANEL, DOCTOR = ((STATIC / name).read_text(encoding="utf-8") for name in ("panel.js", "doctor.js"))
READS = {
    HeaderState: (PANEL, "header", r"state"),
    ControlsState: (PANEL, "controls", r"state"),
    BranchState: (PANEL, "controls", r"branch"),
    BandState: (PANEL, "controls", r"stability"),
    StripState: (PANEL, "strip", r"state"),
    PanelState: (DOCTOR, "render", r"state"),
    CardState: (DOCTOR, "render", r"trial"),
    DetectorState: (DOCTOR, "render", r"detector"),
}
"""State -> the script, the function and the variable that read it."""


def body_of(script: str, function: str) -> str:
    """The text of a function of a script."""
    return re.search(rf"^function {function}\(.*?^}}", script, re.DOTALL | re.MULTILINE)[0]


def keys_read(text: str, variable: str) -> set[str]:
    """The keys of a variable that a script reads."""
    taken = re.findall(rf"const {{ ([\w, ]+) }} = {variable};", text)
    dotted = re.findall(rf'(?<![\w.$])(?:{variable}|model\.get\("{variable}"\))\.(\w+)', text)
    return {*dotted, *(name for names in taken for name in names.split(", "))}


def check_keys(state: type, keys: set[str]) -> None:
    """AssertionError that names the keys that only the page, or only Python, knows."""
    declared = set(state.__annotations__) if state is not PanelState else set(PanelState.__required_keys__)
    assert keys == declared, f"{state.__name__}: {sorted(keys - declared)} unknown, {sorted(declared - keys)} not read"


@pytest.mark.parametrize("state", READS)
def test_a_script_reads_each_key_of_a_state_and_no_other(state: type) -> None:
    script, function, variable = READS[state]
    check_keys(state, keys_read(body_of(script, function), variable))


@pytest.mark.parametrize(
    ("old", "new", "said"), [("state.goal", "state.gaol", "'gaol'"), ("state.progress", "0", "'progress'")]
)
def test_a_key_that_is_unknown_or_not_read_is_told(old: str, new: str, said: str) -> None:
    text = body_of(PANEL, "header")
    assert old in text
    with pytest.raises(AssertionError, match=said):
        check_keys(HeaderState, keys_read(text.replace(old, new), "state"))


def test_what_the_page_sends_is_declared_and_answered() -> None:
    sent = re.findall(r"send\(({[^()]*?(?:\([^()]*\))?[^()]*?})\)", PANEL + DOCTOR)
    names = {name for text in sent for name in re.findall(r"[{,] (\w+)(?=[:,]| })", text)}
    assert names | {"problem"} == set(Message.__annotations__) == set(FIELDS)  # the upload sends `problem`
    pressed = {name for text in sent if "do:" in text for name in re.findall(r'"(\w+)"', text)} - {"state"}
    assert pressed == set(BUTTONS)


def test_the_states_of_a_lab_have_just_the_declared_keys() -> None:
    lab = cnnlab.Lab("question", channels=2, hidden=(4, 4), patches=8)
    lab.set(learning_rate=1e6)
    lab.step(4)
    lab.explain()
    parts = {
        HeaderState: lab.widgets.header,
        ControlsState: lab.widgets.controls,
        StripState: lab.widgets.strip,
        PanelState: lab.doctor,
    }
    for state, part in parts.items():
        check_keys(state, set(part.state))
    check_keys(BandState, set(lab.widgets.controls.state["band"]))
    check_keys(BranchState, set(lab.widgets.controls.state["branches"][0]))
    check_keys(CardState, set(lab.doctor.state["trials"][0]))
    check_keys(DetectorState, set(lab.doctor.state["indicators"][0]))
    lab.close()
