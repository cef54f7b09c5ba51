"""Model cards: what they hold, what the Hub's own client reads from them, and that they claim nothing unknown."""

import json
import re

import huggingface_hub.constants
import pytest
from hub_server import HubServer
from huggingface_hub import EvalResult, ModelCard

from emfm import EMError, EMFoundationConfig
from emfm.finetuning.card import finetuned_card
from emfm.finetuning.finetune import FinetuneArguments, finetune
from emfm.hub.card import card_for_repo, plain_card
from emfm.hub.zoo import list_models
from emfm.loading.names import BUNDLED
from emfm.pretraining.card import pretraining_card

FACTS = {
    "task": "segmentation", "data": "discs", "dataset_id": None, "images": {"train": 1, "validation": 2},
    "validation_trained_on": 0, "degrade": None,
    "generator": "unet4-rf200-w16", "start": "unet4-rf200-w16", "base_model": "lab/unet4-rf200-w16",
    "adapter": False, "license": None, "scale": 1, "steps": 30, "batch_size": 8, "gradient_accumulation_steps": 1,
    "processes": 1, "crop": 64, "learning_rate": 1e-3, "backbone_lr_scale": 1.0, "freeze": "none", "lora": 0,
    "precision": "fp32", "seed": 3, "seconds": 12.4, "figure_of_merit": "dice",
    "best": {
        "step": 20, "n": 2, "dice": 0.91234, "iou": 0.85, "boundary_f1": None,
        "per_class": {
            "background": {"dice": 0.99, "iou": 0.98, "boundary_f1": 0.5},
            "disc | rim": {"dice": 0.91234, "iou": 0.85, "boundary_f1": None},
        },
    },
}  # fmt: skip
RESTORED = {
    "task": "super-resolution", "degrade": "downsample", "scale": 2, "figure_of_merit": "l1",
    "images": {"train": None, "validation": 1}, "license": "cc-by-4.0", "dataset_id": "lab/columns", "data": "columns",
    "best": {"step": 20, "n": 1, "l1": 0.05, "psnr": 27.5, "ssim": 0.9, "data_range": "the contrast is 1"},
}  # fmt: skip
CARDS = {
    "segmentation": finetuned_card(FACTS),
    "super-resolution": finetuned_card(FACTS | RESTORED),
    "adapter": finetuned_card(FACTS | {"adapter": True, "lora": 8}),
    "scratch": finetuned_card(FACTS | {"start": "random unet4-rf200-w16", "base_model": None}),
    "pretraining": pretraining_card(EMFoundationConfig.from_pretrained(BUNDLED / "unet4-rf200")),
    "plain": plain_card("unet2-rf44", "EMForDenoising"),
    **{info.name: (BUNDLED / info.name / "README.md").read_text(encoding="utf-8") for info in list_models()},
}


@pytest.fixture
def hub(monkeypatch):
    with HubServer() as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        yield server


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory):
    """Card and facts of a model that was fine-tuned from bundled weights, and its folder."""
    from conftest import disc_image

    from emfm.io.writing import write_image

    folder = tmp_path_factory.mktemp("data") / "discs"
    for index in range(3):
        for part, image in zip(("images", "masks"), disc_image(48, index), strict=True):
            write_image(folder / part / f"{index}.png", image)
    (folder / "labels.json").write_text('{"0": "background", "255": "disc"}')
    args = dict(model="unet4-rf200", steps=2, batch_size=2, crop=32, precision="fp32", license="cc-by-4.0")
    facts = finetune(FinetuneArguments("segmentation", str(folder), str(folder / "out"), **args), show_progress=False)
    return (folder / "out" / "README.md").read_text(encoding="utf-8"), facts, folder


@pytest.mark.parametrize("name", CARDS)
def test_every_card_passes_the_clients_validation_and_reads_back_as_it_was_written(name, hub):
    card = ModelCard(CARDS[name])
    card.validate()
    assert "POST /api/validate-yaml" in hub.asked
    assert card.data.library_name == "emfm" and {"electron-microscopy", "emfm"} <= set(card.data.tags)
    again = ModelCard(str(card))
    assert again.data.to_dict() == card.data.to_dict() and again.data.eval_results == card.data.eval_results


