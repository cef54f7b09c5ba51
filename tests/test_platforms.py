"""What holds on Windows and macOS, as far as Linux can tell: no POSIX module is needed, processes may be spawned."""

import ast
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import emfm
from emfm.simulate.folder import write_simulated_folder

PACKAGE = Path(emfm.__file__).parent
POSIX = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix", "readline", "curses"}
# a system without these modules, functions and constants, where every process is spawned; other
# packages look at the system's name instead, so what they import at their start is there before
OTHERS = "import accelerate, datasets, torch.distributed.checkpoint, transformers.trainer\n"
ELSEWHERE = f"""
import mmap, multiprocessing, os, signal, sys
for name in {sorted(POSIX - {"posix"})!r}:
    sys.modules[name] = None
for name in ("pwrite", "pread", "sysconf", "fork", "getuid", "geteuid", "fchmod", "O_DIRECTORY", "sched_getaffinity"):
    vars(os).pop(name, None)
for name in ("SIGKILL", "SIGALRM", "SIGUSR1", "SIGHUP", "SIGXCPU", "SIGQUIT"):
    vars(signal).pop(name, None)
for name in [name for name in vars(mmap) if name.startswith("MADV_")]:
    delattr(mmap, name)
multiprocessing.set_start_method("spawn")
"""
VERBS = """
from emfm.cli import main
for line in sys.argv[1].splitlines():
    sys.argv = line.split()
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise SystemExit(f"{line}: {stop.code}")
"""
COMMANDS = """
emfm simulate nanoparticles --output data --count 4 --size 96
emfm pretrain --data data/images --generator unet2-rf44 --steps 2 --crop 32 --batch-size 2 --output run
emfm finetune segmentation --model run/pretrained_model --data data --steps 2 --crop 32 --batch-size 2 --output out
emfm evaluate --model out --data data --split test
emfm predict --model out data/images --output pred
emfm predict --model out data/images --output pred-npy --format npy
emfm predict --model out data/images --output pred-zarr --format zarr
emfm verify out
""".strip()


def run(script: str, folder: Path, *arguments: str) -> None:
    """Run a script, not guarded by its name, from a file as a user does."""
    (folder / "script.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    command = [sys.executable, "script.py", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def test_the_verbs_run_where_there_are_no_posix_modules(tmp_path):
    run(OTHERS + ELSEWHERE + VERBS, tmp_path, COMMANDS)
    for form in ("pred", "pred-npy", "pred-zarr"):
        assert len([path for path in (tmp_path / form).iterdir() if path.suffix in (".tif", ".npy", ".zarr")]) == 4


def test_vendor_files_are_read_where_there_are_no_posix_modules(tmp_path):
    pytest.importorskip("rsciio")
    from benchmarks.sound_files import pattern
    from benchmarks.vendor_files import dm_bytes, ser_bytes

    (tmp_path / "image.dm4").write_bytes(dm_bytes(pattern("uint16"), 0.25))
    (tmp_path / "image.ser").write_bytes(ser_bytes(pattern("uint16")[None], 0.25))
    read = "from emfm import read_micrograph\nfor name in ('image.dm4', 'image.ser'):\n"
    run(ELSEWHERE + read + "    assert read_micrograph(name).image.shape == (70, 90)", tmp_path)


def test_the_readmes_python_example_runs_in_a_script_where_processes_are_spawned(tmp_path):
    readme = (PACKAGE.parent / "README.md").read_text()
    example = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)[0]
    example = example.replace("max_steps=300", "max_steps=2, crop=64, per_device_train_batch_size=2")
    write_simulated_folder("nanoparticles", tmp_path / "data", 12, (96, 96), 0)
    run("import multiprocessing\nmultiprocessing.set_start_method('spawn')\n" + example, tmp_path)


@pytest.mark.parametrize("streaming", [False, True])
def test_unlabelled_data_can_be_sent_to_spawned_workers(pretraining, parquet_folder, tmp_path, streaming):
    from emfm.pretraining.batches import open_data

    source = str(parquet_folder(60)) if streaming else None
    changes = {"data": (source,), "streaming": True} if streaming else {"structures": 1}
    data = open_data(pretraining(tmp_path / "run", **changes), emfm.EMImageProcessor())
    sent = pickle.loads(pickle.dumps(data))
    if streaming:
        assert sent.stream is not None
    else:
        np.testing.assert_array_equal(sent.calibration.micrographs[0][0], data.calibration.micrographs[0][0])


@pytest.mark.parametrize("streaming", [False, True])
def test_labelled_data_can_be_sent_to_spawned_workers(labelled_parquet, tmp_path, streaming):
    data = emfm.load_em_dataset(labelled_parquet, streaming=streaming)
    config = emfm.EMFoundationConfig.from_name("unet2-rf44", id2label={0: "background", 1: "disc"})
    arguments = emfm.EMTrainingArguments(str(tmp_path / "out"), max_steps=1, crop=32, precision="fp32")
    trainer = emfm.EMTrainer(emfm.EMForSemanticSegmentation(config), arguments, data, data.take(1))
    sent = pickle.loads(pickle.dumps(trainer.train_dataset))
    first, again = (next(iter(crops)) if streaming else crops[0] for crops in (trainer.train_dataset, sent))
    np.testing.assert_array_equal(first["pixel_values"], again["pixel_values"])


def test_no_posix_module_is_imported_where_that_may_not_fail():
    found = []
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tried = {node for attempt in ast.walk(tree) if isinstance(attempt, ast.Try) for node in ast.walk(attempt)}
        for node in ast.walk(tree):
            names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
            names |= {node.module} if isinstance(node, ast.ImportFrom) else set()
            if names & POSIX and node not in tried:
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert found == []
