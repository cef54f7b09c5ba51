import json

import numpy as np
import pytest

from emfm.data.datasets import load_em_dataset
from emfm.errors import EMError
from emfm.io.reading import read_micrograph
from emfm.simulate.folder import write_simulated_folder


@pytest.mark.parametrize(("count", "held_out"), [(3, 1), (12, 2)])
def test_a_simulated_folder_loads_in_three_splits_that_share_no_image(tmp_path, count, held_out):
    write_simulated_folder("nanoparticles", tmp_path / "data", count, (24, 20), seed=5)
    splits = {split: load_em_dataset(tmp_path / "data", split) for split in ("train", "validation", "test")}
    assert [len(data) for data in splits.values()] == [count - 2 * held_out, held_out, held_out]
    names = [name for data in splits.values() for name in data.names]
    assert names == [f"nanoparticles_{index:04d}.tif" for index in range(count)]
    images = [image for data in splits.values() for image in data.images]
    assert len({image.tobytes() for image in images}) == count
    for data in splits.values():
        assert data.id2label == {0: "background", 1: "particle"}
        for image, mask, name in zip(data.images, data.masks, data.names, strict=True):
            stored = read_micrograph(tmp_path / "data" / "masks" / name.replace(".tif", ".png")).image
            assert image.dtype == np.uint16
            np.testing.assert_array_equal(stored, 255 * mask)
        # a particle is at most 40 % of the shorter side across: 8 px for each of the nominal
        # diameters
        assert set(np.round(data.pixel_sizes, 6)) <= {2.2 / 8, 5.0 / 8, 10.0 / 8, 20.0 / 8}
    assert sum(int(mask.sum()) for data in splits.values() for mask in data.masks) > 0


def test_a_simulated_image_depends_on_seed_and_number_and_not_on_the_count(tmp_path):
    few, more, other = (
        write_simulated_folder("nanoparticles", tmp_path / name, count, (20, 20), seed)
        for name, count, seed in (("few", 3, 1), ("more", 5, 1), ("other", 3, 2))
    )
    for index in range(3):
        name = f"images/nanoparticles_{index:04d}.tif"
        image = read_micrograph(few / name).image
        np.testing.assert_array_equal(image, read_micrograph(more / name).image)
        assert (image != read_micrograph(other / name).image).any()


def test_a_simulated_folder_refuses_what_it_cannot_write(tmp_path):
    for kind, count, message in (
        ("crystals", 3, "kind is 'crystals'; expected one of nanoparticles"),
        ("nanoparticles", 2, "count is 2; expected at least 3"),
    ):
        with pytest.raises(EMError, match=message):
            write_simulated_folder(kind, tmp_path / "data", count, (20, 20), seed=0)
    assert not (tmp_path / "data").exists()
    (tmp_path / "used" / "images").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(EMError, match="used holds images already"):
        write_simulated_folder("nanoparticles", tmp_path / "used", 3, (20, 20), seed=0)
    assert sorted(tmp_path.rglob("*")) == before


def test_atomic_stem_gives_a_folder_of_pairs_for_each_restoration_task(tmp_path):
    write_simulated_folder("atomic-stem", tmp_path, 6, (48, 64), seed=1)
    images = set()
    for task, shape in (("denoising", (48, 64)), ("background-removal", (48, 64)), ("super-resolution", (96, 128))):
        folder = tmp_path / task
        splits = json.loads((folder / "splits.json").read_text())
        names = [name for split in splits.values() for name in split]
        assert [len(splits[name]) for name in ("train", "validation", "test")] == [4, 1, 1]
        assert sorted(path.name for path in (folder / "targets").iterdir()) == sorted(names)
        noisy, target = (read_micrograph(folder / part / names[0]) for part in ("images", "targets"))
        images.add(noisy.image.tobytes())
        assert noisy.image.dtype == np.uint16 and target.image.dtype == np.float32
        assert target.image.shape == shape
        assert target.pixel_size == pytest.approx(noisy.pixel_size * 48 / shape[0], rel=1e-4)
    assert len(images) == 1
    with pytest.raises(EMError, match="holds images already"):
        write_simulated_folder("atomic-stem", tmp_path, 6, (48, 64), seed=1)


@pytest.mark.parametrize("kind", ["nanoparticles", "atomic-stem"])
def test_images_do_not_depend_on_the_number_of_processors(kind, tmp_path, monkeypatch):
    for processors in (1, 4):
        monkeypatch.setattr("os.cpu_count", lambda count=processors: count)
        write_simulated_folder(kind, tmp_path / str(processors), 6, (32, 40), seed=3)
    files = [path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*") if path.is_file()]
    assert files and all((tmp_path / "1" / f).read_bytes() == (tmp_path / "4" / f).read_bytes() for f in files)


def test_an_error_in_one_image_stops_the_simulation(tmp_path, monkeypatch):
    def broken(shape, seed, parameters):
        raise EMError("no")

    monkeypatch.setattr("emfm.simulate.folder.simulate_nanoparticles", broken)
    with pytest.raises(EMError, match="no"):
        write_simulated_folder("nanoparticles", tmp_path / "data", 50, (20, 20), seed=0)
