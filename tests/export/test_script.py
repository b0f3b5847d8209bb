"""An exported script trains the recorded run again, to the bit, with torch and numpy alone."""

from __future__ import annotations

import ast
import copy
import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import cnnlab
from cnnlab.config.settings import LIMITS, PRESETS
from cnnlab.records.record import Record

ROOT = Path(__file__).parents[2]
LEARNS = {
    "device": "cpu",
    "channels": 3,
    "hidden": (8, 6),
    "patch_size": 14,
    "patches": 10,
    "input_scaling": "standardised",
    "init": "he_normal",
    "init_scale": 1.0,
    "learning_rate": 0.05,
}
"""A small network that learns, so that every update hangs on all that came before it."""
NETWORKS: dict[str, dict[str, object]] = {
    **{f"activation {name}": {"activation": name} for name in ("leaky_relu", "gelu", "selu", "sigmoid")},
    "tanh, Glorot": {"activation": "tanh", "init": "glorot_uniform"},
    "SiLU, LeCun": {"activation": "silu", "init": "lecun_normal"},
    "one convolution": {"depth": 1, "patch_size": 5},
    "padded": {"padding": "same", "depth": 3},
    "batch norm, lsuv": {"normalization": "batch", "init": "lsuv", "dropout": 0.2},
    "batch norm of float16": {"normalization": "batch", "precision": "float16", "batch_size": 5},
    "batch norm after": {"normalization": "batch", "normalization_place": "after", "clip": "norm"},
    "layer norm, adaptive clipping": {"normalization": "layer", "clip": "adaptive", "clip_threshold": 0.01},
    "group norm of float64": {"normalization": "group", "precision": "float64", "channels": 4, "hidden": (12, 6)},
    "dropout in batches": {"dropout": 0.5, "batch_size": 4, "seed": 7},
    "shortcuts": {"residual": "on", "padding": "same", "init": "lsuv"},
    "ReZero, many layers": {"residual": "zero", "padding": "same", "depth": 24, "normalization": "batch", "l2": 0.1},
    "many plain layers": {"padding": "same", "depth": 30, "activation": "elu"},
    "64 layers in pairs": {"padding": "same", "depth": 64, "residual": "on", "patch_size": 6},
    "everything in the network": {
        "residual": "zero", "padding": "same", "depth": 5, "normalization": "batch", "dropout": 0.3, "init": "lsuv",
        "batch_size": 5, "activation": "gelu", "precision": "bfloat16", "clip": "adaptive", "momentum": 0.9,
    },
}  # fmt: skip
"""Networks that are not the question's."""
PENALTIES = [{"l1": 0.01}, {"l2": 0.1}, {"l1": 0.01, "l2": 0.1}]
DRIVER = """
import contextlib, io, json, sys
said = {}
for path in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()) as heard:
        exec(compile(open(path, encoding="utf-8").read(), path, "exec"), {"__name__": "__main__"})
    said[path] = heard.getvalue()
assert "cnnlab" not in sys.modules
print(json.dumps(said))
"""
"""Runs scripts one after the other in one Python, which imports torch once."""


DATA = re.compile(r"PICTURE|CORNERS| +\d+: ")
"""Beginnings of the lines of a script that are long: data, and a table of hundreds of changes."""


def trained(updates: int = 6, /, preset: str = "question", **changes: object) -> Callable[[], Record]:
    """A run of so many updates, to be made when it is needed."""

    def record() -> Record:
        run = cnnlab.Run(preset, **changes)
        run.advance(updates)
        return run.record

    return record


def small(updates: int = 6, /, **changes: object) -> Callable[[], Record]:
    """The same of the small network."""
    return trained(updates, **{**LEARNS, **changes})


def changed(*changes: dict[str, object], **start: object) -> Callable[[], Record]:
    """The small network, two updates before each change of knobs and three at the end."""

    def record() -> Record:
        run = cnnlab.Run(**{**LEARNS, **start})
        for change in changes:
            run.advance(2)
            run.set(**change)
        run.advance(3)
        return run.record

    return record


def many_changes(**start: object) -> Callable[[], Record]:
    """A slider dragged without end."""

    def record() -> Record:
        run = cnnlab.Run(**{**LEARNS, **start})
        for update in range(100):
            kind = ("off", "value", "norm", "adaptive")[update % 4]
            place = "cost" if update % 3 else "update"
            run.set(learning_rate=0.01 + update * 1e-5, clip=kind, penalty_in=place, momentum=0.1 * (update % 5))
            run.set(l1=1e-4 * (update % 2), l2=1e-3 * (update % 3), clip_threshold=1 + update / 7)
            run.set(epsilon=1e-9 * (update % 6))
            run.step()
        return run.record

    return record


