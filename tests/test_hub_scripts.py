"""The scripts that publish, each run against a Hub on loopback with toy sizes."""

from pathlib import Path

import numpy as np
import pytest
from conftest import disc_image, waves
from test_push_dataset import files, hub  # noqa: F401  (a fixture)

from emfm import EMForSemanticSegmentation, EMFoundation, load_em_dataset, push_dataset
from emfm.hub.verify import verify
from emfm.io.writing import write_image
from emfm.loading.names import bundled_names

SCRIPTS = Path(__file__).parents[1] / "hub_scripts"
PRETRAIN = ["--generator", "unet2-rf44", "--steps", "2", "--batch-size", "2", "--crop", "32"]
PRETRAIN += ["--discriminator-width", "4", "--save-steps", "2"]


@pytest.fixture
def run(script, capsys):
    """Run a script in this process; returns exit code, standard output and standard error."""

    def call(name: str, *arguments: object) -> tuple[int, str, str]:
        code = script(name).main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def micrographs(tmp_path):
    folder = tmp_path / "micrographs"
    for index in range(45):
        write_image(folder / f"{index:02d}.png", waves(index))
    return folder


@pytest.fixture
def discs(tmp_path):
    folder = tmp_path / "discs"
    for index in range(9):
        for part, image in zip(("images", "masks"), disc_image(48, index), strict=True):
            write_image(folder / part / f"{index}.png", image)
    (folder / "labels.json").write_text('{"0": "background", "255": "disc"}')
    (folder / "splits.json").write_text(
        '{"train": ["0.png", "1.png", "2.png", "3.png", "4.png", "5.png", "6.png", "7.png"], "validation": ["8.png"]}'
    )
    return folder


