"""The command line: what it prints, where, and with which exit status."""

import dataclasses
import importlib.util
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import cnnlab
from cnnlab.cli import check as machine
from cnnlab.cli import main as command
from cnnlab.cli import tables
from cnnlab.cli.main import main
from cnnlab.config.settings import LIMITS
from cnnlab.course import lab_files
from cnnlab.records.formats import format_fixed

ROOT = Path(__file__).parents[2]
CALL = "import sys; from cnnlab.cli.main import main; sys.exit(main())"
SMALL = ["--channels", "4", "--hidden", "8", "8"]
EXPLODING = ["run", "question", *SMALL, "--learning-rate", "100", "--epochs", "6"]


def strict(text):
    """JSON that refuses NaN and Infinity, as other languages do."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def said(capsys, arguments):
    """Exit status, standard output and standard error of one command."""
    status = main(arguments)
    return status, *capsys.readouterr()


def test_a_run_with_a_loss_scale_prints_it_and_what_it_left_out(capsys):
    small = ["run", "question", "--channels", "2", "--hidden", "4", "4", "--patch-size", "13", "--patches", "8"]
    scaled = [*small, "--precision", "float16", "--loss-scale", "dynamic", "--learning-rate", "1e-6", "--epochs", "3"]
    status, printed, _ = said(capsys, scaled)
    assert status == 0
    assert re.search(r"largest weight +loss scale +left out", printed)
    assert re.search(r"^ *1 .* 65536.00 +1 *$", printed, re.MULTILINE)
    found = strict(said(capsys, [*scaled, "--json"])[1])
    assert (found["scale"][0], found["skipped"][0]) == (65536, 1)
    assert found["settings"]["loss_scale"] == "dynamic"
    plain = said(capsys, [*small, "--epochs", "1"])[1]
    assert "loss scale" not in plain
    status, _, refused = said(capsys, [*small, "--loss-scale", "1024"])
    assert status == 2
    assert "loss_scale must be 'off' with precision 'float32', got 1024.0" in refused


# What a person may type


@pytest.mark.parametrize("name", LIMITS)
def test_every_setting_has_an_option_that_reads_what_settings_hold(name):
    value = getattr(cnnlab.settings(), name)
    words = [str(part) for part in value] if isinstance(value, tuple) else [str(value)]
    given, rest = command.make_parser().parse_known_args(["run", "--" + name.replace("_", "-"), *words])
    assert command.read_settings(given, rest) == (cnnlab.settings(), ())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "--learning-rate", "-0.1"], "learning_rate must lie in (0, 1e6], got -0.1"),
        (["run", "--learning-rate", "quick"], "learning_rate must be a number in (0, 1e6], got 'quick'"),
        (["run", "--seed", "1.5"], "seed must be a whole number in"),
        (["run", "--hidden", "3", "x"], "hidden[1] must be a whole number in [1, 4096], got 'x'"),
        (["run", "--batch-size", "67"], "batch_size must lie in [1, 66], the number of patches, got 67"),
        (["run", "--clip", "norme"], "did you mean 'norm'?"),
        (["run", "qestion"], "did you mean 'question'?"),
        (["run", "--learnin-rate", "3"], "did you mean 'learning_rate'?"),
        (["run", "question", "twice"], "not understood: twice"),
        (["check", "--all"], "not understood: --all"),
    ],
)
def test_misuse_is_answered_by_one_sentence(capsys, arguments, sentence):
    status, out, err = said(capsys, arguments)
    assert (status, out) == (2, "")
    assert sentence in err
    assert err.startswith("cnnlab: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_a_device_that_is_not_there_is_misuse(capsys, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    status, out, err = said(capsys, ["run", "--device", "cuda"])
    assert (status, out) == (2, "")
    assert "got 'cuda'" in err


def test_help_answers_without_importing_torch():
    script = f"import atexit; atexit.register(lambda: print('torch' in sys.modules, 'rich' in sys.modules)); {CALL}"
    run = subprocess.run([sys.executable, "-c", script, "run", "--help"], capture_output=True, text=True)
    assert run.returncode == 0
    assert "--learning-rate" in run.stdout
    assert run.stdout.endswith("False False\n")


def test_the_version_is_the_package_s(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"cnnlab {cnnlab.__version__}\n"


def test_presets_are_listed_as_they_are_called(capsys):
    status, out, _ = said(capsys, ["presets"])
    assert status == 0
    words = [line.split() for line in out.splitlines()]
    assert [name for name, *_ in words] == list(cnnlab.presets())
    for name, *options in words[1:]:
        start, _ = command.read_settings(*command.make_parser().parse_known_args(["run", "question", *options]))
        assert dataclasses.replace(start, preset=name) == cnnlab.settings(name)


@pytest.mark.parametrize(("typed", "meant"), [("--jsn", "--json"), ("--explan", "--explain"), ("--lern", "")])
def test_a_mistyped_option_is_answered_with_the_nearest(capsys, typed, meant):
    status, _, err = said(capsys, ["run", typed])
    assert status == 2
    assert f"did you mean {meant}?" in err if meant else "there is no setting named 'lern'" in err


# cnnlab run


def test_run_prints_a_row_for_each_epoch_and_divergence_is_no_failure(capsys):
    status, out, err = said(capsys, EXPLODING)
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines() if re.match(r" *\d+ ", line)] == list("123456")
    assert "nan" in out or "inf" in out


def test_run_prints_the_watched_weights_from_the_start_on(capsys):
    record = trained(*EXPLODING[2:])
    _, out, _ = said(capsys, EXPLODING)
    assert re.search(r"weight +initial +1 +2 +3 +4\b", out)
    for name, values in zip(record.watched, record.watched_values.T, strict=True):
        (line,) = (line for line in out.splitlines() if line.strip().startswith(name))
        assert line.split()[1:] == [format_fixed(value, 6, 1000) for value in values[:5]]


def test_run_ends_with_the_verdict(capsys):
    _, out, _ = said(capsys, EXPLODING)
    assert out.splitlines()[-1] == cnnlab.state_line(trained(*EXPLODING[2:]))


def test_run_in_a_pipe_writes_neither_colours_nor_a_progress_bar(capsys):
    _, out, err = said(capsys, EXPLODING)
    assert "\x1b" not in out
    assert "…" not in out
    assert err == ""


def test_rows_show_the_last_update_of_each_epoch(capsys):
    arguments = ["run", *SMALL, "--batch-size", "33", "--epochs", "2", "--learning-rate", "1e-5"]
    _, out, _ = said(capsys, arguments)
    cost = trained(*arguments[1:]).cost
    assert "An epoch is 2 updates; each row shows its last one." in out
    assert [line.split()[1] for line in out.splitlines() if re.match(r" *[12] ", line)] == [
        format_fixed(cost[1], 6, 1000),
        format_fixed(cost[3], 6, 1000),
    ]


def test_numbers_that_are_not_finite_are_red():
    assert [tables.format_cell(value).style for value in (1.0, math.nan, math.inf)] == ["", "bold red", "bold red"]


def trained(*options):
    """The record that the library itself gives for the same options."""
    given, rest = command.make_parser().parse_known_args(["run", "question", *options])
    run = cnnlab.Run(command.read_settings(given, rest)[0])
    run.advance(run.updates_per_epoch * run.settings.epochs)
    return run.record


def test_json_is_strict_and_says_what_the_record_says(capsys):
    status, out, err = said(capsys, [*EXPLODING, "--json"])
    record, values = trained(*EXPLODING[2:]), strict(out)
    assert (status, err, out.count("\n")) == (0, "", 1)
    np.testing.assert_array_equal([float(cost) for cost in values["cost"]], record.cost)
    assert record.first_nonfinite is not None
    assert values["first_nonfinite"] == record.first_nonfinite
    assert values["cost"][record.first_nonfinite - 1] in {"nan", "inf", "-inf"}
    assert cnnlab.Settings.from_json(json.dumps(values["settings"])) == record.settings
    assert list(values["watched"]) == list(record.watched)
    assert {len(series) for series in values["watched"].values()} == {7}
    assert len(values["accuracy"]) == 6
    assert values["verdict"] == cnnlab.state_line(record)


def test_json_of_a_run_that_stays_finite_has_no_first_nonfinite_update(capsys):
    _, out, _ = said(capsys, ["run", *SMALL, "--learning-rate", "1e-6", "--epochs", "1", "--json"])
    assert strict(out)["first_nonfinite"] is None
    assert all(isinstance(cost, float) for cost in strict(out)["cost"])


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_prints_what_was_done(capsys, monkeypatch, as_json):
    whole = cnnlab.Run.advance

    def interrupted(run, updates, until=None):
        if run.updates == 2:
            raise KeyboardInterrupt
        return whole(run, updates, until)

    monkeypatch.setattr(cnnlab.Run, "advance", interrupted)
    status, out, err = said(capsys, [*EXPLODING, *(["--json"] if as_json else [])])
    assert status == 130
    assert err == "cnnlab: stopped after 2 of 6 updates\n"
    done = strict(out)["cost"] if as_json else re.findall(r"^ *\d+ ", out, re.MULTILINE)
    assert len(done) == 2


def test_ctrl_c_before_the_first_update_prints_empty_tables(capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cnnlab.Run, "advance", interrupted)
    status, out, err = said(capsys, EXPLODING)
    assert status == 130
    assert "initial" in out
    assert err == "cnnlab: stopped after 0 of 6 updates\n"


@pytest.mark.skipif(os.name == "nt", reason="signals are of Unix")
def test_an_interrupt_from_outside_ends_the_process_with_130():
    words = ["run", *SMALL, "--epochs", "1000000", "--json"]
    code = "from cnnlab.training.run import Run; print('ready', file=sys.stderr, flush=True)"
    script = f"import sys; {code}; {CALL}"
    heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}  # in the background, too
    with subprocess.Popen([sys.executable, "-c", script, *words], stdout=-1, stderr=-1, text=True, **heed) as process:
        try:
            assert process.stderr.readline() == "ready\n"
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(2)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert len(strict(out)["cost"]) > 0


# cnnlab check


def test_check_says_ok_in_words_and_ends_with_0_when_all_is_there(capsys, monkeypatch):
    monkeypatch.setattr(command, "inspect_machine", lambda: iter([machine.Finding("python", True, "3.13.1")]))
    status, out, _ = said(capsys, ["check"])
    assert status == 0
    assert re.fullmatch(r"ok +python +3\.13\.1\n", out)


def test_check_says_missing_and_ends_with_1(capsys, monkeypatch):
    monkeypatch.setattr(machine.metadata, "requires", lambda _: ["nonesuch>=2", 'pytest>=1; extra == "test"'])
    status, out, _ = said(capsys, ["check"])
    assert status == 1
    assert re.search(r"^missing +nonesuch +not installed \(needs >=2\)$", out, re.MULTILINE)
    assert "pytest" not in out
    assert re.search(r"^ok +devices .*cpu \(\d+ threads?\)", out, re.MULTILINE)
    assert re.search(r"^\w+ +memory +[\d.]+ GiB available", out, re.MULTILINE)


def test_check_says_that_the_package_itself_is_not_installed(monkeypatch):
    def absent(name):
        raise machine.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(machine.metadata, "requires", absent)
    (finding,) = machine.inspect_packages()
    assert not finding.present
    assert "pip install -e ." in finding.words


@pytest.mark.parametrize(("requirement", "present"), [("numpy>=1", True), ("numpy>=99", False), ("numpy>=1,<2", False)])
def test_a_package_is_missing_when_its_version_will_not_do(requirement, present):
    assert machine.inspect_package(requirement).present is present


# cnnlab lab


@pytest.fixture
def launched(monkeypatch, tmp_path):
    """What JupyterLab was started with, in a folder of its own with a space in its path; it starts no server."""
    from jupyterlab.labapp import LabApp

    calls = []

    class Server:
        def start(self):
            calls.append("started")

    def initialize_server(arguments, **options):
        calls.append((arguments, options))
        return Server()

    (tmp_path / "my work").mkdir()
    monkeypatch.chdir(tmp_path / "my work")
    monkeypatch.setattr(LabApp, "initialize_server", initialize_server)
    return calls


def served(launched):
    """The folder that JupyterLab serves, and the notebook that it opens."""
    root, address = launched[0][0][:2]
    return Path(root.removeprefix("--ServerApp.root_dir=")), address.removeprefix("--LabApp.default_url=/lab/tree/")


@pytest.fixture
def wheel(monkeypatch, tmp_path):
    """A package as a wheel installs it, with the labs in it and no clone around."""
    package = tmp_path / "site-packages" / "cnnlab"
    shutil.copytree(lab_files.find_labs(), package / "labs")
    for module in (lab_files, command):
        monkeypatch.setattr(module, "PACKAGE", package)
    return package


@pytest.mark.parametrize("arguments", [[], ["lab"]])
def test_lab_serves_the_clone_and_opens_the_first_lab(arguments, launched):
    assert main(arguments) == 0
    (_, options), started = launched
    assert served(launched) == (ROOT, f"labs/{machine.FIRST_LAB}")
    assert os.listdir() == []
    assert options["tornado_settings"]["page_config_hook"] is command.disable_news
    assert started == "started"


def test_lab_passes_on_what_jupyter_lab_understands(launched):
    assert main(["lab", "--port", "9", "--ip=0.0.0.0", "--no-browser", "--allow-root", "--ServerApp.token=x"]) == 0
    given = launched[0][0]
    assert given[2:] == ["--port=9", "--ip=0.0.0.0", "--no-browser", "--allow-root", "--ServerApp.token=x"]


@pytest.mark.parametrize("words", [["--no-browser"], ["--port", "9"], ["--port=9", "--no-browser"], ["--ip=0.0.0.0"]])
def test_the_server_s_options_need_no_command(words, launched):
    assert main(words) == 0
    alone = launched[0][0]
    assert main(["lab", *words]) == 0
    assert launched[0][0] == alone
    assert len(alone) > 2


def test_other_words_without_a_command_are_refused(launched, capsys):
    assert main(["--prot=9"]) == 2
    assert "not understood: --prot=9" in capsys.readouterr().err
    assert not launched


def test_the_news_extension_is_disabled_besides_those_that_were():
    page = command.disable_news(None, {"disabledExtensions": ["other"], "devMode": False})
    assert page == {"disabledExtensions": sorted([command.NEWS, "other"]), "devMode": False}


def test_lab_copies_the_labs_of_a_wheel_beside_the_user_and_opens_the_copy(wheel, launched, capsys):
    before = {path: path.stat().st_mtime_ns for path in wheel.rglob("*")}
    status, out, err = said(capsys, [])
    copies = Path.cwd() / "cnnlab-labs"
    assert (status, out, err.count("\n")) == (0, "", 1)
    assert f"the labs are in {copies}" in err
    assert served(launched) == (copies, machine.FIRST_LAB)
    assert {path.name for path in copies.glob("*.ipynb")} == {path.name for path in (wheel / "labs").glob("*.ipynb")}
    assert {path: path.stat().st_mtime_ns for path in wheel.rglob("*")} == before


def test_lab_leaves_the_copies_that_were_worked_on_as_they_are(wheel, launched):
    worked = Path("cnnlab-labs") / machine.FIRST_LAB
    worked.parent.mkdir()
    worked.write_text("mine")
    assert main(["lab"]) == 0
    assert worked.read_text() == "mine"
    assert len(list(worked.parent.glob("*.ipynb"))) > 1


def test_lab_opens_copies_in_the_present_folder_and_makes_no_others(wheel, launched):
    Path(machine.FIRST_LAB).write_text("mine")
    assert main(["lab"]) == 0
    assert served(launched) == (Path.cwd(), machine.FIRST_LAB)
    assert os.listdir() == [machine.FIRST_LAB]


@pytest.mark.parametrize("words", [["--folder", "mine/labs"], ["lab", "--folder=mine/labs"]])
@pytest.mark.parametrize("installed", ["a wheel", "a clone"])
def test_a_folder_of_the_user_s_choice_gets_the_labs_and_is_opened(request, launched, capsys, words, installed):
    if installed == "a wheel":
        request.getfixturevalue("wheel")
    changed = Path("mine") / "labs" / "01_how_large_a_step.ipynb"
    changed.parent.mkdir(parents=True)
    changed.write_text("mine")
    status, out, err = said(capsys, [*words, "--no-browser"] if words[0] == "lab" else words)
    assert (status, out, err.count("\n")) == (0, "", 1)
    assert f"the labs are in {changed.parent.absolute()}" in err
    assert "1 that you changed are left as they are" in err
    assert served(launched) == (changed.parent.absolute(), machine.FIRST_LAB)
    assert changed.read_text() == "mine"
    assert {path.name for path in changed.parent.glob("*.ipynb")} == {
        path.name for path in (ROOT / "labs").glob("*.ipynb")
    }
    assert os.listdir() == ["mine"]


def test_a_folder_that_is_a_file_is_refused(launched, capsys):
    Path("mine").write_text("")
    status, _, err = said(capsys, ["--folder", "mine"])
    assert (status, err.count("\n")) == (2, 1)
    assert "is a file, not a folder to copy the labs into" in err
    assert not launched


OPENED = """
from jupyterlab.labapp import LabApp
LabApp.initialize_server = lambda words, **_: type("Server", (), {"start": lambda self: print(*words, sep="\\n")})()
import cnnlab.cli.main
raise SystemExit(cnnlab.cli.main.main())
"""
"""A program that carries out a command line as `cnnlab` does, and prints what JupyterLab would be started with."""


def test_a_built_wheel_without_a_clone_copies_its_labs_and_opens_them(tmp_path):
    here = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []  # else pip fetches it
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", *here, "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "installed")
    words = [sys.executable, "-c", OPENED, "--folder", "mine"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    run = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[0] == f"--ServerApp.root_dir={tmp_path / 'mine'}"
    for lab in [*(ROOT / "labs").glob("*.ipynb"), *(ROOT / "labs" / "solutions").glob("*.ipynb")]:
        assert (tmp_path / "mine" / lab.relative_to(ROOT / "labs")).read_bytes() == lab.read_bytes()


@pytest.mark.parametrize("arguments", [[], ["lab"]])
def test_without_labs_there_is_nothing_to_open(capsys, monkeypatch, tmp_path, arguments):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lab_files, "PACKAGE", tmp_path / "cnnlab")
    status, out, err = said(capsys, arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert f"there are no labs in {tmp_path / 'cnnlab' / 'labs'}, nor in {tmp_path / 'labs'}" in err
    finding = machine.inspect_labs()
    assert not finding.present
    assert "install cnnlab again" in finding.words
    assert os.listdir() == []


def test_check_finds_the_labs_of_a_wheel(wheel):
    assert machine.inspect_labs() == machine.Finding("labs", True, str(wheel / "labs"))


@pytest.fixture
def address(tmp_path):
    """The address that `cnnlab lab` prints, served from a folder that is not the clone, with a new user's settings."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    new = {name: str(tmp_path / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTERLAB_SETTINGS_DIR")}
    words = ["lab", "--no-browser", "--port", str(port), "--allow-root"]
    with subprocess.Popen(
        [sys.executable, "-c", CALL, *words],
        cwd=tmp_path,
        env={**os.environ, **new, "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces")},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        found = (re.search(rf"http://127\.0\.0\.1:{port}\S+", line) for line in process.stderr)
        yield next(match[0] for match in found if match)
        process.terminate()
        process.communicate(timeout=30)


