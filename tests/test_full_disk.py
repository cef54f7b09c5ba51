"""Whatever is written when the disk is full: the old stands, or the new, never a half; and every verb says so first."""

import errno
import hashlib
import io
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import emfm, segmenter  # noqa: F401  (fixtures)
from transformers import TrainerState

from emfm import EMError, EMForSemanticSegmentation, EMFoundationConfig
from emfm.demo.run import run_demo
from emfm.files import write_text
from emfm.finetuning.arguments import FinetuneArguments
from emfm.finetuning.finetune import finetune
from emfm.finetuning.lora import write_model
from emfm.hub.datasets.card import DatasetCard
from emfm.hub.datasets.encoded_image import EncodedImage
from emfm.hub.datasets.parquet_folder import write_parquet_folder
from emfm.hub.verify import write_test_tensors
from emfm.io.writing import write_image
from emfm.pretraining.arguments import PretrainArguments
from emfm.pretraining.pretrain import pretrain
from emfm.simulate.folder import write_simulated_folder
from emfm.training import machine
from emfm.training.checkpoint import Checkpoints, write_state

resource = pytest.importorskip("resource", reason="Windows limits no file's size")
NOISE = np.random.default_rng(0).integers(0, 2**16, (60, 80), np.uint16)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the system refuse what goes beyond so many bytes of a file, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def contents(folder: Path) -> dict[str, str]:
    """Return the checksum of every file below a folder."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return EMForSemanticSegmentation(EMFoundationConfig.from_name("unet2-rf44", id2label={0: "background", 1: "disc"}))


WRITERS = {
    "text": lambda folder, model: write_text(folder / "text.md", "word " * 5000),
    "TIFF": lambda folder, model: write_image(folder / "image.tif", NOISE, 0.5),
    "PNG": lambda folder, model: write_image(folder / "image.png", NOISE),
    "model": lambda folder, model: write_model(model, None, folder),
    "test tensors": lambda folder, model: write_test_tensors(model, folder),
    "training state": lambda folder, model: write_state(folder, {"model": model.state_dict()}, {"settings": {}}),
}


@pytest.mark.parametrize("old", [False, True], ids=["anew", "in place of an old one"])
@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_that_does_not_fit_is_the_old_one_or_not_there(kind, old, model, tmp_path):
    write, refused = WRITERS[kind], 0
    for size in (0, 10, 500, 5_000, 20_000, 10**9):
        folder = tmp_path / str(size)
        folder.mkdir()
        if old:
            write(folder, model)
            for path in [path for path in folder.rglob("*") if path.is_file()]:
                path.write_text("old")
        before = contents(folder)
        try:
            with largest_file(size):
                write(folder, model)
        except EMError as error:
            assert "cannot write" in str(error) and "\n" not in str(error) and ".tmp" not in str(error)
            refused += 1
            after = contents(folder)
            # of several files each is the old or whole: those that were done before stay
            assert not [name for name in after if Path(name).name.startswith(".")]
            whole = tmp_path / "whole"
            write(whole, model) if not whole.exists() else None
            assert all(after[name] in (before.get(name), contents(whole)[name]) for name in after)
        else:
            assert size == 10**9 or contents(folder) == contents(tmp_path / "whole")
    assert refused >= 3


@pytest.mark.parametrize("size", [4_100, 6_000])
def test_a_simulation_that_does_not_fit_leaves_whole_images_alone(size, tmp_path):
    with (
        largest_file(size),
        pytest.raises(EMError, match=r"^cannot write \S*images/nanoparticles_000\d.tif: "),
    ):
        write_simulated_folder("nanoparticles", tmp_path / "s", 3, (64, 64), 0)
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        Image.open(path).load()


def test_a_dataset_that_does_not_fit_leaves_nothing(tmp_path):
    def row(index):
        file = io.BytesIO()
        Image.fromarray(NOISE).save(file, "PNG")
        return {"image": EncodedImage(file.getvalue(), f"{index}.png", NOISE.shape, str(NOISE.dtype))}

    card = DatasetCard("t", "s", "segmentation", "mit", "s", "c", "m", "")
    with largest_file(4_000), pytest.raises(EMError, match="cannot write"):
        write_parquet_folder(tmp_path / "d", {"train": [1, 2]}, row, card)
    assert list(tmp_path.iterdir()) == []


# A verb and what it writes below a place that is none.
VERBS = {
    "finetune": ["finetune", "segmentation", "--scratch", "unet2-rf44", "--data", "FOLDER"],
    "pretrain": ["pretrain", "--data", "FOLDER/images", "--generator", "unet2-rf44"],
    "predict": ["predict", "FOLDER/images", "--model", "MODEL"],
    "simulate": ["simulate", "nanoparticles"],
    "demo": ["demo"],
    "export": ["export", "MODEL"],
    "export as a package": ["export", "MODEL", "--format", "bioimageio"],
}
PLACES = {
    "file": r"(\S+ is a file|cannot make \S+: \S+file is a file): choose another --output",
    "file/a": r"cannot make \S+: \S+file is a file: choose another --output",
    "x" * 300: r"cannot write to \S+: the name is too long: choose another --output",
}


@pytest.mark.parametrize("place", PLACES, ids=["a file", "below a file", "too long"])
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_looks_at_its_output_first(verb, place, emfm, labelled_folder, segmenter, tmp_path, monkeypatch):  # noqa: F811
    def work(*args, **kwargs):
        raise AssertionError("the work began")

    for name in ("finetune.read_splits", "finetune.build_model", "trainer.EMTrainer.__init__"):
        monkeypatch.setattr(f"emfm.finetuning.{name}", work)
    for name in ("pretraining.pretrain._new_state", "simulate.folder._write_all", "export.onnx_file._trace"):
        monkeypatch.setattr(f"emfm.{name}", work)
    (tmp_path / "file").write_text("mine")
    words = [word.replace("FOLDER", str(labelled_folder)).replace("MODEL", str(segmenter)) for word in VERBS[verb]]
    before = contents(tmp_path)
    code, stdout, stderr = emfm(*words, "--output", tmp_path / place)
    assert (code, stdout) == (2, "")
    assert re.match(f"emfm: {PLACES[place]}", stderr), stderr
    assert stderr.count("\n") == 1
    assert contents(tmp_path) == before


def test_the_cache_is_tried_before_micrographs_are_decoded(labelled_folder, tmp_path, monkeypatch):
    from emfm.data import decoded_cache

    (tmp_path / "file").touch()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "file" / "datasets")
    message = r"file is a file: choose another cache with HF_HOME or HF_DATASETS_CACHE$"
    with pytest.raises(EMError, match=message):
        decoded_cache.decode_files((), None, None, None)
    with pytest.raises(EMError, match=message):
        decoded_cache.decode_dataset(str(labelled_folder), None)


def test_the_demo_leaves_a_file_that_has_its_outputs_name(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(EMError, match="is a file"):
        run_demo(tmp_path / "file", None, 2, 0)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_disk_too_small_for_the_checkpoints_is_seen_before_pretraining(labelled_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("emfm.pretraining.pretrain.open_data", None)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 0, 100_000))
    arguments = PretrainArguments(
        data=(str(labelled_folder / "images"),), generator="unet2-rf44", output=str(tmp_path / "out"), steps=5000
    )
    with pytest.raises(EMError, match=r"keeping checkpoints \(4 at a time\) needs [\d,]+ MB, and \S+ has 0 MB"):
        pretrain(arguments)
    assert not (tmp_path / "out").exists()


def test_too_little_shared_memory_for_workers_is_seen_first(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "SHARED", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 0, 64_000_000))
    machine.check_shared_memory(2, 16, 256)  # 17 MB
    with pytest.raises(
        EMError, match=r"8 processes .* need 268 MB of shared memory, and \S+ has 64 MB: use --workers 0"
    ):
        machine.check_shared_memory(8, 64, 256)
    machine.check_shared_memory(0, 64, 256)


@pytest.fixture
def few_steps(labelled_folder, tmp_path):
    """Return the settings of a short run with a checkpoint after each step."""
    return FinetuneArguments(
        task="segmentation",
        data=str(labelled_folder),
        output=str(tmp_path / "out"),
        scratch="unet2-rf44",
        steps=4,
        crop=32,
        batch_size=1,
    )


def test_a_disk_that_fills_up_in_training_leaves_a_run_that_goes_on(few_steps, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        save, written = TrainerState.save_to_json, []

        def cut_short(self, path):
            written.append(path)
            if len(written) == 3:
                Path(path).write_text("{")
                raise OSError(errno.ENOSPC, "No space left on device")
            save(self, path)

        patch.setattr(TrainerState, "save_to_json", cut_short)
        with pytest.raises(EMError, match=r"^cannot write \S*checkpoint-3: no space left on the disk$"):
            finetune(few_steps, show_progress=False)
    assert sorted(path.name for path in (tmp_path / "out").glob("*checkpoint*")) == ["checkpoint-2"]
    record = finetune(replace(few_steps, resume=True), show_progress=False)
    assert record["steps"] == 4 and (tmp_path / "out" / "finetuning.json").is_file()


def test_an_old_checkpoint_goes_when_the_new_one_is_safe_from_a_power_cut(few_steps, tmp_path, monkeypatch):
    """The file that transformers writes last waits for the disk first."""
    events = []
    monkeypatch.setattr("emfm.finetuning.trainer.to_disk", lambda path: events.append(path.parent.name))
    remove = Checkpoints.remove_older

    def removing(self, written, keep):
        events.append(f"older than {written.name}")
        remove(self, written, keep)

    monkeypatch.setattr(Checkpoints, "remove_older", removing)
    finetune(replace(few_steps, steps=2), show_progress=False)
    assert events == ["checkpoint-1", "older than checkpoint-1", "checkpoint-2", "older than checkpoint-2"]


def test_a_checkpoint_that_a_power_cut_emptied_gives_way_to_the_one_before(few_steps, tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path, "checkpoint-", last_written="trainer_state.json")
    for steps in (1, 2):
        write_state(tmp_path / f"checkpoint-{steps}", {}, {"settings": {"crop": 32}})
        (tmp_path / f"checkpoint-{steps}" / "trainer_state.json").write_text("{}" if steps == 1 else "")
    folder, _ = checkpoints.find({"crop": 32})
    assert folder.name == "checkpoint-1" and "trainer_state.json is missing or damaged" in caplog.text


def test_a_file_in_the_way_of_a_checkpoint_is_seen_before_training(few_steps, tmp_path, monkeypatch):
    monkeypatch.setattr("emfm.finetuning.finetune.read_splits", None)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "checkpoint-30").touch()
    with pytest.raises(EMError, match="checkpoint-30 is a file in the way of a checkpoint: move it"):
        finetune(few_steps)
