"""The practitioner's page on a cost that is NaN: each of its blocks is run, and does what stands above it."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import torch

import cnnlab
from cnnlab.diagnosis.causes import CAUSES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "nan.md").read_text(encoding="utf-8")
FIRST, START, *REST = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SECTIONS = dict(re.findall(r"^### (.*?)\n\n.*?```python\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE))
TRIED, STEERED = REST[len(SECTIONS) :]
SQUARES = "loss = F.mse_loss(model(x), y)"
ENTROPY = "loss = F.cross_entropy(model(x), labels)"
NETWORK = "model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))"
SLOW = "optimizer = torch.optim.SGD(model.parameters(), lr=0.01)"
SETUPS = {
    "undefined operation: root": "y = model(x).detach(); y[1:] += 1",
    "undefined operation: empty mean": "mask = torch.zeros(64, 2, dtype=torch.bool)",
    "log(0) by saturation": "x = x * 500",
    "exp beyond the type": "nn.init.constant_(model.bias, 100.0)",
    "data hold NaN": "x[3, 1] = float('nan')",
    "overflow of the precision": "y = y + 300",
    "epsilon of the optimiser": "x[:, 0] = 0",
    "inputs not scaled": f"x = x * 100 + 50; {SLOW}",
    "targets not scaled": f"y = x[:, :2].exp() * 1e5; {NETWORK}; {SLOW}",
    "outlier": f"y = torch.randn(64, 2); y[17, 0] = 1e8; {NETWORK}; {SLOW}",
    "step of the optimiser": "warm_up = torch.tensor(0.0)",
    "initial weights too large": "deep = [nn.Linear(64, 64) for _ in range(50)]; x, y = torch.randn(2, 64, 64)",
    "forward pass explodes": (
        "x, y = torch.randn(2, 64, 64); model = nn.Linear(64, 64); nn.init.orthogonal_(model.weight, 1.5)\n"
        "optimizer = torch.optim.SGD(model.parameters(), lr=0.001)"
    ),
    "cost without a minimum": "pixels = 255.0 * (x[:, :2] > 0)",
    "learning rate below 0": f"epoch = 40; {SLOW}",
    "loss scale left in the gradient: step": "scaler = torch.amp.GradScaler('cpu')",
    "loss scale left in the gradient: clip": "scaler = torch.amp.GradScaler('cpu')",
    "penalty too strong": NETWORK,
    "every step skipped": "y = model(x).detach(); scaler = torch.amp.GradScaler('cpu')",
    "shapes broadcast": f"values = x[:, 0]; model = nn.Linear(4, 1); {SLOW}",
    "no better than a constant": "x = torch.randn(2048, 4); labels = (x[:, 0] > 0).long()",
}
"""Section -> what a program of its kind has before; nothing where the page's own lines do."""
OF_CLASSES = ("vanishing gradient", "no better than a constant")
"""Sections whose blocks are trained by the cost of classes."""
NOT_SEEN = ("error raised", "masked, not mended", "underflow of the precision")
"""Causes without a block: a watch sees no such cause, or no code mends it."""


def split_block(code: str) -> tuple[str, str]:
    """What a block says to write, and what in its place is wrong; nothing where it only adds."""
    wrong, _, right = code.rpartition("# write\n")
    return right, wrong.removeprefix("# instead of\n")


def train(title: str, code: str):
    """The autopsy and the record of a program that has these lines."""
    names = {}
    exec(START + SETUPS.get(title, ""), names)
    update = code
    if "loss" not in code:
        exec(code, names)
        if "optimizer =" not in code + SETUPS.get(title, ""):  # of the model that the block has made
            exec("optimizer = torch.optim.SGD(model.parameters(), lr=0.1)", names)
        update = ENTROPY if title in OF_CLASSES else SQUARES
    if "backward" not in update:
        update = f"optimizer.zero_grad()\n{update}\nloss.backward()\noptimizer.step()"
    compiled = compile(update, "train.py", "exec")
    with cnnlab.watch(names["model"], names["optimizer"], scaler=names.get("scaler")) as watch:
        for _ in range(200):
            exec(compiled, names)
            if not names["loss"].isfinite():
                break
    return cnnlab.autopsy(watch.record, prove=False), watch.record


