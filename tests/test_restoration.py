"""The restoration tasks: models, tiles, metrics, and training at toy size."""

import json

import numpy as np
import pytest
import torch
from conftest import waves
from PIL import Image

from emfm import (
    EMError,
    EMForBackgroundRemoval,
    EMForDenoising,
    EMForSuperResolution,
    EMFoundation,
    EMFoundationConfig,
    EMTrainer,
    EMTrainingArguments,
    predict,
    read_micrograph,
)
from emfm.data.examples import CleanMicrographs
from emfm.data.restoration_pairs import Degradation
from emfm.finetuning.evaluate import evaluate
from emfm.finetuning.finetune import FinetuneArguments, build_model, finetune, read_splits
from emfm.finetuning.lora import add_lora, write_model
from emfm.io.reading import Micrograph
from emfm.io.writing import write_image
from emfm.tasks import TASKS, load_model
from emfm.tasks.metrics import RestorationMetrics

DEGRADE = {"denoising": "dose", "super-resolution": "downsample", "background-removal": "background"}


def blocks(index: int, side: int = 64) -> np.ndarray:
    """Return a clean image of bright and dark squares of 5 pixels, 16 bits."""
    bright = np.random.default_rng(index).integers(0, 2, (side // 5 + 1, side // 5 + 1), dtype=np.uint16)
    return 1000 + 2000 * np.kron(bright, np.ones((5, 5), np.uint16))[:side, :side]


@pytest.fixture
def clean_folder(tmp_path):
    folder = tmp_path / "clean"
    for index in range(6):
        write_image(folder / "images" / f"{index}.tif", blocks(index))
    splits = {"train": ["0.tif", "1.tif", "2.tif"], "validation": ["3.tif"], "test": ["4.tif", "5.tif"]}
    (folder / "splits.json").write_text(json.dumps(splits))
    return folder


def arguments(task, folder, output, **changes) -> FinetuneArguments:
    settings = dict(scratch="unet2-rf44", steps=4, batch_size=2, crop=32, precision="fp32")
    return FinetuneArguments(task, str(folder), str(output), **{**settings, **changes})


@pytest.mark.parametrize("task", DEGRADE)
def test_each_task_trains_on_pairs_made_from_clean_images_and_beats_the_answer_without_a_network(
    task, clean_folder, tmp_path
):
    output = tmp_path / "out"
    settings = dict(
        degrade=DEGRADE[task], steps=100, batch_size=4, learning_rate=5e-3, scratch="unet2-rf116-w8", crop=32
    )
    facts = finetune(arguments(task, clean_folder, output, **settings), show_progress=False)
    result = evaluate(output, clean_folder, "test", degrade=DEGRADE[task])
    assert result["l1"] < 0.9 * result["trivial"]["l1"] and result["n"] == 2
    assert result["psnr"] > result["trivial"]["psnr"]
    assert facts["best"]["l1"] == min(entry["l1"] for entry in json.loads((output / "curve.json").read_text()))
    assert type(load_model(output)) is TASKS[task]
    card = (output / "README.md").read_text()
    assert f"{facts['best']['l1']:.4f}" in card and DEGRADE[task] in card


@pytest.mark.parametrize("task", DEGRADE)
def test_one_pair_is_overfitted(task, tmp_path):
    degradation = Degradation(DEGRADE[task], 2 if task == "super-resolution" else 1)
    pair = CleanMicrographs([blocks(1, 32)], ["a"], [None], degradation).to_measure()
    fields = {"scale": 2} if task == "super-resolution" else {}
    torch.manual_seed(0)
    model = TASKS[task](EMFoundationConfig.from_name("unet2-rf84-w16", residual=True, **fields))
    args = EMTrainingArguments(
        output_dir=str(tmp_path), max_steps=150, crop=32, learning_rate=1e-2, precision="fp32", intensity_jitter=0.0,
        per_device_train_batch_size=4, disable_tqdm=True,
    )  # fmt: skip
    trainer = EMTrainer(model, args, pair, pair)
    trainer.train()
    first = trainer.curve[0]["l1"]  # the untrained residual: the input itself, or its bicubic enlargement
    assert min(entry["l1"] for entry in trainer.curve) < 0.5 * first


def test_a_residual_model_starts_from_its_input():
    image = torch.randn(1, 1, 40, 40)
    model = EMForDenoising(EMFoundationConfig.from_name("unet2-rf44", residual=True)).eval()
    torch.testing.assert_close(model(image).reconstruction, image, rtol=0, atol=0)


def test_the_whole_pretrained_generator_is_taken_over_with_its_image_head(tmp_path):
    torch.manual_seed(0)
    generator = EMFoundation(EMFoundationConfig.from_name("unet2-rf44")).eval()
    generator.save_pretrained(tmp_path / "pretrained")
    image = torch.randn(1, 1, 32, 32)
    for task in (EMForDenoising, EMForBackgroundRemoval):
        model = task.from_pretrained(tmp_path / "pretrained").eval()
        torch.testing.assert_close(model(image).reconstruction, generator(image).reconstruction, rtol=0, atol=0)


def test_the_loss_is_l1_plus_l2():
    model = EMForDenoising(EMFoundationConfig.from_name("unet2-rf44", residual=True)).eval()
    image, target = torch.randn(2, 1, 1, 24, 24)
    expected = (image - target).abs().mean() + (image - target).square().mean()
    assert model(image, labels=target).loss.item() == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("scale", [2, 4])
def test_super_resolution_divides_the_pixel_size_and_starts_from_the_bicubic_enlargement(scale):
    config = EMFoundationConfig.from_name("unet2-rf44", scale=scale, residual=True)
    model = EMForSuperResolution(config)
    image = waves(0, 20).astype(np.uint16) * 100
    result = predict(model, Micrograph(image, 0.8, "a.tif"))
    assert result.pixel_size == pytest.approx(0.8 / scale)
    assert result.output.shape == (20 * scale, 20 * scale) and result.output.dtype == np.uint16
    statistics = model.processor.statistics(image)
    enlarged = torch.nn.functional.interpolate(
        torch.from_numpy(model.processor.normalize(image, statistics))[None, None], scale_factor=scale, mode="bicubic"
    )
    expected = model.processor.denormalize(enlarged[0, 0].numpy(), statistics, np.uint16)
    np.testing.assert_array_equal(result.output, expected)


def test_tiles_of_super_resolution_join_to_the_result_of_the_whole():
    torch.manual_seed(0)
    config = EMFoundationConfig.from_name("unet2-rf44", scale=2, norm="batch")
    model = EMForSuperResolution(config).eval()
    image = np.random.default_rng(0).normal(size=(150, 210)).astype(np.float32)
    whole, tiled = (predict(model, image, tile).output for tile in (512, 128))
    assert whole.shape == (300, 420)
    np.testing.assert_allclose(tiled, whole, atol=1e-4 * np.abs(whole).max())


def test_the_output_has_the_dtype_and_units_of_the_input(clean_folder):
    model = EMForDenoising(EMFoundationConfig.from_name("unet2-rf44", residual=True))
    image = read_micrograph(clean_folder / "images" / "0.tif").image
    result = predict(model, image).output
    assert result.dtype == np.uint16
    np.testing.assert_allclose(result, image, atol=1)  # the untrained residual adds nothing


def test_structures_far_brighter_than_the_rest_come_back_uncut(tmp_path):
    """Heavy particles lie far beyond the 99th percentile; segmentation may cut them off, restoration must not."""
    image = np.random.default_rng(0).normal(1000, 50, (64, 64))
    image[30:33, 30:33] = 3000
    EMFoundation(EMFoundationConfig.from_name("unet2-rf44")).save_pretrained(tmp_path / "generator")
    for model in (
        EMForDenoising(EMFoundationConfig.from_name("unet2-rf44", residual=True)),
        EMForDenoising.from_pretrained(tmp_path / "generator", residual=True),
    ):
        result = predict(model, image.astype(np.uint16)).output
        np.testing.assert_allclose(result[30:33, 30:33], 3000, atol=1)
        model.save_pretrained(tmp_path / "saved")
        assert EMForDenoising.from_pretrained(tmp_path / "saved").processor.clip == 30


def test_what_predicts_the_difference_and_what_the_image_itself(clean_folder, tmp_path):
    expected = {
        ("super-resolution", "unet2-rf44"): True,
        ("denoising", "unet2-rf44"): True,
        ("background-removal", "unet2-rf44"): True,
        ("background-removal", "hrnet-w18-small"): True,
    }
    for (task, name), adds in expected.items():
        args = arguments(task, clean_folder, tmp_path / "out", degrade=DEGRADE[task], scratch=name)
        model = build_model(args, read_splits(args)[0])
        assert model.config.residual == adds
    torch.manual_seed(0)
    EMFoundation(EMFoundationConfig.from_name("unet2-rf44")).save_pretrained(tmp_path / "pretrained")
    start = dict(scratch=None, model=str(tmp_path / "pretrained"))
    args = arguments("denoising", clean_folder, tmp_path / "out", degrade="dose", **start)
    assert not build_model(args, read_splits(args)[0]).config.residual


def test_the_difference_says_how_much_of_the_input_stays():
    model = EMForDenoising(EMFoundationConfig.from_name("unet2-rf44", residual=True)).eval()
    with torch.no_grad():
        model.residual_head.out.bias.copy_(torch.tensor([0.25, -0.5]))
    image = torch.randn(1, 1, 24, 24)
    torch.testing.assert_close(model(image).reconstruction, 0.5 * image + 0.25)


def test_restoration_figures_are_in_units_of_the_targets_contrast():
    target = np.linspace(0, 1000, 64 * 64).reshape(64, 64)
    metrics = RestorationMetrics()
    metrics.add(target + 98, target)  # the percentiles lie 980 apart
    result = metrics.result()
    assert result["l1"] == pytest.approx(0.1) and result["psnr"] == pytest.approx(20)
    assert result["n"] == 1 and result["ssim"] < 1
    shifted = RestorationMetrics()
    shifted.add((target + 98) * 7 - 4, target * 7 - 4)
    for name in ("l1", "psnr", "ssim"):
        assert shifted.result()[name] == pytest.approx(result[name], rel=1e-4)


def test_sums_over_processes_are_means_over_all_images():
    images = [blocks(i).astype(float) for i in range(3)]
    together, parts = RestorationMetrics(), [RestorationMetrics(), RestorationMetrics()]
    for index, image in enumerate(images):
        noisy = image + 50 * (index + 1)
        together.add(noisy, image)
        parts[index % 2].add(noisy, image)
    added = RestorationMetrics()
    added.totals = {name: parts[0].totals[name] + parts[1].totals[name] for name in parts[0].totals}
    assert added.result() == pytest.approx(together.result())


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("denoising", {"degrade": "downsample"}, "takes --degrade dose or paper"),
        ("super-resolution", {"degrade": "dose"}, "takes --degrade downsample"),
        ("segmentation", {"degrade": "dose"}, "--degrade is for denoising, .*; segmentation has no use for it"),
        ("super-resolution", {"degrade": "downsample", "scale": 3}, "scale is 3; expected one of 2, 4"),
        ("super-resolution", {"degrade": "downsample", "scale": 4, "crop": 34}, "multiple of 4"),
        ("denoising", {}, "made from clean images with --degrade"),
        ("denoising", {"degrade": "blur"}, "dose or paper"),
        ("denoising", {"degrade": "dose", "merge": True}, "--lora RANK"),
        ("denoising", {"degrade": "dose", "freeze": "encoder"}, "need --model"),
        ("denoising", {"degrade": "dose", "streaming": True}, "is a folder of image files"),
    ],
)
def test_wrong_settings_say_what_was_expected(task, changes, message, clean_folder, tmp_path):
    with pytest.raises(EMError, match=message):
        finetune(arguments(task, clean_folder, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_a_plain_folder_of_clean_micrographs_will_do(tmp_path):
    folder = tmp_path / "plain"
    folder.mkdir()
    for index in range(5):
        Image.fromarray(waves(index, 64)).save(folder / f"{index}.png")
    facts = finetune(arguments("denoising", folder, tmp_path / "out", degrade="paper"), show_progress=False)
    assert facts["images"] == {"train": 4, "validation": 1}


def test_a_model_of_another_scale_is_not_evaluated(clean_folder, tmp_path):
    EMForDenoising(EMFoundationConfig.from_name("unet2-rf44")).save_pretrained(tmp_path / "model")
    for index in range(4, 6):
        write_image(clean_folder / "targets" / f"{index}.tif", blocks(index, 128))
    with pytest.raises(EMError, match="2 times as many pixels a side"):
        evaluate(tmp_path / "model", clean_folder, "test")


@pytest.mark.parametrize(
    ("generator", "residual"), [("unet2-rf44", False), ("unet2-rf44", True), ("hrnet-w18-small", True)]
)
def test_with_lora_the_whole_head_learns_and_is_saved_beside_the_additions(generator, residual, tmp_path):
    torch.manual_seed(0)
    pretrained = EMFoundation(EMFoundationConfig.from_name(generator, residual=residual))
    pretrained.save_pretrained(tmp_path / "pretrained")
    model = EMForDenoising.from_pretrained(tmp_path / "pretrained")
    adapter = add_lora(model, 2, str(tmp_path / "pretrained"))
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-3)
    images, targets = torch.randn(2, 2, 1, 32, 32)
    for _ in range(2):  # a head that starts from zeros gives what lies before it no gradient in the first step
        model(images, labels=targets).loss.backward()
        optimizer.step()
    write_model(model, adapter, tmp_path / "adapter")
    loaded = EMForDenoising.from_pretrained(tmp_path / "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(images).reconstruction, model.eval()(images).reconstruction, rtol=1e-4, atol=1e-4
        )
    before, after = pretrained.restoring_head.state_dict(), loaded.restoring_head.state_dict()
    assert before.keys() == after.keys() and not any(torch.equal(after[key], before[key]) for key in before)
