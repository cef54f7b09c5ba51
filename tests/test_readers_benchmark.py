"""The comparison of readers with the references of their formats."""

import json
import sys

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
from PIL import Image

pytest.importorskip("rsciio")

from benchmarks import readers
from benchmarks.vendor_files import dm_bytes, ser_bytes

PIXELS = np.arange(600, dtype=np.uint8).reshape(20, 30)


@pytest.fixture
def folder(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    Image.fromarray(np.stack([PIXELS, PIXELS.T.reshape(20, 30), PIXELS], axis=-1)).save(tmp_path / "colour.png")
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([PIXELS, PIXELS + 1]), photometric="minisblack")
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(PIXELS.astype(np.float32))
        file.voxel_size = 2
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["raw"], file["other/labels"] = PIXELS, PIXELS + 1
    np.save(tmp_path / "line.npy", np.arange(9))
    (tmp_path / "a.dm4").write_bytes(dm_bytes(PIXELS, 0.5))
    (tmp_path / "a.ser").write_bytes(ser_bytes(PIXELS[None], 0.5))
    (tmp_path / "broken.tif").write_bytes(b"II*\0 nothing")
    return tmp_path


def test_every_image_of_a_folder_is_compared_with_the_reference(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["readers", str(folder)])
    with pytest.raises(SystemExit) as left:
        readers.main()
    shown = capsys.readouterr().out
    assert left.value.code == 0, shown
    assert "equal 8  refused rightly 2  not supported 0  refused 0  different 0" in shown.split("\nall")[1]


@pytest.mark.parametrize("wrong", ["pixels", "pixel size"])
def test_a_difference_is_shown_and_ends_with_an_error(wrong, folder, monkeypatch, capsys):
    read = readers.read_stack

    def wrongly(path, **choices):
        for micrograph in read(path, **choices):
            changed = {"image": micrograph.array + 1} if wrong == "pixels" else {"pixel_size": 77.0}
            yield type(micrograph)(**{**vars(micrograph), **changed})

    monkeypatch.setattr(readers, "read_stack", wrongly)
    monkeypatch.setattr(sys, "argv", ["readers", str(folder), "--json"])
    with pytest.raises(SystemExit) as left:
        readers.main()
    counted = json.loads(capsys.readouterr().out)["counts"]["all"]
    # rosettasciio says nothing of the pixel size of a TIFF without tags, so nothing is compared
    assert left.value.code == 1 and counted["different"] == (8 if wrong == "pixels" else 7)