def forked() -> Record:
    """A run that explodes, and a fork of it that does not."""
    run = cnnlab.Run("question", device="cpu", channels=4, hidden=(16, 16))
    run.advance(6)
    run.set(momentum=0.5)
    run.advance(2)
    twin = run.fork(2, clip="norm", clip_threshold=1.0, learning_rate=1e-3)
    twin.advance(3)
    twin.set(learning_rate=1e-4)
    twin.advance(3)
    return twin.record


def rewound() -> Record:
    """A run with changes that a rewind takes back."""
    run = cnnlab.Run(**LEARNS)
    run.advance(3)
    run.set(learning_rate=0.01)
    run.advance(3)
    run.rewind(2)
    run.set(momentum=0.9)
    run.advance(4)
    return run.record


def options(name: str) -> tuple[str, ...]:
    """What a setting may be."""
    return LIMITS[name].options


def all_cases() -> dict[str, Callable[[], Record]]:
    """Name -> the making of a record."""
    # What Adam trained is trained by torch's, which rounds otherwise: see test_optimizer_scripts.py.
    cases = {f"preset {name}": trained(6, name, device="cpu") for name in PRESETS if name not in ("question", "adam")}
    cases["preset question"] = trained(20, device="cpu")
    cases["question, device left open"] = trained(2)
    for cost in options("cost"):
        for reduction in options("reduction"):
            for epsilon in (0.0, 1e-3):
                cases[f"{cost} {reduction} {epsilon}"] = small(cost=cost, reduction=reduction, epsilon=epsilon)
    for precision in options("precision"):
        cases[precision] = small(precision=precision, momentum=0.9)
        cases[f"{precision} raw"] = small(precision=precision, input_scaling="raw", init="question_6")
        cases[f"{precision} lsuv"] = small(precision=precision, init="lsuv")
        cases[f"{precision} epsilon"] = small(precision=precision, cost="softmax_log", epsilon=1e-3)
        for clip in options("clip"):
            cases[f"{precision} {clip}"] = small(precision=precision, clip=clip, clip_threshold=0.05)
        for place in options("penalty_in"):
            for penalty in PENALTIES:
                cases[f"{precision} {penalty} {place}"] = small(precision=precision, penalty_in=place, **penalty)
    for init in options("init"):
        cases[init] = small(init=init, seed=3)
        cases[f"{init} of 0.5"] = small(init=init, init_scale=0.5, patch_size=13)
    for relu in options("relu"):
        cases[f"relu {relu}"] = small(relu=relu)
        cases[f"relu {relu} lsuv"] = small(relu=relu, init="lsuv")
    for name, changes in NETWORKS.items():
        cases[name] = small(**changes)
    for scaling in options("input_scaling"):
        cases[f"{scaling} pixels"] = small(input_scaling=scaling)
    for size in (1, 4, 5, 9, 10):
        cases[f"batches of {size}"] = small(8, batch_size=size, seed=5)
    cases["an exploding clipped run"] = trained(
        8, device="cpu", channels=4, hidden=(16, 16), clip="value", clip_threshold=1e9
    )
    cases["learning rate changed"] = changed({"learning_rate": 0.01}, {"learning_rate": 0.1})
    cases["learning rate changed, float64"] = changed({"learning_rate": 0.01}, precision="float64")
    cases["clipping switched on"] = changed({"clip": "norm", "clip_threshold": 0.1})
    cases["clipping switched on and off"] = changed({"clip": "adaptive"}, {"clip": "off"}, clip_threshold=0.01)
    cases["kinds of clipping"] = changed({"clip": "value"}, {"clip": "norm"}, clip="adaptive", clip_threshold=0.05)
    cases["threshold changed"] = changed({"clip_threshold": 0.5}, clip="value", clip_threshold=0.01)
    cases["momentum on and off"] = changed({"momentum": 0.9}, {"momentum": 0.0}, {"momentum": 0.5})
    cases["momentum off"] = changed({"momentum": 0.0}, {"momentum": 0.5}, momentum=0.9)
    cases["momentum changed"] = changed({"momentum": 0.2}, {"learning_rate": 0.01}, momentum=0.9)
    cases["epsilon changed"] = changed({"epsilon": 1e-3}, cost="softmax_log")
    cases["epsilon without use"] = changed({"epsilon": 1e-3}, cost="log_softmax")
    cases["penalty switched on"] = changed({"l2": 0.1}, {"l1": 0.01})
    cases["penalty moved"] = changed({"penalty_in": "update"}, {"penalty_in": "cost"}, l1=0.01, l2=0.1, momentum=0.5)
    cases["penalty moved while it is off"] = changed({"penalty_in": "update"}, {"l2": 0.1})
    cases["penalties changed, bfloat16"] = changed({"l1": 0.0}, {"l2": 0.1}, l1=0.01, precision="bfloat16")
    cases["only kinds changed"] = changed({"clip": "norm"}, {"penalty_in": "update"}, l2=0.1, clip_threshold=0.1)
    cases["number and kind changed"] = changed({"clip": "norm", "learning_rate": 0.01}, clip_threshold=0.1)
    cases["a fork"] = forked
    cases["a rewound run"] = rewound
    whole = {"init": "lsuv", "batch_size": 3, "cost": "softmax_log", "relu": "softmax_too", "init_scale": 0.5}
    whole |= {"seed": 4294967295, "reduction": "sum", "patches": 200, "image": "mosaic", "epochs": 1000000}
    cases["everything at once"] = many_changes(**whole, precision="bfloat16")
    cases["everything at once, float64"] = many_changes(**whole, precision="float64")
    return cases


