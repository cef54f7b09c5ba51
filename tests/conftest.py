import io
import ipaddress
import os
import shutil
import socket
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from downloads import cem500k, emps, gold, script, temimagenet  # noqa: F401  (fixtures)
from labels_of_programs import images, source  # noqa: F401  (fixtures)
from PIL import Image

import emfm

# What libraries keep goes to a folder of its own: the user's caches and token are neither read nor
# filled.
_cache = tempfile.TemporaryDirectory(prefix="emfm-tests-")
for name in ("HF_HOME", "HF_DATASETS_CACHE", "MPLCONFIGDIR", "BIOIMAGEIO_CACHE_PATH", "XDG_CACHE_HOME"):
    os.environ[name] = str(Path(_cache.name) / name.lower())
# What the user, a terminal or a CI service says of the Hub or of colours does not count.
for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "EMFM_ZOO"):
    os.environ.pop(name, None)
for name in ("GITHUB_ACTIONS", "FORCE_COLOR", "PY_COLORS", "TERMINAL_WIDTH"):
    os.environ.pop(name, None)
os.environ["COLUMNS"] = "80"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

_connect = socket.socket.connect


def _loopback_only(self: socket.socket, address):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        host = str(address[0])
        if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
            raise OSError(f"tests use no network but loopback; something asked for {host}")
    return _connect(self, address)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Refuse every connection that leaves the machine."""
    monkeypatch.setattr(socket.socket, "connect", _loopback_only)


@pytest.fixture(autouse=True)
def no_bf16(monkeypatch):
    """Predict alike on machines with and without units for bf16."""
    monkeypatch.setattr("emfm.inference.precision.bf16_units", lambda: False)


@pytest.fixture
def processor():
    """The processor with its defaults."""
    # the package is light until here: the environment above comes first
    return emfm.EMImageProcessor()


def disc_image(side: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a noisy uint8 image with bright discs, and their mask with the values 0 and 255."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    mask = np.zeros((side, side), dtype=bool)
    for _ in range(3):
        centre = rng.uniform(0.2, 0.8, 2) * side
        mask |= np.hypot(rows - centre[0], columns - centre[1]) < side / 8
    image = 60 + 100 * mask + rng.normal(0, 10, (side, side))
    return np.clip(image, 0, 255).astype(np.uint8), (mask * 255).astype(np.uint8)


@pytest.fixture
def labelled_folder(tmp_path):
    """A labelled folder of six 64 x 64 images: three for training, one for validation, two for test."""
    folder = tmp_path / "discs"
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for index in range(6):
        image, mask = disc_image(64, index)
        Image.fromarray(image).save(folder / "images" / f"{index}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{index}.png")
    (folder / "labels.json").write_text('{"0": "background", "255": "disc"}')
    splits = '{"train": ["0.png", "1.png", "2.png"], "validation": ["3.png"], "test": ["4.png", "5.png"]}'
    (folder / "splits.json").write_text(splits)
    return folder


def waves(index: int, side: int = 48) -> np.ndarray:
    """Return a uint8 image of crossing waves under noise, another one for every index."""
    rows, columns = np.mgrid[:side, :side]
    pattern = 50 * np.sin(rows / (2 + index % 7)) + 40 * np.cos(columns / (3 + index % 5))
    return (127 + pattern + np.random.default_rng(index).normal(0, 8, (side, side))).clip(0, 255).astype(np.uint8)


@pytest.fixture
def streams_end_at_once(monkeypatch):
    """Do not wait at every end of a stream: datasets gives Arrow's threads five seconds, in case that Python ends."""
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.1)


@pytest.fixture
def parquet_folder(streams_end_at_once, tmp_path):
    """Return a function that writes a dataset of `count` square micrographs in four parquet files."""

    def write(count: int, broken: int | None = None, side: int = 48):
        import datasets

        folder = tmp_path / f"parquet_{count}_{broken}"
        folder.mkdir()
        content = []
        for index in range(count):
            file = io.BytesIO()
            Image.fromarray(waves(index, side)).save(file, "PNG")
            content.append({"bytes": b"not a PNG" if index == broken else file.getvalue(), "path": None})
        features = datasets.Features({"image": datasets.Image()})
        for shard in range(4):
            rows = datasets.Dataset.from_dict({"image": content[shard::4]}, features=features)
            rows.to_parquet(str(folder / f"train-{shard:05d}-of-00004.parquet"))
        return folder

    return write


@pytest.fixture
def labelled_parquet(streams_end_at_once, tmp_path):
    """A dataset of nine 64 x 64 images with masks, in parquet files: eight for training, one for validation."""
    import datasets

    folder = tmp_path / "labelled_parquet"
    folder.mkdir()
    features = datasets.Features({"image": datasets.Image(), "mask": datasets.Image()})
    for split, indices in (("train", range(8)), ("validation", range(8, 9))):
        rows = {"image": [], "mask": []}
        for index in indices:
            for column, array in zip(rows, disc_image(64, index), strict=True):
                file = io.BytesIO()
                Image.fromarray(array).save(file, "PNG")
                rows[column].append({"bytes": file.getvalue(), "path": None})
        data = datasets.Dataset.from_dict(rows, features=features)
        shards = 4 if split == "train" else 1
        for shard in range(shards):
            part = data.shard(shards, shard, contiguous=True)
            part.to_parquet(str(folder / f"{split}-{shard:05d}-of-{shards:05d}.parquet"))
    (folder / "labels.json").write_text('{"0": "background", "255": "disc"}')
    return folder


@pytest.fixture
def few_validation_crops(monkeypatch):
    """Let a pretraining look at fewer crops between its steps than users' runs do."""
    monkeypatch.setattr("emfm.pretraining.batches.CALIBRATION_CROPS", 32)
    monkeypatch.setattr("emfm.pretraining.batches.VALIDATION_CROPS", 16)


@pytest.fixture(scope="session")
def unlabelled(tmp_path_factory):
    """A folder of four micrographs, which no test changes."""
    folder = tmp_path_factory.mktemp("pretraining") / "unlabelled"
    folder.mkdir()
    for index in range(4):
        Image.fromarray(waves(index, 80)).save(folder / f"{index}.png")
    return folder


def toy_pretraining(micrographs, output, **changes):
    """Return the arguments of a pretraining of six steps with two checkpoints."""
    from emfm.pretraining.arguments import RECIPES
    from emfm.pretraining.pretrain import PretrainArguments

    settings = RECIPES["paper"] | dict(
        data=(str(micrographs),),
        output=str(output),
        generator="unet2-rf44",
        steps=6,
        batch_size=2,
        crop=32,
        discriminator_width=4,
        save_steps=3,
    )
    return PretrainArguments(**{**settings, **changes})


@pytest.fixture
def pretraining(unlabelled, few_validation_crops):
    """Return a function that makes the arguments of a toy pretraining on four micrographs."""
    return partial(toy_pretraining, unlabelled)


@pytest.fixture(scope="session")
def whole_pretraining(unlabelled, tmp_path_factory):
    """The folder of a toy pretraining that ran to its end, which no test changes."""
    from emfm.pretraining.pretrain import pretrain

    output = tmp_path_factory.mktemp("pretrained") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("emfm.pretraining.batches.CALIBRATION_CROPS", 32)
        patch.setattr("emfm.pretraining.batches.VALIDATION_CROPS", 16)
        pretrain(toy_pretraining(unlabelled, output))
    return output


@pytest.fixture
def finished_run(whole_pretraining, tmp_path):
    """A copy of that folder, to be changed and resumed."""
    return shutil.copytree(whole_pretraining, tmp_path / "run")
