"""A run that was killed and goes on ends as if nothing had happened, to the bit."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from torchrun import environment

from emfm import EMError, EMFoundation
from emfm.files import whole_folder
from emfm.pretraining import pretrain as module
from emfm.pretraining.pix2pix import Pix2Pix
from emfm.pretraining.pretrain import pretrain

PARTS = (
    "training_state/generator",
    "training_state/discriminator",
    "training_state/optimizers",
    "pretrained_model/model",
)
RUN = """
import json, sys
from emfm.pretraining.pretrain import PretrainArguments, pretrain
settings = json.loads(sys.argv[1])
settings.pop("strength")
pretrain(PretrainArguments(**{**settings, "data": tuple(settings["data"])}))
"""


def assert_same_state(one: Path, two: Path, step: int) -> None:
    """Compare generator, discriminator, optimisers and averaged generator bit for bit."""
    for part in PARTS:
        first, second = (load_file(run / f"step_{step}" / f"{part}.safetensors") for run in (one, two))
        assert first.keys() == second.keys()
        assert [key for key in first if not torch.equal(first[key], second[key])] == [], part


class PowerCutError(Exception):
    """Stands for a kill: nothing of the run gets a chance to clean up."""


@pytest.fixture
def power_cut(monkeypatch):
    """Return a function that lets the training die in its n-th step."""
    step = Pix2Pix.step

    def after(steps: int) -> None:
        left = [steps]

        def dying(self, pairs):
            left[0] -= 1
            if left[0] < 0:
                raise PowerCutError
            return step(self, pairs)

        monkeypatch.setattr(Pix2Pix, "step", dying)

    yield after


def run_with_power_cuts(arguments, power_cut, cuts: tuple[int, ...]) -> None:
    """Start a run again and again, each time with so many steps to live, then let it finish."""
    for cut in cuts:
        power_cut(cut)
        with pytest.raises(PowerCutError):
            pretrain(arguments)
    power_cut(1000)
    pretrain(arguments)


# each norm and each way to gather a batch; the other pairs are for long runs
@pytest.mark.parametrize(
    ("norm", "accumulation"),
    [
        ("instance", 1),
        ("batch", 2),
        pytest.param("instance", 2, marks=pytest.mark.slow),
        pytest.param("batch", 1, marks=pytest.mark.slow),
    ],
)
def test_a_run_on_files_that_was_cut_off_and_resumed_equals_an_uninterrupted_one(
    accumulation, norm, pretraining, power_cut, tmp_path
):
    settings = {"gradient_accumulation_steps": accumulation, "norm": norm, "steps": 10, "corruption": "dose+masked"}
    settings |= {"structures": 3, "filters": True}
    pretrain(pretraining(tmp_path / "whole", **settings))
    cut_off = pretraining(tmp_path / "cut", **settings, resume=True)
    run_with_power_cuts(cut_off, power_cut, (5, 4))  # in step 6, and in step 8 of the run that went on after step 3
    assert_same_state(tmp_path / "whole", tmp_path / "cut", 10)


@pytest.mark.parametrize(("accumulation", "workers"), [(1, 0), (2, 3), pytest.param(2, 0, marks=pytest.mark.slow)])
def test_a_run_on_a_stream_that_was_cut_off_and_resumed_equals_an_uninterrupted_one(
    accumulation, workers, pretraining, parquet_folder, power_cut, tmp_path
):
    settings = {
        "gradient_accumulation_steps": accumulation,
        "workers": workers,
        "streaming": True,
        "data": (str(parquet_folder(60)),),
        "steps": 25,
        "save_steps": 4,
        "batch_size": 3,
        "structures": 2,
    }
    pretrain(pretraining(tmp_path / "whole", **settings))
    cut_off = pretraining(tmp_path / "cut", **settings, resume=True)
    run_with_power_cuts(cut_off, power_cut, (6, 17))  # in the first epoch, and in a later one
    assert_same_state(tmp_path / "whole", tmp_path / "cut", 25)


def command(settings: dict, processes: int) -> list[str]:
    launcher = (
        [] if processes == 1 else ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    )
    script = Path(settings["output"]).with_suffix(".py")
    script.write_text(RUN)
    return [sys.executable, *launcher, str(script), json.dumps(settings)]


def start(settings: dict, processes: int) -> subprocess.Popen:
    log = Path(settings["output"]).with_suffix(".log").open("a")
    return subprocess.Popen(command(settings, processes), env=environment(), stdout=log, stderr=log)


def finish(settings: dict, processes: int) -> None:
    assert start(settings, processes).wait(timeout=120) == 0, Path(settings["output"]).with_suffix(".log").read_text()


def kill_at_random(settings: dict, processes: int, chance: random.Random) -> None:
    """Start a run and SIGKILL all of its processes somewhere after its next checkpoint."""
    output = Path(settings["output"])
    before = set(output.glob("step_*"))
    running = start(settings, processes)
    deadline = time.time() + 120
    while time.time() < deadline and running.poll() is None and not set(output.glob("step_*")) - before:
        time.sleep(0.01)
    time.sleep(chance.uniform(0, 1.0))
    launcher = psutil.Process(running.pid)
    for process in [launcher, *launcher.children(recursive=True)]:  # torchrun gives each of its own a session
        process.kill()
    running.wait(timeout=30)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("streaming", [False, True])
def test_a_run_killed_at_random_moments_ends_as_an_uninterrupted_one(
    processes, accumulation, streaming, pretraining, parquet_folder, tmp_path
):
    changes = {"data": (str(parquet_folder(60)),)} if streaming else {}
    arguments = pretraining(
        tmp_path / "whole",
        **changes,
        streaming=streaming,
        gradient_accumulation_steps=accumulation,
        corruption="dose",
        steps=120,
        save_steps=10,
    )
    whole = asdict(arguments)
    killed = whole | {"output": str(tmp_path / "killed"), "resume": True}
    finish(whole, processes)
    chance = random.Random(f"{processes} {accumulation} {streaming}")
    for _ in range(2):
        kill_at_random(killed, processes, chance)
    assert not (tmp_path / "killed" / "pretrained_model").exists()  # it was indeed killed before its end
    finish(killed, processes)
    assert_same_state(tmp_path / "whole", tmp_path / "killed", 120)


@pytest.fixture
def handlers():
    """Python's own handlers, whoever started the tests: a job in the background ignores SIGINT."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, None)])