@pytest.mark.parametrize("name", CARDS)
def test_every_card_is_well_formed(name):
    _, header, body = CARDS[name].split("---\n", 2)
    assert "{" not in re.sub(r"```.*?```", "", body, flags=re.DOTALL), "a field was not filled in"
    assert "\n\n\n" not in body and "None" not in body and " ." not in body
    assert len(re.findall(r"^# ", re.sub(r"```.*?```", "", body, flags=re.DOTALL), flags=re.MULTILINE)) == 1
    assert all(body.count(fence) % 2 == 0 for fence in ("```", "**"))
    for rows in re.findall(r"(?:^\|.*\n?)+", body, flags=re.MULTILINE):
        lines = rows.strip().splitlines()
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
        assert len(widths) == 1 and re.fullmatch(r"[|\s-]+", lines[1]), lines
    assert not re.search(r"/(home|tmp|root|work)/", header + body)


def test_the_card_of_a_fine_tuned_model_holds_what_the_hub_asks_for():
    data = ModelCard(CARDS["segmentation"]).data
    assert data.base_model == "lab/unet4-rf200-w16" and data.to_dict()["base_model_relation"] == "finetune"
    assert (data.license, data.pipeline_tag, data.datasets) == ("unknown", "image-segmentation", None)
    assert data.model_name == "unet4-rf200-w16 on discs" and "segmentation" in data.tags
    expected = dict(
        task_type="image-segmentation", task_name="segmentation", dataset_type="discs", dataset_name="discs",
        dataset_split="validation", dataset_args={"n": 2}, metric_args={"seeds": 1},
    )  # fmt: skip
    assert data.eval_results == [
        EvalResult(metric_type="dice", metric_name="Dice", metric_value=0.9123, **expected),
        EvalResult(metric_type="iou", metric_name="IoU", metric_value=0.85, **expected),
    ]
    data = ModelCard(CARDS["super-resolution"]).data
    assert (data.license, data.pipeline_tag, data.datasets) == ("cc-by-4.0", "image-to-image", ["lab/columns"])
    assert [result.metric_type for result in data.eval_results] == ["l1", "psnr", "ssim"]
    assert {result.dataset_type for result in data.eval_results} == {"lab/columns"}
    assert ModelCard(CARDS["adapter"]).data.to_dict()["base_model_relation"] == "adapter"
    assert ModelCard(CARDS["scratch"]).data.base_model is None


def test_the_text_of_a_card_says_how_many_images_which_seed_and_what_is_unknown():
    text = " ".join(CARDS["segmentation"].split())
    for part in (
        "the pretrained weights `unet4-rf200-w16` on 1 labelled micrograph: 30 steps of 8 crops of 64 x 64 pixels",
        "fp32, seed 3, 12 s.",
        "On 2 validation micrographs, whole, after step 20.",
        "One data set and one seed: another seed may give other figures",
        "No licence was stated for these weights",
        "| disc \\| rim | 0.9123 | 0.8500 | absent |",
    ):
        assert part in text, part
    text = " ".join(CARDS["super-resolution"].split())
    for part in (
        "on a stream of clean micrographs:",
        "made from the clean micrographs (downsample, 2x)",
        "On 1 validation micrograph, whole",
        "The weights are under the licence `cc-by-4.0`",
        "The output is a plausible image",
    ):
        assert part in text, part
    assert "from random weights on 1 labelled" in CARDS["scratch"]
    assert "trained on" not in CARDS["segmentation"] and "| **mean without background** |" in CARDS["segmentation"]
    pores = FACTS["best"] | {"per_class": {"pore": FACTS["best"]["per_class"]["background"]}}
    assert "| **mean** | 0.9123 |" in finetuned_card(FACTS | {"best": pores})


