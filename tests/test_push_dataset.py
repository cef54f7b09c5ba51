"""Folders pushed as datasets with the real client over HTTP: every value kept, one commit, nothing private in it."""

import json
import subprocess
import sys
from pathlib import Path

import datasets
import huggingface_hub.constants
import numpy as np
import pytest
import tifffile
from conftest import waves
from dataset_rows import pixels
from hub_server import HubServer
from PIL import Image
from test_cli import emfm, last_line  # noqa: F401  (a fixture)

from emfm import EMError, load_em_dataset, push_dataset
from emfm.io.writing import write_image

SAID = {"license": "cc-by-4.0", "citation": "Ada: Discs. 2024."}
OPTIONS = ["--license", "cc-by-4.0", "--citation", "Ada: Discs. 2024."]


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    with HubServer() as server:
        server.stand_in(monkeypatch, tmp_path)
        yield server


@pytest.fixture
def sixteen_bits(tmp_path):
    """A labelled folder with 16-bit TIFF images of known pixel size: ten for training, two for validation."""
    folder, rng = tmp_path / "Messung 7", np.random.default_rng(0)
    names = [f"m{index:02d}.tif" for index in range(12)]
    for index, name in enumerate(names):
        image = rng.integers(0, 2**16, (40, 48), dtype=np.uint16)
        write_image(folder / "images" / name, image, pixel_size=0.5 + index)
        write_image(folder / "masks" / name.replace(".tif", ".png"), (image > 40_000) * np.uint8(255))
    (folder / "labels.json").write_text('{"0": "background", "255": "particle"}')
    (folder / "splits.json").write_text(json.dumps({"train": names[:10], "validation": names[10:], "test": []}))
    return folder


def files(hub, repo="lab/discs", revision="main") -> dict[str, bytes]:
    found = hub.repos[f"datasets/{repo}"]
    return {entry["path"]: found.read(revision, entry["path"]) for entry in found.entries(revision)}


def test_a_labelled_folder_keeps_values_splits_labels_and_pixel_sizes_over_the_hub(hub, sixteen_bits):
    address = push_dataset(sixteen_bits, "lab/discs", **SAID, private=True, tag="v1.0")
    repo = hub.repos["datasets/lab/discs"]
    assert repo.private and len(repo.commits) == 2 and repo.refs["v1.0"] == repo.refs["main"]
    assert address.endswith(f"datasets/lab/discs/commit/{repo.refs['main']}")
    shards = [f"data/train-{i:05d}-of-00008.parquet" for i in range(8)]
    shards += [f"data/validation-{i:05d}-of-00002.parquet" for i in range(2)]
    assert set(files(hub)) == {*shards, "README.md", "labels.json", ".gitattributes"}

    for streaming in (False, True):
        for split, indices in (("train", range(10)), ("validation", range(10, 12))):
            loaded = load_em_dataset("lab/discs", split, streaming=streaming)
            loaded = loaded.take(12) if streaming else loaded
            assert loaded.names == [f"m{index:02d}.tif" for index in indices]
            assert loaded.id2label == {0: "background", 1: "particle"}
            assert loaded.pixel_sizes == pytest.approx([0.5 + index for index in indices])
            for index, image, mask in zip(indices, loaded.images, loaded.masks, strict=True):
                expected = tifffile.imread(sixteen_bits / "images" / f"m{index:02d}.tif")
                assert image.dtype == np.uint16
                np.testing.assert_array_equal(image, expected)
                np.testing.assert_array_equal(mask, expected > 40_000)


def test_users_without_emfm_see_the_same_values_in_a_stream(hub, sixteen_bits):
    push_dataset(sixteen_bits, "lab/discs", **SAID)
    rows = list(datasets.load_dataset("lab/discs", split="train", streaming=True))
    assert [row["pixel_size_nm"] for row in rows] == pytest.approx([0.5 + index for index in range(10)])
    for index, row in enumerate(rows):
        expected = tifffile.imread(sixteen_bits / "images" / f"m{index:02d}.tif")
        np.testing.assert_array_equal(np.asarray(row["image"]), expected)
        np.testing.assert_array_equal(np.asarray(row["mask"]), (expected > 40_000) * 255)