CASES = all_cases()
each_case = pytest.mark.parametrize("case", CASES)


@pytest.fixture(scope="module")
def records() -> dict[str, Record]:
    return {name: make() for name, make in CASES.items()}


@pytest.fixture(scope="module")
def scripts(records, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("scripts")
    paths = {name: folder / f"script_{place}.py" for place, name in enumerate(records)}
    for name, path in paths.items():
        cnnlab.export_script(records[name], path)
    return paths


@pytest.fixture(scope="module")
def printed(scripts) -> dict[str, list[str]]:
    """What each script prints, line by line, in a Python that does not know cnnlab and has several threads."""
    run = python("-I", "-c", DRIVER, *map(str, scripts.values()))
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    said = json.loads(run.stdout)
    return {name: said[str(path)].splitlines() for name, path in scripts.items()}


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run this Python, with as many threads as torch likes, and keep what it says."""
    free = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | variables
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=free, cwd=ROOT)


@each_case
def test_the_script_prints_the_recorded_costs_to_the_last_bit(case, records, printed):
    costs = records[case].cost.tolist()
    assert printed[case] == [f"update {step}  cost {cost!r}" for step, cost in enumerate(costs, 1)]


def test_the_small_runs_learn_something(records):
    costs = records["float32"].cost
    assert len(set(costs.tolist())) == len(costs)


def test_the_question_s_script_explodes_as_the_question_does(printed):
    assert printed["preset question"][3:5] == ["update 4  cost nan", "update 5  cost nan"]


@each_case
def test_the_script_has_at_most_150_lines_or_200_where_norms_shortcuts_or_dropout_stand_in_it(case, scripts):
    assert len(scripts[case].read_text().splitlines()) <= (200 if case in NETWORKS else 150)


@each_case
def test_the_script_imports_torch_numpy_and_what_unpacks_the_image(case, scripts):
    tree = ast.parse(scripts[case].read_text())
    plain = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    given = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {"base64", "zlib", "numpy", "torch"} <= plain <= {"base64", "zlib", "numpy", "torch", "math"}
    assert given == {"torch"}


def test_ruff_finds_nothing_in_the_scripts_but_long_lines_of_data(scripts):
    paths = [str(path) for path in scripts.values()]
    config = str(ROOT / "pyproject.toml")
    for arguments in (["check", "--ignore", "E501"], ["format", "--check"]):
        run = python("-m", "ruff", *arguments, "--config", config, "--no-cache", "--quiet", *paths)
        assert run.returncode == 0, run.stdout + run.stderr


@each_case
def test_the_code_of_a_script_keeps_to_120_characters(case, scripts):
    lines = scripts[case].read_text().splitlines()
    longest = max(lines, key=lambda line: 0 if DATA.match(line) else len(line))
    assert len(longest) <= 120, longest


def test_the_script_names_no_place_of_this_machine(scripts):
    for path in scripts.values():
        text = path.read_text()
        for place in (str(ROOT), str(Path.home()) + "/", str(path.parent), sys.prefix, "file://", "http"):
            assert place not in text


def test_the_question_s_script_holds_only_what_the_question_needs(scripts):
    code = code_of(scripts["preset question"].read_text())
    names = "clip|choose_batch|scale_to_norm|momentum|velocity|direction|epsilon|l1|l2|SCHEDULE|cuda|std|qr|var|if step"
    assert set(re.findall(rf"\b({names}|float64)\b", code)) == {"float64"}


def test_a_change_that_comes_to_nothing_leaves_no_table(scripts):
    assert "SCHEDULE" not in scripts["epsilon without use"].read_text()


def test_only_the_kinds_of_clipping_that_were_used_are_there(scripts):
    text = scripts["clipping switched on"].read_text()
    assert "scale_to_norm" in text
    assert "clip_by_value" not in text
    assert "clip_adaptively" not in text


def test_a_change_of_knobs_is_a_row_of_the_table(scripts):
    text = scripts["learning rate changed"].read_text()
    assert "SCHEDULE = {\n    1: 0.05,\n    3: 0.01,\n    5: 0.1,\n}" in text


def test_the_script_runs_by_itself(records, scripts):
    run = python(str(scripts["a fork"]))
    assert run.stderr == ""
    assert [float(line.split()[-1]) for line in run.stdout.splitlines()] == records["a fork"].cost.tolist()


@pytest.mark.parametrize(("case", "updates"), [("preset question", 2), ("preset converges", 6)])
def test_with_other_instructions_the_costs_agree_to_1e_5_until_the_explosion(case, updates, records, scripts):
    plain = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}
    run = python(str(scripts[case]), **plain)
    costs = [float(line.split()[-1]) for line in run.stdout.splitlines()]
    assert costs[:updates] == pytest.approx(records[case].cost[:updates].tolist(), rel=1e-5)


def test_a_record_from_a_file_gives_the_same_script(records, scripts, tmp_path):
    records["a fork"].save(tmp_path / "fork.cnnlab")
    cnnlab.export_script(cnnlab.load(tmp_path / "fork.cnnlab"), tmp_path / "run.py")
    assert (tmp_path / "run.py").read_text() == scripts["a fork"].read_text()


def test_a_fork_differs_from_its_parent_only_after_the_fork(records):
    record = records["a fork"]
    assert [first for first, _ in record.schedule] == [1, 3, 6]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("precision", options("precision"))
def test_not_even_the_longest_settings_take_more_than_150_lines(records, tmp_path, precision, device):
    record = records["everything at once"]
    number = 1.2345678901234567e-05
    knobs = dict.fromkeys(("learning_rate", "momentum", "clip_threshold", "epsilon", "l1", "l2", "init_scale"), number)
    longest = {"preset": "vanishing", "channels": 256, "hidden": (4096, 4096), "batch_size": 149, "patch_size": 13}
    settings = record.settings.replace(**knobs, **longest, clip="adaptive", device=device, precision=precision)
    schedule = tuple((first, dataclasses.replace(knobs, momentum=number)) for first, knobs in record.schedule)
    for changes in (record.schedule, schedule):
        path = tmp_path / "run.py"
        cnnlab.export_script(dataclasses.replace(record, settings=settings, schedule=changes), path)
        assert len(path.read_text().splitlines()) <= 150


def test_a_script_for_a_gpu_is_written_only_if_the_settings_name_one(records, tmp_path):
    record = records["everything at once"]
    on_gpu = dataclasses.replace(record, settings=record.settings.replace(device="cuda"))
    cnnlab.export_script(on_gpu, tmp_path / "run.py")
    text = (tmp_path / "run.py").read_text()
    assert 'to("cuda", torch.bfloat16)' in text
    assert len(text.splitlines()) <= 150
    compile(text, "run.py", "exec")


def test_a_record_of_a_network_of_one_s_own_is_refused(tmp_path):
    data = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
    run = cnnlab.Run(network=nn.Linear(3, 2), data=data, cost="log_softmax")
    run.step()
    with pytest.raises(ValueError, match="question's network only, got a record of a network of your own"):
        cnnlab.export_script(run.record, tmp_path / "run.py")
    assert not list(tmp_path.iterdir())


def test_a_copy_of_the_question_s_network_with_other_data_is_refused(tmp_path):
    run = cnnlab.Run(**LEARNS)
    own = copy.deepcopy(run.network).to_empty(device="cpu")
    twin = cnnlab.Run(network=own, data=(torch.zeros(4, 1, 14, 14), torch.tensor([0, 1, 0, 1])), cost="log_softmax")
    twin.step()
    assert twin.record.layers == run.record.layers
    with pytest.raises(ValueError, match="of your own"):
        cnnlab.export_script(twin.record, tmp_path / "run.py")


def test_a_record_without_updates_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 1 update, got 0"):
        cnnlab.export_script(cnnlab.Run(**LEARNS).record, tmp_path / "run.py")


def test_a_script_takes_the_place_of_the_one_before(records, tmp_path):
    path = tmp_path / "run.py"
    path.write_text("old")
    cnnlab.export_script(records["float32"], str(path))
    assert path.read_text().startswith('"""Train the network')
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_while_writing_leaves_the_old_script_and_nothing_else(records, tmp_path, monkeypatch):
    path = tmp_path / "run.py"
    path.write_text("old")

    def fails(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="disk full"):
        cnnlab.export_script(records["float32"], path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_docstring_shows_the_form_of_a_line(printed):
    shown = cnnlab.export_script.__doc__
    assert "`update 1  cost 5.640" in shown
    assert printed["preset question"][0] in shown


def code_of(text: str) -> str:
    """A script without its docstrings, its data and its comments."""
    code = "".join(part for place, part in enumerate(text.split('"""')) if place % 2 == 0)
    return "\n".join(line.partition("#")[0] for line in code.splitlines() if not DATA.match(line))