def test_a_signal_saves_the_run_and_leaves(number, code, handlers, pretraining, monkeypatch, tmp_path):
    step = Pix2Pix.step
    taken = []

    def signalled(self, pairs):
        taken.append(1)
        if len(taken) == 4:
            signal.raise_signal(number)
        return step(self, pairs)

    pretrain(pretraining(tmp_path / "whole"))
    monkeypatch.setattr(Pix2Pix, "step", signalled)
    with pytest.raises(KeyboardInterrupt if code is None else SystemExit) as stop:
        pretrain(pretraining(tmp_path / "stopped"))
    assert code is None or stop.value.code == code
    assert (tmp_path / "stopped" / "step_4").is_dir() and len(taken) == 4
    EMFoundation.from_pretrained(tmp_path / "stopped" / "step_4" / "pretrained_model")
    assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)
    pretrain(pretraining(tmp_path / "stopped", resume=True))
    assert_same_state(tmp_path / "whole", tmp_path / "stopped", 6)


def test_a_run_in_the_background_is_not_stopped_by_a_signal_that_it_ignores(
    handlers, pretraining, monkeypatch, tmp_path
):
    step = Pix2Pix.step

    def signalled(self, batches):
        signal.raise_signal(signal.SIGINT)
        return step(self, batches)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    monkeypatch.setattr(Pix2Pix, "step", signalled)
    assert (pretrain(pretraining(tmp_path / "run")) / "model.safetensors").is_file()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    assert [folder.name for folder in sorted((tmp_path / "run").glob("step_*"))] == ["step_3", "step_6"]