def test_every_format_and_dtype_of_a_plain_folder_comes_back_with_its_values(hub, tmp_path):
    folder, rng = tmp_path / "scans", np.random.default_rng(1)
    grey = rng.integers(0, 256, (9, 11), dtype=np.uint8)
    expected = {
        "a.png": grey,
        "b/a.tif": rng.normal(size=(9, 11)).astype(np.float32),
        "c.npy": rng.integers(0, 2**16, (9, 11)),  # int64 that fits uint16
        "d.npy": rng.integers(-(2**31), 2**31, (9, 11)),
        "e.npy": grey > 128,
        "f.tif": rng.integers(0, 2**16, (9, 11), dtype=np.uint16),
        "g.png": grey,
    }
    (folder / "b").mkdir(parents=True)
    for name, image in expected.items():
        if name.endswith(".npy"):
            np.save(folder / name, image)
        elif name == "f.tif":  # a compression that Pillow does not read
            tifffile.imwrite(folder / name, image, bigtiff=True, compression="zlib", predictor=True)
        else:
            write_image(folder / name, np.stack([image] * 3, axis=-1) if name == "g.png" else image)
    (folder / ".hidden.png").write_bytes((folder / "a.png").read_bytes())
    push_dataset(folder, "lab/scans", license="unknown", citation="@misc{ada,\n  title = {Scans}\n}")
    rows = list(datasets.load_dataset("lab/scans", split="train", streaming=True))
    raw = datasets.load_dataset("lab/scans", split="train", streaming=True)
    cells = [row["image"] for row in raw.cast_column("image", datasets.Image(decode=False))]
    names = [cell["path"] for cell in cells]
    assert [Path(name).with_suffix("").as_posix() for name in names] == ["a", "b/a", "c", "d", "e", "f", "g"]
    for row, cell, image in zip(rows, cells, expected.values(), strict=True):
        np.testing.assert_array_equal(np.asarray(row["image"]), image)
        np.testing.assert_array_equal(pixels(cell), image)
        assert row["pixel_size_nm"] is None
    card = files(hub, "lab/scans")["README.md"].decode()
    assert "license: unknown" in card and "ask the authors" in card and "```bibtex\n@misc{ada" in card
    assert 'load_dataset("lab/scans", split="train", streaming=True)' in card and "| train | 7 |" in card
    assert "not known of any image" in card


def test_pairs_keep_their_scale_and_the_streams_of_both_kinds_train(hub, tmp_path):
    folder, rng = tmp_path / "pairs", np.random.default_rng(2)
    for index in range(9):
        target = rng.normal(size=(32, 32)).astype(np.float32)
        write_image(folder / "targets" / f"{index}.tif", target)
        write_image(folder / "images" / f"{index}.tif", target[::2, ::2], pixel_size=2.0)
    push_dataset(folder, "lab/pairs", **SAID)
    loaded = load_em_dataset("lab/pairs")
    assert loaded.scale == 2 and loaded.pixel_sizes == pytest.approx([2.0] * 9)
    np.testing.assert_array_equal(loaded.targets[3], tifffile.imread(folder / "targets" / "3.tif"))
    assert "task_categories:\n- image-to-image" in files(hub, "lab/pairs")["README.md"].decode()
    write_image(folder / "targets" / "5.tif", np.zeros((64, 64), np.float32))
    with pytest.raises(EMError, match=r"5\.tif is 64 x 64 pixels, its image 16 x 16: that does not fit the scale 2"):
        push_dataset(folder, "lab/pairs", **SAID)
    assert len(hub.repos["datasets/lab/pairs"].commits) == 2


def test_nothing_private_goes_along(hub, tmp_path):
    folder = tmp_path / "scans"
    image = np.arange(400, dtype=np.uint16).reshape(20, 20)
    for name, text in (
        ("path.tif", "acquired on /home/ada/scans/1.dm3"),
        ("windows.tif", r"file=C:\Users\ada\x.tif"),
        ("plain.tif", "200 kV"),
    ):
        folder.mkdir(exist_ok=True)
        tifffile.imwrite(folder / name, image, description=text, metadata=None)
    push_dataset(folder, "lab/scans", **SAID)
    everything = b"".join(content for content in files(hub, "lab/scans").values())
    for secret in (str(tmp_path), "/home/ada/", "hf_test", "Users\\ada", "/tmp/"):
        assert secret.encode() not in everything, secret
    assert b"200 kV" in everything  # what is not private stays
    for sample in load_em_dataset_images("lab/scans"):
        np.testing.assert_array_equal(sample, image)
    (folder / "hf_abcdefghijkl.tif").write_bytes((folder / "plain.tif").read_bytes())
    with pytest.raises(EMError, match=r"a file name in .* holds an access token"):
        push_dataset(folder, "lab/more", **SAID)
    (folder / "hf_abcdefghijkl.tif").unlink()
    with pytest.raises(EMError, match=r"the card .* holds an absolute path"):
        push_dataset(folder, "lab/more", **SAID, source="/home/ada/scans")
    assert list(hub.repos) == ["datasets/lab/scans"]


