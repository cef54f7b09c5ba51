"""A new head is fitted to the trunk's features before training; a trained one is left alone."""

import pytest
import torch

from emfm import (
    EMForBackgroundRemoval,
    EMForDenoising,
    EMForSemanticSegmentation,
    EMForSuperResolution,
    EMFoundation,
    EMFoundationConfig,
    EMTrainer,
    EMTrainingArguments,
)
from emfm.data.datasets import load_em_dataset
from emfm.finetuning.head import fit_head
from emfm.tasks.losses import restoration_loss, segmentation_loss

LABELS = {0: "background", 1: "disc"}


def arguments(output, **changes) -> EMTrainingArguments:
    settings = dict(max_steps=1, per_device_train_batch_size=2, crop=32, precision="fp32", disable_tqdm=True)
    return EMTrainingArguments(output_dir=str(output), **{**settings, **changes})


def crops(seed: int = 0) -> list[dict[str, torch.Tensor]]:
    """Squares of 8 pixels, brighter where the class is 1, with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    squares = (torch.rand(3, 3, 3, generator=generator) > 0.6).long()
    labels = squares.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)
    noise = 0.1 * torch.randn(3, 1, 24, 24, generator=generator)
    return [{"pixel_values": y + n, "labels": y} for y, n in zip(labels, noise, strict=True)]


def loss_on(model, items) -> float:
    with torch.no_grad():
        logits = model(torch.stack([item["pixel_values"] for item in items])).logits
    return float(segmentation_loss(logits, torch.stack([item["labels"] for item in items])))


@pytest.mark.parametrize("name", ["unet2-rf44-w16", "unet3-rf96-w16"])
def test_the_fitted_head_separates_what_the_features_separate(name):
    torch.manual_seed(0)
    model = EMForSemanticSegmentation(EMFoundationConfig.from_name(name, id2label=LABELS))
    trunk = {key: value.clone() for key, value in model.trunk.state_dict().items()}
    before = loss_on(model, crops())
    fit_head(model, crops())
    assert loss_on(model, crops()) < 0.5 * before
    assert loss_on(model, crops(seed=1)) < 0.5 * before
    assert model.training and all(torch.equal(value, trunk[key]) for key, value in model.trunk.state_dict().items())


def test_the_fit_is_a_minimum_of_the_training_loss():
    torch.manual_seed(0)
    model = EMForSemanticSegmentation(EMFoundationConfig.from_name("unet2-rf44", id2label=LABELS)).eval()
    fit_head(model, crops())
    best = loss_on(model, crops())
    for index in range(model.class_head.weight.shape[1]):
        for change in (-0.5, 0.5):
            with torch.no_grad():
                model.class_head.weight[1, index] += change
                assert loss_on(model, crops()) > best - 5e-3  # the decay of the weights leaves a little
                model.class_head.weight[1, index] -= change


def test_pixels_without_truth_take_no_part():
    items = crops()
    for item in items:
        item["labels"][:, :12] = -100
    torch.manual_seed(0)
    model = EMForSemanticSegmentation(EMFoundationConfig.from_name("unet2-rf44", id2label=LABELS))
    unfitted = loss_on(model, items)
    fit_head(model, crops())
    fitted_to_all = loss_on(model, items)
    fit_head(model, items)
    assert loss_on(model, items) < fitted_to_all < unfitted  # better on what is left than with what is hidden


def test_training_fits_a_new_head_first_and_never_one_that_was_trained(labelled_folder, tmp_path, monkeypatch):
    fitted = []
    monkeypatch.setattr("emfm.finetuning.trainer.fit_head", lambda model, crops: fitted.append(len(list(crops))))
    data = load_em_dataset(labelled_folder)
    torch.manual_seed(0)
    EMFoundation(EMFoundationConfig.from_name("unet2-rf44")).save_pretrained(tmp_path / "pretrained")
    model = EMForSemanticSegmentation.from_pretrained(tmp_path / "pretrained", id2label=LABELS)
    assert model.new_head
    EMTrainer(model, arguments(tmp_path / "out"), data, data).train()
    assert fitted == [2] and not model.new_head  # as many crops as the run has: 1 step of 2
    EMTrainer(model, arguments(tmp_path / "again"), data, data).train()
    loaded = EMForSemanticSegmentation.from_pretrained(tmp_path / "out")
    assert not loaded.new_head
    EMTrainer(loaded, arguments(tmp_path / "loaded"), data, data).train()
    assert fitted == [2]


def test_a_fitted_head_is_better_before_the_first_step_and_can_be_left_out(labelled_folder, tmp_path):
    data = load_em_dataset(labelled_folder)
    before = {}
    for fit in (True, False):
        torch.manual_seed(3)
        model = EMForSemanticSegmentation(EMFoundationConfig.from_name("unet2-rf44", id2label=LABELS))
        trainer = EMTrainer(model, arguments(tmp_path / str(fit), fit_head=fit, max_steps=8), data, data)
        trainer.train()
        before[fit] = trainer.curve[0]["dice"]
    assert before[True] > before[False] + 0.1


def pairs(seed: int = 0) -> list[dict[str, torch.Tensor]]:
    """Smooth images under noise, and without."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(4, 1, 4, 4, generator=generator)
    clean = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bicubic")
    noise = torch.randn(clean.shape, generator=generator)
    return [{"pixel_values": image, "labels": target} for image, target in zip(clean + noise, clean, strict=True)]