def test_a_new_checkpoint_is_kept_though_a_torn_one_has_more_steps(pretraining, power_cut, tmp_path):
    pretrain(pretraining(tmp_path / "run"))
    damage_generator(tmp_path / "run" / "step_6")
    power_cut(2)
    with pytest.raises(PowerCutError):
        pretrain(pretraining(tmp_path / "run", resume=True, save_steps=2, save_total_limit=1))
    assert {folder.name for folder in (tmp_path / "run").glob("step_*")} == {"step_4", "step_6"}
    power_cut(1000)
    pretrain(pretraining(tmp_path / "run", resume=True))
    pretrain(pretraining(tmp_path / "whole"))
    assert_same_state(tmp_path / "whole", tmp_path / "run", 6)


def test_folders_that_cannot_be_opened_are_not_synced(monkeypatch, tmp_path):
    open_any = os.open

    def as_on_windows(path, *rest, **named):
        if Path(path).is_dir():
            raise PermissionError(path)
        return open_any(path, *rest, **named)

    monkeypatch.setattr(os, "open", as_on_windows)
    with whole_folder(tmp_path / "new") as folder:
        (folder / "inside").mkdir()
        (folder / "inside" / "file").write_text("text")
    assert (tmp_path / "new" / "inside" / "file").read_text() == "text"


def test_the_log_of_a_resumed_run_holds_every_step_once(pretraining, power_cut, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "LOG_STEPS", 1)
    power_cut(5)
    with pytest.raises(PowerCutError):
        pretrain(pretraining(tmp_path / "run"))
    with (tmp_path / "run" / "log.jsonl").open("a") as log:
        log.write('{"step": 6, "gro')  # cut off in the middle of a line
    power_cut(1000)
    pretrain(pretraining(tmp_path / "run", resume=True))
    entries = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries if entry["group"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert [entry["step"] for entry in entries if entry["group"] == "validation"] == [0, 3, 6]


def test_resuming_with_other_settings_names_them(pretraining, finished_run):
    with pytest.raises(EMError, match="crop was 32, now 64; seed was 0, now 1"):
        pretrain(pretraining(finished_run, resume=True, seed=1, crop=64))


def damage_generator(folder: Path) -> None:
    path = folder / "training_state" / "generator.safetensors"
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)


def change_run(folder: Path, **changes: object) -> None:
    path = folder / "training_state" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


DAMAGES = {
    "run.json is damaged: it holds no checksums": lambda folder: change_run(folder, sha256=None),
    "run.json is damaged: it holds no settings": lambda folder: change_run(folder, settings=None),
    "optimizers.safetensors is missing": lambda folder: (folder / "training_state" / "optimizers.safetensors").unlink(),
    "generator.safetensors is damaged": damage_generator,
    "run.json is missing or damaged": lambda folder: (folder / "training_state" / "run.json").write_text('{"step": 6'),
    "model.safetensors is missing": lambda folder: shutil.rmtree(folder / "pretrained_model"),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_torn_checkpoint_is_refused_with_a_reason_and_the_one_before_it_taken(
    message, pretraining, whole_pretraining, finished_run, caplog
):
    DAMAGES[message](finished_run / "step_6")
    pretrain(pretraining(finished_run, resume=True))
    assert "step_6 is refused: " in caplog.text and message in caplog.text
    assert_same_state(whole_pretraining, finished_run, 6)


def test_where_no_checkpoint_is_whole_the_run_does_not_start_anew_in_silence(pretraining, finished_run):
    for step in (3, 6):
        damage_generator(finished_run / f"step_{step}")
    with pytest.raises(EMError, match=r"no checkpoint of .* is whole: .*step_6 is refused.*step_3 is refused"):
        pretrain(pretraining(finished_run, resume=True))


def test_half_written_checkpoints_are_not_taken_for_whole_ones(pretraining, whole_pretraining, monkeypatch, tmp_path):
    rename = Path.rename

    def cut_before_renaming(self, target):
        if self.name == ".step_6.tmp":
            raise PowerCutError
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", cut_before_renaming)
    with pytest.raises(PowerCutError):
        pretrain(pretraining(tmp_path / "run"))
    monkeypatch.setattr(Path, "rename", rename)
    pretrain(pretraining(tmp_path / "run", resume=True))
    assert_same_state(whole_pretraining, tmp_path / "run", 6)
    assert not (tmp_path / "run" / ".step_6.tmp").exists()
