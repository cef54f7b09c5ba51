"""Words that the command line cannot take: one line that says what was given, what was expected, and where help is."""

import errno
import logging
import multiprocessing
import os
import re
import subprocess
import sys

import pytest
import typer
from test_cli import emfm  # noqa: F401  (a fixture)
from tqdm.auto import tqdm

from emfm import EMError, __version__
from emfm.cli import application
from emfm.cli.application import app
from emfm.cli.faults import fault_line

COMMANDS = typer.main.get_command(app).commands
FINETUNE = ["finetune", "segmentation", "--data", "a", "--scratch", "unet2-rf44", "--output", "o"]
WRONG = [
    (["lst"], r"there is no verb 'lst'; did you mean list\? \(see emfm --help\)"),
    (["xyzzy"], "there is no verb 'xyzzy'; known names: list, info, "),
    (["--jsn", "list"], "there is no option --jsn before the verb"),
    (["list", "--colour"], r"list has no option --colour \(see emfm list --help\)"),
    ([*FINETUNE, "--stepz", "3"], r"finetune has no option --stepz; did you mean --steps or --seed\?"),
    ([*FINETUNE, "--out", "b"], r"finetune has no option --out; did you mean --output"),
    ([*FINETUNE, "--steps", "five"], "--steps is 'five'; expected a whole number"),
    ([*FINETUNE, "--steps=2.5"], "--steps is '2.5'; expected a whole number"),
    ([*FINETUNE, "--learning-rate", "0,1"], "--learning-rate is '0,1'; expected a number"),
    ([*FINETUNE, "--learning-rate", "nan"], "--learning-rate is nan; expected a finite number"),
    ([*FINETUNE, "--steps", "2", "--steps", "3"], "--steps is given as 2 and as 3: give it once"),
    ([*FINETUNE, "--license", ""], "--license is empty: give it a value, or leave it out"),
    (["finetune", "segmentation", "--data", "a"], "finetune needs --output: Folder of the finished model."),
    (["finetune", "--output", "a", "--data", "b"], "finetune needs TASK: segmentation, instances, denoising, "),
    (["finetune", "segmentatoin", "--data", "a", "--output", "o"], r"expected one of .*; did you mean segmentation\?"),
    (["finetune", "", "--data", "a", "--output", "o"], "an argument is empty"),
    (["predict", "a.tif", "--model", "", "--output", "o"], "--model is empty"),
    (["predict", "a.tif", "--output", "--model", "m"], "--output has no value: it is followed by --model, an option"),
    (["predict", "a.tif", "--model"], "predict: option '--model' requires an argument"),
    (
        ["pretrain", "--data", "a", "b", "--generator", "c", "--output", "o"],
        "repeat the option, as in --data A --data B",
    ),
    (["export", "m", "--output", "o", "--format", "onx"], r"--format is 'onx'; expected one of onnx, .*mean onnx\?"),
    (["simulate", "nanoparticle", "--output", "o"], r"did you mean nanoparticles\?"),
    (["labels"], r"labels: missing command \(see emfm labels --help\)"),
    (["labels", "improt", "a"], r"there is no verb 'labels improt'; did you mean labels import"),
    (["labels", "import", "a"], "labels import needs --output: New labelled folder."),
    (["labels", "import", "a", "--output", "o", "--format", "vai"], r"--format is 'vai'; .* did you mean via"),
    (["labels", "review", "a", "b", "--boxes", "1"], r"labels review has no option --boxes; did you mean --box\?"),
    (["simulate", "--output", "o"], "simulate needs KIND: What they show. One of nanoparticles, "),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_words_that_are_wrong_are_told_in_one_line(words, message, emfm, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    code, stdout, stderr = emfm(*words)
    assert code == 2 and stdout == ""
    assert re.match(rf"emfm: .*{message}", stderr), stderr
    assert stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_verb_tells_an_option_that_it_does_not_have_in_one_line(verb, emfm):  # noqa: F811
    code, stdout, stderr = emfm(verb, "--no-such-option")
    assert (code, stdout) == (2, "")
    assert stderr.startswith(f"emfm: {verb} has no option --no-such-option") and stderr.count("\n") == 1


@pytest.mark.parametrize("verb", COMMANDS)
def test_an_option_with_an_empty_value_is_never_taken_for_one_left_out(verb, emfm):  # noqa: F811
    for known in COMMANDS[verb].params:
        if known.opts[0].startswith("--") and not known.is_flag:
            code, stdout, stderr = emfm(verb, known.opts[0], "")
            assert (code, stdout) == (2, "")
            assert stderr == f"emfm: {known.opts[0]} is empty: give it a value, or leave it out\n"


def test_the_version_is_printed_and_nothing_else(emfm):  # noqa: F811
    assert emfm("--version") == (0, f"{__version__}\n", "")


@pytest.mark.parametrize("words", [[], ["help"], ["--help"]])
def test_without_a_verb_there_is_help(words, emfm):  # noqa: F811
    code, stdout, stderr = emfm(*words)
    assert (code, stderr) == (0, "")
    assert all(verb in stdout for verb in COMMANDS)


def test_help_may_stand_before_the_verb(emfm):  # noqa: F811
    assert emfm("help", "predict") == emfm("predict", "--help")


def test_the_list_of_models_fits_a_terminal(emfm):  # noqa: F811
    code, stdout, _ = emfm("list")
    assert code == 0 and max(map(len, stdout.splitlines())) <= 100


def test_the_same_value_twice_does_no_harm(emfm, tmp_path):  # noqa: F811
    code, _, stderr = emfm("simulate", "structures", "--output", tmp_path / "s", *["--count", 3, "--size", 32] * 2)
    assert code == 0, stderr


class Stdout:
    """A standard output that fails."""

    encoding = "utf-8"

    def __init__(self, number: int):
        self.number = number

    def write(self, text):
        raise OSError(self.number, os.strerror(self.number))

    def flush(self):
        pass

    def fileno(self):
        raise ValueError


def test_a_full_disk_behind_standard_output_is_told(emfm, monkeypatch):  # noqa: F811
    monkeypatch.setattr(sys, "stdout", Stdout(errno.ENOSPC))
    code, _, stderr = emfm("list")
    assert (code, stderr) == (2, "emfm: cannot write to standard output: no space left on the disk\n")


def test_a_reader_that_has_gone_is_no_error_to_speak_of(emfm, monkeypatch):  # noqa: F811
    monkeypatch.setattr(sys, "stdout", Stdout(errno.EPIPE))
    code, _, stderr = emfm("list")
    assert (code, stderr) == (141, "")


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_closed_stream_does_no_harm(closed, emfm, monkeypatch):  # noqa: F811
    monkeypatch.setattr(sys, closed, None)
    assert emfm("list")[0] == 0


@pytest.mark.parametrize(
    "words", [["simulate", "gr\xf6\xdfe \u00b5", "--output", "o"], ["simulate", "gr\udcf6n", "--output", "o"]]
)
def test_a_terminal_of_another_character_set_is_no_obstacle(words):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    ran = subprocess.run([sys.executable, "-m", "emfm.cli", *words], capture_output=True, env=environment, check=False)
    assert ran.returncode == 2 and ran.stderr.startswith(b"emfm: ") and b"Traceback" not in ran.stderr


def test_ctrl_c_is_one_line_and_exit_code_130(emfm, monkeypatch):  # noqa: F811
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("emfm.hub.zoo.list_models", interrupt)
    assert emfm("list") == (130, "", "emfm: stopped\n")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError("Unable to allocate 7.28 TiB for an array"), r"^out of memory \(7.28 TiB were asked for\): use a"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."), r"\(2.00 GiB were asked for\).*--batch-size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), "^out of memory: .* --crop or"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "was killed.*use --workers 0"),
        (RuntimeError("unable to open shared memory object </torch_1>"), "/dev/shm.*use --workers 0"),
        (OSError(errno.ENOSPC, "No space left on device"), "^no space left on the disk$"),
        (PermissionError(errno.EACCES, "Permission denied", "a.tif"), "^a.tif: no permission$"),
    ],
)
def test_a_fault_of_the_machine_is_told_with_its_remedy(error, line, emfm, monkeypatch):  # noqa: F811
    found = fault_line(error, COMMANDS["finetune"])
    assert re.search(line, found), found

    def fail():
        raise error

    monkeypatch.setattr("emfm.hub.zoo.list_models", fail)
    code, stdout, stderr = emfm("list")
    assert (code, stdout) == (2, "") and stderr.startswith("emfm: ") and stderr.count("\n") == 1


def test_locks_that_find_no_shared_memory_are_told_as_such(monkeypatch):
    def no_memory(*args):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("multiprocessing.synchronize._multiprocessing.SemLock", no_memory)
    with pytest.raises(OSError, match="Read-only") as caught:
        multiprocessing.get_context("spawn").Lock()
    assert "/dev/shm" in fault_line(caught.value, COMMANDS["finetune"])


def test_a_fault_of_the_program_is_not_hidden(monkeypatch):
    def fail():
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr("emfm.hub.zoo.list_models", fail)
    monkeypatch.setattr(sys, "argv", ["emfm", "list"])
    with pytest.raises(RuntimeError, match="shapes"):
        application.main()


def test_an_error_stands_on_its_own_line_below_a_progress_bar(emfm, monkeypatch):  # noqa: F811
    def fail():
        bar = tqdm(total=5, file=sys.stderr)
        bar.update()
        logging.getLogger("emfm").warning("take care")
        raise EMError("no figures")

    monkeypatch.setattr("emfm.hub.zoo.list_models", fail)
    code, _, stderr = emfm("list")
    assert code == 2
    assert stderr.endswith("\nemfm: no figures\n")