def load_em_dataset_images(repo: str) -> list[np.ndarray]:
    return load_em_dataset(repo, degrade="paper").images


def test_what_an_older_dataset_left_behind_goes_with_the_same_commit(hub, sixteen_bits):
    push_dataset(sixteen_bits, "lab/discs", **SAID)
    (sixteen_bits / "splits.json").write_text(json.dumps({"train": [f"m{index:02d}.tif" for index in range(3)]}))
    push_dataset(sixteen_bits, "lab/discs", **SAID, message="Fewer")
    shards = [f"data/train-{i:05d}-of-00003.parquet" for i in range(3)]
    assert set(files(hub)) == {*shards, "README.md", "labels.json", ".gitattributes"}
    assert len(hub.repos["datasets/lab/discs"].commits) == 3
    push_dataset(sixteen_bits, "lab/discs", **SAID, branch="trial")
    push_dataset(sixteen_bits, "lab/discs", license="mit", citation="Ada.", create_pr=True)
    assert b"license: mit" in files(hub, revision="refs/pr/1")["README.md"]
    assert b"license: cc-by-4.0" in files(hub)["README.md"]


def test_a_dry_run_says_what_would_be_pushed_and_asks_the_hub_for_nothing(hub, sixteen_bits, emfm):  # noqa: F811
    code, out, err = emfm("push-dataset", sixteen_bits, "lab/discs", *OPTIONS, "--dry-run")
    assert code == 0, err
    assert "would push lab/discs" in out
    assert "train: 10 rows in 8 files; first row: image m00.tif 40 x 48 uint16, mask m00.png 40 x 48 uint8" in out
    assert "validation: 2 rows in 2 files" in out
    assert hub.asked == []


def broken(folder: Path, what: str) -> None:
    images = folder / "images"
    if what == "colour":
        Image.new("RGB", (48, 40), (255, 0, 0)).save(images / "m03.tif")
    elif what == "mask of another size":
        Image.new("L", (4, 4)).save(folder / "masks" / "m03.png")
    elif what == "grey value":
        Image.new("L", (48, 40), 7).save(folder / "masks" / "m03.png")
    elif what == "no mask":
        (folder / "masks" / "m03.png").unlink()
    elif what == "missing file":
        (folder / "splits.json").write_text('{"train": ["m00.tif", "gone.tif"]}')
    elif what == "empty splits":
        (folder / "splits.json").write_text('{"train": [], "test": []}')
    elif what == "twice":
        (folder / "splits.json").write_text('{"train": ["m00.tif"], "test": ["m00.tif"]}')
    elif what == "split name":
        (folder / "splits.json").write_text('{"my split": ["m00.tif"]}')
    elif what == "damaged":
        (images / "m03.tif").write_bytes(b"II*\0nothing")
    elif what == "no image":
        for path in images.iterdir():
            path.unlink()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("colour", "m03.tif: a colour image"),
        ("mask of another size", "m03.png is 4 x 4 pixels, its image 40 x 48"),
        ("grey value", "m03.png holds the grey values 7, which labels.json does not name"),
        ("no mask", "m03.tif has no mask"),
        ("missing file", "splits.json: 'train' names gone.tif, which is not in"),
        ("empty splits", "splits.json lists no image in any split"),
        ("twice", "'m00.tif' is in the split 'train' and again in 'test'"),
        ("split name", "splits.json names a split 'my split'; expected letters"),
        ("damaged", "m03.tif: the file is damaged"),
        ("no image", "images holds no image"),
    ],
)
def test_a_folder_that_does_not_fit_is_one_line_and_nothing_is_pushed(what, message, hub, sixteen_bits, emfm):  # noqa: F811
    broken(sixteen_bits, what)
    code, _, err = emfm("push-dataset", sixteen_bits, "lab/discs", *OPTIONS)
    assert code == 2 and message in last_line(err), err
    assert err.count("emfm:") == 1 and hub.repos == {}


