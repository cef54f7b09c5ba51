import ipaddress
import os
import socket

import numpy as np
import pytest
from PIL import Image

import emfm

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


@pytest.fixture
def processor():
    """The processor with its defaults."""
    return emfm.EMImageProcessor()  # the package is light until here: the environment above comes first


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