def saved(hub, repo: str, folder: Path) -> Path:  # noqa: F811
    """Write a repository's files into a folder."""
    found = hub.repos[repo]
    for entry in found.entries("main"):
        path = folder / entry["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(found.read("main", entry["path"]))
    return folder


def test_the_zoo_goes_up_with_its_cards_one_repository_a_model(hub, run, tmp_path):  # noqa: F811
    code, out, err = run("publish_zoo", "lab", "--dry-run")
    assert code == 0, err
    assert "would push unet4-rf200 (130,677 weights" in out and "to lab/unet4-rf200-w16" in out and not hub.repos
    code, out, err = run("publish_zoo", "lab", "--tag", "v1")
    assert code == 0, err
    assert set(hub.repos) == {f"lab/{name}" for name in bundled_names()}
    for name in ("unet4-rf200", "hrnet-w18-small"):
        folder = saved(hub, f"lab/{name}", tmp_path / name)
        assert "## Training" in (folder / "README.md").read_text()
        assert verify(EMFoundation.from_pretrained(folder), folder) < 1e-3
        assert hub.repos[f"lab/{name}"].refs["v1"] == hub.repos[f"lab/{name}"].refs["main"]


def test_a_folder_and_a_prepared_dataset_are_published(hub, run, discs, emps, tmp_path):  # noqa: F811
    said = ["--license", "cc0-1.0", "--citation", "Me."]
    code, out, err = run("publish_dataset", discs, "lab/discs", *said, "--dry-run")
    assert code == 0 and "train: 8 rows in 8 files" in out and not hub.repos, err
    code, out, err = run("publish_dataset", discs, "lab/discs", *said)
    assert code == 0, err
    np.testing.assert_array_equal(load_em_dataset("lab/discs").images[3], disc_image(48, 3)[0])

    root, lists = emps
    prepared = tmp_path / "prepared"
    code, _, err = run("prepare_emps", root, "--lists", lists, "--output", prepared, "--num-validation", 2)
    assert code == 0, err
    code, out, err = run("publish_dataset", prepared, "lab/emps", "--dry-run")
    assert code == 0 and "10 rows in 12 files" in out and list(hub.repos) == ["datasets/lab/discs"], err
    code, out, err = run("publish_dataset", prepared, "lab/emps", "--private")
    assert code == 0, err
    assert hub.repos["datasets/lab/emps"].private
    pushed = files(hub, "lab/emps")
    card = pushed.pop("README.md").decode()
    assert 'load_dataset("lab/emps"' in card and "license: mit" in card and "Yildirim" in card
    pushed.pop(".gitattributes")
    assert pushed == {name: (prepared / name).read_bytes() for name in pushed} and "labels.json" in pushed
    assert len(load_em_dataset("lab/emps", "test")) == 3


def test_a_prepared_dataset_whose_card_does_not_agree_is_refused(hub, run, cem500k, tmp_path):  # noqa: F811
    prepared = tmp_path / "cem"
    assert run("prepare_cem500k", cem500k, "--output", prepared, "--num-held-out", 4)[0] == 0
    card = (prepared / "README.md").read_text()
    for text, options, message in (
        (card, ["--license", "mit"], "the licence was given as 'mit', "),
        (card, ["--citation", "Somebody."], "has another citation"),
        (card.replace("license: cc0-1.0", "license: unknown"), [], "says that the licence is 'unknown'"),
        (card.replace("license: cc0-1.0\n", ""), [], "says that the licence is 'missing'"),
        (card + "\nmade in /home/ada", [], "holds an absolute path"),
    ):
        (prepared / "README.md").write_text(text)
        code, _, err = run("publish_dataset", prepared, "lab/cem", *options)
        assert code == 2 and message in err and err.count("\n") == 1, err
    (prepared / "README.md").write_text(card)
    shard = next((prepared / "data").glob("train-*.parquet"))
    content = shard.read_bytes()
    shard.write_bytes(content[:-100])
    code, _, err = run("publish_dataset", prepared, "lab/cem")
    assert code == 2 and f"{shard.name} is damaged or no parquet file" in err
    shard.write_bytes(content)
    (prepared / "README.md").unlink()
    code, _, err = run("publish_dataset", prepared, "lab/cem")
    assert code == 2 and "has no README.md" in err and hub.repos == {}


def test_parquet_files_that_name_private_paths_are_refused(hub, run, tmp_path):  # noqa: F811
    import datasets

    folder = tmp_path / "made elsewhere"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\n---\nCite me.")
    shard = str(folder / "data" / "train-00000-of-00001.parquet")
    image = {"image": datasets.Image()}
    for rows, features, message in (
        ({"image": [{"bytes": b"x", "path": "/home/ada/1.png"}]}, image, "names a file by the absolute path"),
        ({"image": [{"bytes": b"x", "path": r"D:\ada\1.png"}]}, image, "names a file by the absolute path"),
        ({"image": [{"bytes": b"x", "path": "hf_abcdefghijkl.png"}]}, image, "which holds an access token"),
        (
            {"image": [], "operator": []},
            image | {"operator": datasets.Value("string")},
            "has the columns image, operator",
        ),
    ):
        datasets.Dataset.from_dict(rows, features=datasets.Features(features)).to_parquet(shard)
        code, _, err = run("publish_dataset", folder, "lab/scans")
        assert code == 2 and message in err, err
    assert hub.repos == {}


def test_a_generator_is_pretrained_on_a_streamed_dataset_and_pushed(hub, run, micrographs, tmp_path):  # noqa: F811
    push_dataset(micrographs, "lab/micrographs", license="mit", citation="Me.")
    command = ["pretrain", "lab/unet", "--data", "lab/micrographs", "--streaming", "--output", tmp_path / "run"]
    code, out, err = run(*command, *PRETRAIN, "--no-filters", "--structures", "0", "--dry-run")
    assert code == 0 and "would pretrain with" in out and "to lab/unet" in out and not (tmp_path / "run").exists(), err
    assert "filters=False, structures=0" in out
    code, out, err = run(*command, *PRETRAIN)
    assert code == 0, err
    folder = saved(hub, "lab/unet", tmp_path / "pushed")
    model = EMFoundation.from_pretrained(folder)
    assert verify(model, folder) < 1e-4
    assert model.config.pretraining["data"] == ["lab/micrographs"] and model.config.pretraining["streaming"]
    code, _, err = run(*command, *PRETRAIN)
    assert code == 2 and "holds a run already" in err and err.count("\n") == 1


def test_a_model_is_fine_tuned_on_a_hub_dataset_and_pushed_with_its_figures(hub, run, discs, tmp_path):  # noqa: F811
    push_dataset(discs, "lab/discs", license="mit", citation="Me.")
    command = [
        "finetune_and_push",
        "segmentation",
        "lab/segmenter",
        "--data",
        "lab/discs",
        "--output",
        tmp_path / "out",
    ]
    toy = ["--scratch", "unet2-rf44", "--steps", 2, "--batch-size", 2, "--crop", 32, "--precision", "fp32"]
    code, out, err = run(*command, *toy, "--dry-run")
    assert code == 0 and "would fine-tune with" in out and not (tmp_path / "out").exists(), err
    code, out, err = run(*command, *toy)
    assert code == 0, err
    folder = saved(hub, "lab/segmenter", tmp_path / "pushed")
    model = EMForSemanticSegmentation.from_pretrained(folder)
    assert verify(model, folder) < 1e-4 and model.config.id2label == {0: "background", 1: "disc"}
    assert "8 labelled micrographs" in (folder / "README.md").read_text()
    code, _, err = run(*command)
    assert code == 2 and "give either a pretrained model (--model)" in err and err.count("\n") == 1


def test_the_recipe_of_the_bundled_models_runs_and_puts_them_in_place(run, script, tmp_path, monkeypatch):
    from dataclasses import replace

    module = script("pretrain_bundled")
    code, out, err = run("pretrain_bundled", "--data", tmp_path, "--dry-run")
    assert code == 0 and out.count("would pretrain") == len(module.MODELS) >= 12 and "fib25_medulla" in out, err
    for index in range(2):
        write_image(tmp_path / "waves" / f"{index}.png", waves(index))
    recipe = module.recipe
    toy = dict(generator="unet2-rf44", steps=1, batch_size=2, crop=32, structures=1, precision="fp32")
    toy["data"] = (str(tmp_path / "waves"),)
    monkeypatch.setattr(module, "BUNDLED", tmp_path / "bundled")
    monkeypatch.setattr(module, "recipe", lambda *arguments: replace(recipe(*arguments), **toy))
    code, _, err = run("pretrain_bundled", "--data", tmp_path, "--runs", tmp_path / "runs", "--only", "unet4-rf200")
    assert code == 0, err
    assert (
        verify(EMFoundation.from_pretrained(tmp_path / "bundled" / "unet4-rf200"), tmp_path / "bundled" / "unet4-rf200")
        < 1e-4
    )


def test_without_a_token_a_script_says_so_in_one_line(hub, run, monkeypatch):  # noqa: F811
    monkeypatch.setenv("HF_TOKEN", "hf_foreign")
    code, _, err = run("publish_zoo", "lab", "--only", "unet4-rf200")
    assert code == 2 and "cannot push to lab/unet4-rf200" in err and "hf auth login" in err and err.count("\n") == 1


def test_every_script_is_short_and_named_in_the_readme():
    readme = (SCRIPTS / "README.md").read_text()
    for path in SCRIPTS.glob("*.py"):
        assert len(path.read_text().splitlines()) < 80, path.name
        assert path.name in readme or path.name.startswith("prepare_"), path.name


@pytest.mark.parametrize("name", sorted(path.stem for path in SCRIPTS.glob("p*.py") if path.stem != "prepare_command"))
def test_help_shows_the_defaults(name, script, capsys):
    with pytest.raises(SystemExit) as stop:
        script(name).main(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and "--dry-run" in text and "default" in text