def test_a_pretraining_claims_no_licence_that_nobody_stated_and_tells_its_command():
    config = EMFoundationConfig.from_pretrained(BUNDLED / "unet4-rf200")
    assert ModelCard(CARDS["pretraining"]).data.license == "unknown"
    assert "emfm pretrain --data fib25_medulla" in CARDS["pretraining"]
    config.pretraining = config.pretraining | {"data": ["lab/cells", "emps"], "streaming": True, "weights": [2.0, 1.0]}
    config.pixel_size_range = (0.5, 4.0)
    card = pretraining_card(config)
    assert ModelCard(card).data.datasets == ["lab/cells"]
    assert "--data lab/cells --data emps --weight 2 --weight 1 --streaming" in card
    assert "pixel sizes of 0.5 to 4 nm" in card


def test_a_finished_run_leaves_such_a_card(finetuned):
    text, facts, folder = finetuned
    data = ModelCard(text).data
    assert data.base_model is None  # no account on the Hub holds the zoo
    assert data.license == "cc-by-4.0" and data.datasets is None
    (dice,) = [result for result in data.eval_results if result.metric_type == "dice"]
    assert dice.metric_value == round(facts["best"]["dice"], 4) and dice.dataset_type == "discs"
    assert json.loads((folder / "out" / "finetuning.json").read_text()) == facts
    assert facts["validation_trained_on"] == 3 and "**The network was trained on 3 of them, too**" in text
    assert str(folder.parent) not in text


def test_a_model_that_started_from_a_folder_names_no_base_model(finetuned, tmp_path):
    _, _, folder = finetuned
    args = dict(model=str(folder / "out"), steps=1, batch_size=1, crop=32, precision="fp32")
    output = tmp_path / "again"
    facts = finetune(FinetuneArguments("segmentation", str(folder), str(output), **args), show_progress=False)
    data = ModelCard((output / "README.md").read_text()).data
    assert data.base_model is None and facts["start"] == "out" and data.license == "unknown"


@pytest.mark.parametrize(("images", "seen"), [(6, 0), (2, 2)])
def test_validation_images_that_were_trained_on_are_told(images, seen, tmp_path):
    from conftest import waves

    from emfm.io.writing import write_image

    for index in range(images):
        write_image(tmp_path / "clean" / f"{index}.png", waves(index))
    settings = dict(scratch="unet2-rf44", steps=1, batch_size=1, crop=32, precision="fp32", degrade="dose")
    args = FinetuneArguments("denoising", str(tmp_path / "clean"), str(tmp_path / "out"), **settings)
    assert finetune(args, show_progress=False)["validation_trained_on"] == seen


def test_a_licence_that_the_hub_would_refuse_is_refused(tmp_path):
    for license in ("My own", "CC BY 4.0", ""):
        with pytest.raises(EMError, match=r"expected an identifier as on the Hub|license is empty"):
            FinetuneArguments("segmentation", "data", str(tmp_path), model="unet4-rf200", license=license)


@pytest.mark.parametrize("name", CARDS)
def test_the_example_of_a_pushed_card_loads_from_the_repository(name):
    pushed = card_for_repo(CARDS[name], "lab/model")
    assert 'model_id = "lab/model"' in pushed and "path/to" not in pushed
    assert card_for_repo(pushed, "lab/other") == card_for_repo(CARDS[name], "lab/other")
    assert pushed.replace("lab/model", "") == re.sub(r'(?m)^model_id = ".*"$', 'model_id = ""', CARDS[name])


def test_the_example_of_a_card_runs_as_it_stands(finetuned, tmp_path, monkeypatch):
    from conftest import disc_image

    from emfm.io.writing import write_image

    text, _, folder = finetuned
    (code,) = re.findall(r"```python\n(.*?)```", card_for_repo(text, str(folder / "out")), flags=re.DOTALL)
    write_image(tmp_path / "micrograph.tif", disc_image(48, 9)[0])
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code, names)
    assert names["result"].output.shape == (48, 48)