def chromium():
    """Where the browser is; without one the test is skipped, or fails where CNNLAB_REQUIRE_BROWSER is set."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        (pytest.fail if os.environ.get("CNNLAB_REQUIRE_BROWSER") else pytest.skip)("there is no chromium")
    return path


def test_jupyterlab_opens_on_the_first_lab_and_asks_nothing_about_news(address):
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=60_000)
        # The kernel is ready later than the popup would come: JupyterLab asks as soon as its layout is restored.
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=60_000)
        page.wait_for_timeout(2_000)
        assert page.url.endswith(f"/lab/tree/labs/{machine.FIRST_LAB}")
        assert page.get_by_text("official Jupyter news").count() == 0
        assert page.locator(".Toastify__toast").count() == 0
        browser.close()


def test_explain_says_why_it_broke_below_the_tables(capsys):
    status, out, _ = said(capsys, [*EXPLODING, "--explain"])
    assert status == 0
    assert out.index("cost is NaN since") < out.index("Cause: ") < out.index("First NaN or inf: update ")
    assert "Remedies, tried from update" in out


def test_explain_goes_into_json_with_its_place(capsys):
    _, out, _ = said(capsys, [*EXPLODING, "--explain", "--json"])
    found = strict(out)["explanation"]
    assert found["step"] == strict(out)["first_nonfinite"]
    assert {trial["verdict"] for trial in found["remedies"]} <= {"mends", "only hides", "does not help", "not reached"}


# Where nothing can be written


def ended(words, script=CALL, **options):
    """The process of a command line that has ended."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    words = [sys.executable, "-c", script, *words]
    return subprocess.run(words, stderr=subprocess.PIPE, text=True, env=environment, timeout=120, **options)