def test_missing_licence_citation_and_folder_are_one_line(hub, sixteen_bits, emfm, tmp_path):  # noqa: F811
    for arguments, message in (
        ([sixteen_bits, "lab/discs", "--citation", "Ada."], "the licence of the images is missing; expected"),
        ([sixteen_bits, "lab/discs", "--citation", "Ada.", "--license", "CC BY 4.0"], "the licence is 'CC BY 4.0'"),
        ([sixteen_bits, "lab/discs", "--license", "mit"], "the citation is missing"),
        ([tmp_path / "nowhere", "lab/discs", *OPTIONS], "there is no folder"),
        ([sixteen_bits, "lab/discs/deep", *OPTIONS], "cannot push to lab/discs/deep"),
        ([sixteen_bits, "discs", *OPTIONS], "cannot push to discs: expected owner/name"),
        ([sixteen_bits, "lab/dis cs", *OPTIONS], "cannot push to lab/dis cs"),
        ([sixteen_bits, "lab/discs", *OPTIONS, "--tag", "v1", "--create-pr"], "either --tag or --create-pr"),
        ([sixteen_bits.parent, "lab/discs", *OPTIONS], "1 labelled folders, each a dataset: push"),
    ):
        code, _, err = emfm("push-dataset", *arguments)
        assert code == 2 and message in last_line(err), err
    assert hub.asked == []


def test_without_a_token_or_with_a_foreign_one_nothing_is_pushed(hub, sixteen_bits, emfm, monkeypatch, tmp_path):  # noqa: F811
    monkeypatch.setenv("HF_TOKEN", "hf_foreign")
    code, _, err = emfm("push-dataset", sixteen_bits, "lab/discs", *OPTIONS)
    assert code == 2 and "cannot push to lab/discs" in last_line(err) and "hf auth login" in last_line(err)
    assert "hf_foreign" not in err
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    code, _, err = emfm("push-dataset", sixteen_bits, "lab/discs", *OPTIONS)
    assert code == 2 and "cannot push to lab/discs without a token. Log in" in last_line(err)
    assert hub.repos == {}


@pytest.mark.parametrize(
    "fault",
    [
        dict(pattern="PUT /lfs/", drop=True),
        dict(pattern="POST .*/commit/main", drop=True),
        dict(pattern="POST .*/preupload/", status=403),
        dict(pattern="POST .*/commit/main", status=403),
        dict(pattern="GET .*/tree/", status=403),
    ],
    ids=str,
)
def test_a_failure_in_the_middle_leaves_the_dataset_as_it_was(fault, hub, sixteen_bits, emfm, monkeypatch):  # noqa: F811
    push_dataset(sixteen_bits, "lab/discs", **SAID)
    before = files(hub)
    (sixteen_bits / "labels.json").write_text('{"0": "background", "255": "bead"}')
    write_image(sixteen_bits / "images" / "m09.tif", np.zeros((40, 48), np.uint16))
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.fail(**fault, times=99)
    code, _, err = emfm("push-dataset", sixteen_bits, "lab/discs", *OPTIONS)
    assert code == 2 and "cannot push to lab/discs" in last_line(err), err
    assert files(hub) == before
    hub.heal()
    push_dataset(sixteen_bits, "lab/discs", **SAID)
    assert b"bead" in files(hub)["labels.json"] and len(hub.repos["datasets/lab/discs"].commits) == 3


@pytest.mark.slow
def test_in_processes_of_their_own_a_folder_is_pushed_and_pretrained_on_as_a_stream(tmp_path):
    for index in range(45):
        write_image(tmp_path / "scans" / f"{index:02d}.tif", waves(index).astype(np.uint16) * 200, pixel_size=0.2)
    with HubServer() as server:
        environment = server.environment(tmp_path, HF_TOKEN="hf_test")

        def run(*arguments: str) -> dict:
            command = [sys.executable, "-m", "emfm.cli", *arguments, "--json"]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr[-3000:]
            return json.loads(done.stdout)

        assert run("push-dataset", str(tmp_path / "scans"), "lab/scans", *OPTIONS)["repo_id"] == "lab/scans"
        toy = ["--generator", "unet2-rf44", "--steps", "2", "--batch-size", "2", "--crop", "32", "--save-steps", "2"]
        toy += ["--discriminator-width", "4", "--output", str(tmp_path / "run")]
        assert run("pretrain", "--data", "lab/scans", "--streaming", *toy)["step"] == 2
        assert len(server.repos["datasets/lab/scans"].commits) == 2
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix in (".arrow", ".parquet")]
