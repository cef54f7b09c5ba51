"""Stand-ins for the downloads of public data sets, a few tiny images each in the same file layout."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

SCRIPTS = Path(__file__).parents[1] / "hub_scripts"


@pytest.fixture
def script(monkeypatch):
    """Return a function that imports one of the scripts."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


@pytest.fixture
def emps(tmp_path):
    """A stand-in of EMPS: images as RGB, uint16 particle numbers, lists without suffix."""
    root, lists = tmp_path / "emps", tmp_path / "lists"
    rng = np.random.default_rng(1)
    for folder in (root / "images", root / "segmaps", lists):
        folder.mkdir(parents=True)
    for index in range(10):
        grey = rng.integers(0, 256, (12, 14), dtype=np.uint8)
        colours = np.stack([grey] * 3, axis=-1)
        if index == 0:
            colours[2:4, 2:4] = (255, 0, 0)
        Image.fromarray(colours).save(root / "images" / f"e{index}.png")
        particles = rng.integers(0, 2, (12, 14)).astype(np.uint16) * np.uint16(300 + index)
        Image.fromarray(particles).save(root / "segmaps" / f"e{index}.png")
    (lists / "train.csv").write_text("".join(f"e{index}\n" for index in range(7)))
    (lists / "test.csv").write_text("e7\ne8\ne9\n")
    return root, lists


@pytest.fixture
def temimagenet(tmp_path):
    """A stand-in of TEMImageNet: 20 noisy images, clean ones, and finer ones."""
    root = tmp_path / "TEM-ImageNet-v1.3-master"
    rng = np.random.default_rng(2)
    sides = {"image": 8, "noNoise": 8, "noBackgroundnoNoise": 8, "noNoiseNoBackgroundSuperresolution": 16}
    for folder, side in sides.items():
        (root / folder).mkdir(parents=True)
        for index in range(1, 21):
            image = rng.integers(0, 256, (side, side), dtype=np.uint8)
            Image.fromarray(image).save(root / folder / f"{index:05d}.png")
    return root


@pytest.fixture
def cem500k(tmp_path):
    """A stand-in of CEM500K: 8-bit TIFF files in folders."""
    root = tmp_path / "10592"
    for index in range(40):
        folder = root / "data" / f"part{index % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / f"c{index:02d}.tiff", np.full((6, 6), index, np.uint8))
    return root


def write_stack(folder: Path, name: str, images: np.ndarray, labels: np.ndarray, keys=("images", "labels")) -> None:
    h5py = pytest.importorskip("h5py")
    for stack, key, suffix in ((images, keys[0], "Images"), (labels, keys[1], "Labels")):
        with h5py.File(folder / f"{name}_{suffix}.h5", "w") as file:
            file[key] = stack


@pytest.fixture
def gold(tmp_path):
    """A stand-in of the gold data: three micrographs of 1100 x 1024 pixels, eleven patches with particles."""
    folder = tmp_path / "zenodo"
    folder.mkdir()
    images = np.random.default_rng(3).integers(0, 2**16, (3, 1100, 1024), dtype=np.uint16)
    labels = np.zeros((3, 1100, 1024), np.float32)
    labels[:, 100:130, 100:130] = labels[:, 100:130, 700:730] = labels[:, 800:830, 100:130] = 1
    labels[:2, 800:830, 700:730] = 1
    labels[2, 800:820, 700:720] = 1  # 400 pixels: too few
    write_stack(folder, "Au_20nm_87kx_16e", images, labels)
    return folder, images, labels