WRITING = {"run": EXPLODING, "json": [*EXPLODING, "--json"], "presets": ["presets"], "help": ["run", "--help"]}
FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no full disk here")
UNIX = pytest.mark.skipif(os.name == "nt", reason="file descriptors are of Unix")


@FULL
@pytest.mark.parametrize("name", [*WRITING, "check"])
def test_a_full_disk_is_one_sentence_and_status_1(name):
    with open("/dev/full", "w") as full:
        run = ended(WRITING.get(name, ["check"]), stdout=full)
    assert (run.returncode, run.stderr) == (1, "cnnlab: the output cannot be written: No space left on device\n")


@UNIX
@pytest.mark.parametrize("name", WRITING)
def test_a_closed_pipe_ends_a_command_quietly(name):
    reading, writing = os.pipe()
    os.close(reading)
    run = ended(WRITING[name], stdout=writing)
    os.close(writing)
    assert (run.returncode, run.stderr) == (141, "")


@UNIX
@pytest.mark.parametrize("name", ["run", "json", "presets"])
def test_without_an_output_one_sentence_says_so(name):
    run = ended(WRITING[name], preexec_fn=lambda: os.close(1))
    assert (run.returncode, run.stderr) == (1, "cnnlab: there is no standard output to write to\n")


@UNIX
@pytest.mark.parametrize("closed", [(1, 2), (2,)])
def test_without_a_place_for_its_sentence_misuse_is_quiet(closed):
    run = ended(["run", "qestion"], preexec_fn=lambda: [os.close(each) for each in closed], stdout=subprocess.PIPE)
    assert (run.returncode, run.stdout, run.stderr) == (2, "", "")


def test_a_closed_output_is_told_before_anything_is_trained(capsys, monkeypatch):
    monkeypatch.setattr(cnnlab.Run, "advance", None)
    monkeypatch.setattr(sys, "stdout", None)
    assert main(EXPLODING) == 1
    assert capsys.readouterr().err == "cnnlab: there is no standard output to write to\n"