@pytest.mark.parametrize(
    ("name", "residual"), [("unet2-rf44-w16", True), ("unet2-rf44-w16", False), ("hrnet-w18-small", True)]
)
def test_the_fitted_head_of_a_restoration_removes_noise_before_the_first_step(name, residual):
    torch.manual_seed(0)
    model = EMForDenoising(EMFoundationConfig.from_name(name, residual=residual))
    trunk = {key: value.clone() for key, value in model.trunk.state_dict().items()}
    fit_head(model, pairs())
    model.eval()
    images, targets = (torch.stack([pair[key] for pair in pairs(seed=1)]) for key in ("pixel_values", "labels"))
    with torch.no_grad():
        restored = model(images).reconstruction
    assert (restored - targets).abs().mean() < 0.75 * (images - targets).abs().mean()
    assert all(torch.equal(value, trunk[key]) for key, value in model.trunk.state_dict().items())


def test_the_head_for_an_enlarged_image_is_fitted_at_its_size():
    torch.manual_seed(0)
    model = EMForSuperResolution(EMFoundationConfig.from_name("unet2-rf44-w16", residual=True, scale=2))
    small = [{**pair, "pixel_values": pair["labels"][:, ::2, ::2]} for pair in pairs()]
    images, targets = (torch.stack([pair[key] for pair in small]) for key in ("pixel_values", "labels"))
    with torch.no_grad():
        before = restoration_loss(model(images).reconstruction, targets)
        fit_head(model, small)
        model.eval()
        assert restoration_loss(model(images).reconstruction, targets) < 0.8 * before


@pytest.mark.parametrize("residual", [True, False])
def test_the_head_of_pretraining_is_new_to_a_task_and_that_of_the_task_is_not(residual, tmp_path):
    torch.manual_seed(0)
    EMFoundation(EMFoundationConfig.from_name("unet2-rf44")).save_pretrained(tmp_path / "pretrained")
    model = EMForDenoising.from_pretrained(tmp_path / "pretrained", residual=residual)
    assert model.new_head
    model.save_pretrained(tmp_path / "denoising")
    assert not EMForDenoising.from_pretrained(tmp_path / "denoising").new_head
    assert EMForBackgroundRemoval.from_pretrained(tmp_path / "denoising").new_head


def test_with_lora_the_same_head_is_fitted(labelled_folder, tmp_path):
    data = load_em_dataset(labelled_folder)
    torch.manual_seed(0)
    EMFoundation(EMFoundationConfig.from_name("unet2-rf44")).save_pretrained(tmp_path / "pretrained")
    first = {}
    for rank in (0, 2):
        model = EMForSemanticSegmentation.from_pretrained(tmp_path / "pretrained", id2label=LABELS)
        trainer = EMTrainer(model, arguments(tmp_path / str(rank), lora=rank), data, data)
        trainer.train()
        first[rank] = trainer.curve[0]["dice"]
    assert first[0] == first[2] > 0


def mostly_right() -> list[dict[str, torch.Tensor]]:
    """Images of which most pixels are right already, and the others change little."""
    items = pairs()
    for item in items:
        image = item["pixel_values"]
        change = torch.nn.functional.avg_pool2d(image[None], 3, 1, 1)[0] - image
        item["labels"] = image + 0.01 * change * (change.abs() > 1)
    return items


@pytest.mark.parametrize("name", ["unet2-rf44-w16", "hrnet-w18-small"])
def test_a_head_is_fitted_although_most_pixels_are_right_already(name):
    items = mostly_right()
    torch.manual_seed(0)
    model = EMForDenoising(EMFoundationConfig.from_name(name, residual=True))
    fit_head(model, items)
    model.eval()
    images, targets = (torch.stack([item[key] for item in items]) for key in ("pixel_values", "labels"))
    assert (images == targets).float().mean() > 0.7
    with torch.no_grad():
        fitted = restoration_loss(model(images).reconstruction, targets)
    assert fitted < 0.97 * restoration_loss(images, targets)


def test_a_feature_that_does_not_vary_gets_no_weight(monkeypatch):
    torch.manual_seed(0)
    model = EMForDenoising(EMFoundationConfig.from_name("unet2-rf44-w16", residual=True))
    live = model.last_features
    monkeypatch.setattr(model, "last_features", lambda image: live(image) * (torch.arange(16) > 0)[:, None, None])
    fit_head(model, mostly_right())
    weights = model.last_layer.weight[:, :, 0, 0].abs()
    assert weights[:, 0].max() == 0 < weights[:, 1:].min()