@pytest.mark.parametrize("title", SECTIONS)
def test_what_is_wrong_gives_the_cause_of_its_title_and_what_is_to_be_written_does_not(title):
    right, wrong = split_block(SECTIONS[title])
    cause = title.partition(":")[0]
    found, _ = train(title, wrong)
    assert found.cause == cause
    assert found.confidence >= 0.5
    mended, record = train(title, right)
    if title == "every step skipped":  # the scaler hid what is wrong
        assert mended.cause == "undefined operation"
        return
    assert cause not in [each.name for each in mended.causes]
    assert record.first_nonfinite is None
    assert record.cost[-1] <= record.cost[0]


def test_the_first_program_prints_what_the_page_shows(tmp_path, capsys, monkeypatch):
    """However its lines are folded."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(FIRST)
    runpy.run_path("train.py")
    printed = " ".join(capsys.readouterr().out.split())
    (shown,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    items = [" ".join(item.split()) for item in re.split(r"\n(?!    )", shown.strip())]
    places = [printed.index(item) for item in items]
    assert len(items) >= 4
    assert places == sorted(places)


def test_a_network_that_is_given_has_remedies_that_were_tried(capsys):
    names = {}
    exec(START + TRIED, names)
    printed = capsys.readouterr().out
    assert "Cause: learning rate above critical" in printed
    assert "mends" in printed.partition("Remedies")[2]


def test_a_loop_in_a_thread_is_steered():
    names = {}
    exec(START + STEERED, names)
    names["thread"].join(60)
    knobs = names["watch"].record.knobs_at(1000)
    assert (knobs.learning_rate, knobs.momentum) == (0.01, 0.9)


def test_every_cause_stands_on_the_page_and_none_that_is_not_one():
    listed = set(
        re.findall(r"^\| [^|]*\| \[?([^|\](]*?) ?(?:\([a-z ]*\))?(?:\]|\|)", PAGE.replace("log(0)", "log0"), re.M)
    )
    listed = {name.replace("log0", "log(0)").strip() for name in listed} - {"the autopsy says", "---"}
    assert listed == set(CAUSES) - {"undecided", "healthy"}
    assert {title.partition(":")[0] for title in SECTIONS} == listed - set(NOT_SEEN)


def test_links_of_the_page_lead_to_its_own_titles():
    titles = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    anchors = {"".join(c for c in each.lower().replace(" ", "-") if c.isalnum() or c == "-") for each in titles}
    assert set(re.findall(r"\(#([^)]*)\)", PAGE)) <= anchors
    assert set(SETUPS) <= set(SECTIONS)


def test_readme_and_the_autopsy_name_the_page():
    assert "[docs/nan.md](docs/nan.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
    found, _ = train("undefined operation: root", split_block(SECTIONS["undefined operation: root"])[1])
    assert "docs/nan.md" in str(found)
    assert "docs/nan.md" not in str(cnnlab.autopsy(cnnlab.Run("question").record, prove=False))
    assert torch.is_grad_enabled()


def test_a_root_of_squares_has_no_slope_at_0_and_torch_s_own_norms_have_that_of_0():
    section = PAGE.partition("### undefined operation: root")[2].partition("```")[0]
    norms = {
        "torch.linalg.vector_norm": torch.linalg.vector_norm,
        "torch.cdist": lambda x: torch.cdist(x[None], torch.zeros(1, 3)).sum(),
    }
    slopes = {name: torch.func.grad(norm)(torch.zeros(3)) for name, norm in norms.items()}
    assert not any(slope.any() or slope.isnan().any() for slope in slopes.values())
    assert all(f"`{name}`" in section for name in norms)
    assert torch.func.grad(lambda x: x.square().sum().sqrt())(torch.zeros(3)).isnan().all()
    (code,) = re.findall(r"clamp what is in it, `(.*?)`", section)
    assert eval(code, {"z": torch.linspace(-1, 1, 5)}).isfinite().all()
