"""Pretraining at toy size: what it writes, what it learns, what it shows and when it stops."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from emfm import (
    EMError,
    EMForDenoising,
    EMForSemanticSegmentation,
    EMFoundation,
    EMFoundationConfig,
    EMImageProcessor,
)
from emfm.data.hub_images import decode
from emfm.hub.verify import verify
from emfm.pretraining.batches import open_data
from emfm.pretraining.pix2pix import PatchDiscriminator, Pix2Pix
from emfm.pretraining.pretext import Crops, Pretext
from emfm.pretraining.pretrain import PretrainArguments, pretrain
from emfm.pretraining.run_log import PATIENCE, RunLog, Watch
from emfm.pretraining.streamed_crops import read_samples

LOSSES = {"discriminator", "adversarial", "l1", "score_real", "score_fake", "score_spread"}


def read_log(run) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("adversarial", ["lsgan", "vanilla", "hinge", "none"])
def test_a_run_ends_in_a_folder_that_loads_and_verifies(adversarial, pretraining, tmp_path):
    folder = pretrain(pretraining(tmp_path / "run", adversarial=adversarial, corruption="masked"))
    model = EMFoundation.from_pretrained(folder)
    assert verify(model, folder) < 1e-4
    recipe = model.config.pretraining
    assert recipe["adversarial"] == adversarial and recipe["steps"] == 6 and recipe["micrographs"] == 3
    assert recipe["strength"]["masked_share"] == [0.2, 0.5] and recipe["validation"]["step"] == 6
    card = (folder / "README.md").read_text()
    assert all(f"{recipe['validation'][name]:.4f}" in card for name in ("l1", "ssim", "l1_input"))
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "README.md",
        "test_tensors.safetensors",
        "domain.json",
        "checksums.json",
    }


@pytest.mark.parametrize("generator", ["unet2-rf44", "hrnet-w18-small"])
def test_every_checkpoint_is_a_model_folder_as_it_stands(generator, pretraining, tmp_path):
    norm = {"norm": "batch"} if generator.startswith("unet") else {}
    pretrain(pretraining(tmp_path / "run", generator=generator, steps=2, save_steps=1, corruption="dose", **norm))
    folder = tmp_path / "run" / "step_1" / "pretrained_model"
    model = EMFoundation.from_pretrained(folder)
    assert verify(model, folder) < 1e-4
    assert model.config.pretraining["step"] == 1
    assert "1 steps" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("generator", "residual", "expected"),
    [("unet2-rf44", None, False), ("unet2-rf44", True, True), ("hrnet-w18-small", None, True)],
)
def test_a_trunk_that_sees_no_single_pixels_learns_to_change_its_input(
    generator, residual, expected, pretraining, tmp_path
):
    norm = {"norm": "batch"} if generator.startswith("unet") else {}
    settings = dict(generator=generator, residual=residual, steps=2, ema_decay=0.0, **norm)
    folder = pretrain(pretraining(tmp_path / "run", **settings))
    model = EMFoundation.from_pretrained(folder)
    assert model.config.residual == expected and model.head_name == ("residual_head" if expected else "image_head")
    if expected:
        assert model.residual_head.out.weight.abs().max() > 0  # was 0 before the first step
        assert (model.residual_head.details is not None) == generator.startswith("hrnet")
    image = torch.randn(1, 1, 32, 32)
    denoiser = EMForDenoising.from_pretrained(folder)
    with torch.no_grad():
        torch.testing.assert_close(denoiser.eval()(image).reconstruction, model.eval()(image).reconstruction)
    assert EMForSemanticSegmentation.from_pretrained(folder, id2label={0: "a", 1: "b"}).new_head


def test_the_oldest_checkpoints_make_room(pretraining, tmp_path):
    pretrain(pretraining(tmp_path / "run", steps=5, save_steps=1, save_total_limit=2))
    assert sorted(path.name for path in (tmp_path / "run").glob("step_*")) == ["step_4", "step_5"]


def test_training_moves_the_generator_towards_the_clean_image(pretraining, tmp_path):
    pretrain(pretraining(tmp_path / "run", steps=400, batch_size=4, adversarial="none", save_steps=1000))
    losses = [entry["l1"] for entry in read_log(tmp_path / "run") if entry["group"] == "train"]
    assert losses[-1] < 0.5 * losses[0]
    first, last = (entry for entry in read_log(tmp_path / "run") if entry["group"] == "validation")
    assert last["l1"] < 0.5 * first["l1"] and last["ssim"] > first["ssim"] + 0.1


def test_no_pickle_is_written_anywhere(whole_pretraining):
    names = [path.name for path in whole_pretraining.rglob("*") if path.is_file()]
    kinds = {name.split(".")[1] if "tfevents" in name else name.split(".")[-1] for name in names}
    assert kinds == {"json", "jsonl", "safetensors", "md", "png", "out"}
    assert sum("tfevents" in name for name in names) == 1


def test_losses_and_figures_go_to_the_log_and_to_tensorboard_alike(whole_pretraining):
    log = read_log(whole_pretraining)
    assert [(entry["step"], entry["group"]) for entry in log] == [
        (0, "validation"),
        (3, "train"),
        (3, "validation"),
        (6, "train"),
        (6, "validation"),
    ]
    assert log[1].keys() - {"step", "group"} == LOSSES
    assert log[2].keys() - {"step", "group"} == {f"{n}{s}" for n in ("l1", "psnr", "ssim") for s in ("", "_input")}
    board = EventAccumulator(str(whole_pretraining / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("validation/ssim")] == [0, 3, 6]
    assert board.Scalars("train/l1")[-1].value == pytest.approx(log[3]["l1"], rel=1e-5)
    assert [event.step for event in board.Images("input, output, target")] == [0, 3, 6]


def test_a_picture_shows_input_output_and_target_beside_each_other(tmp_path):
    log = RunLog(tmp_path, steps=1, done=0, enabled=True)
    images = [torch.full((6, 1, 8, 8), value) for value in (-1.0, 0.0, 5.0)]
    log.picture(7, *images)
    log.close()
    picture = np.asarray(Image.open(tmp_path / "pictures" / "step_7.png"))
    assert picture.shape == (4 * 8, 3 * 8)
    assert picture[:, :8].max() == 0 and set(picture[:, 8:16].flat) == {128} and picture[:, 16:].min() == 255


@pytest.mark.parametrize("adversarial", ["lsgan", "none"])
def test_a_batch_in_parts_makes_the_same_step_as_in_one_piece(adversarial):
    """Instance norm leaves the images of a batch independent, so nothing but the order of sums differs."""
    torch.manual_seed(0)
    damaged, clean = torch.randn(2, 4, 1, 32, 32)
    results = []
    for parts in (1, 2, 4):
        networks = toy_networks()
        # plain gradient descent: Adam would turn the rounding of gradients that are zero into whole
        # steps
        optimizers = {name: torch.optim.SGD(network.parameters(), 0.1) for name, network in networks.items()}
        gan = Pix2Pix(Accelerator(cpu=True), *networks.values(), optimizers, adversarial, 100.0)
        losses = gan.step(list(map(Crops, damaged.chunk(parts), clean.chunk(parts))))
        results.append((losses, {key: value for net in networks.values() for key, value in net.named_parameters()}))
    for losses, parameters in results[1:]:
        torch.testing.assert_close(losses, results[0][0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(parameters, results[0][1], rtol=1e-4, atol=1e-5)


def test_the_discriminator_takes_its_step_before_it_judges_for_the_generator():
    networks = toy_networks()
    optimizers = {name: torch.optim.SGD(network.parameters(), 0.1) for name, network in networks.items()}
    pair = Crops(*torch.randn(2, 2, 1, 32, 32))
    restored = networks["generator"](pair.damaged).reconstruction.detach()
    losses = Pix2Pix(Accelerator(cpu=True), *networks.values(), optimizers, "lsgan", 100.0).step([pair])
    scores = networks["discriminator"](pair.damaged, restored)
    assert float(losses["adversarial"]) == pytest.approx(float((scores - 1).square().mean()), rel=1e-5)
    assert all(parameter.requires_grad for parameter in networks["discriminator"].parameters())


def toy_networks() -> dict[str, torch.nn.Module]:
    torch.manual_seed(1)
    generator = Pretext(EMFoundation(EMFoundationConfig.from_name("unet2-rf44")))
    return {"generator": generator, "discriminator": PatchDiscriminator(4)}


def test_data_workers_change_nothing(pretraining, whole_pretraining, tmp_path):
    alone = whole_pretraining / "pretrained_model"
    helped = pretrain(pretraining(tmp_path / "helped", workers=2))
    one, two = (load_file(folder / "model.safetensors") for folder in (alone, helped))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_folder_in_use_is_not_overwritten(pretraining, whole_pretraining):
    with pytest.raises(EMError, match="--resume"):
        pretrain(pretraining(whole_pretraining))


def test_an_unknown_generator_or_missing_data_leaves_no_folder_behind(pretraining, tmp_path):
    for changes in ({"generator": "unet9"}, {"data": (str(tmp_path / "nowhere"),)}):
        with pytest.raises(EMError):
            pretrain(pretraining(tmp_path / "run", **changes))
        assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_stops_the_run_before_anything_is_saved(pretraining, tmp_path):
    with pytest.raises(EMError, match=r"no longer finite at step 3: lower the learning rate"):
        pretrain(pretraining(tmp_path / "run", learning_rate=1e30))
    assert list((tmp_path / "run").glob("step_*")) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [({"score_spread": 1e-9}, "gives every image the same score"), ({"discriminator": 1e-9}, "without any error")],
)
def test_a_collapsed_discriminator_stops_the_run_with_advice_after_some_patience(change, message):
    healthy = dict.fromkeys(LOSSES, 0.3)
    watch = Watch()
    for step in range(PATIENCE - 1):
        watch.check(step, healthy | change)
    watch.check(PATIENCE, healthy)  # once is enough to begin anew
    for step in range(PATIENCE - 1):
        watch.check(step, healthy | change)
    with pytest.raises(EMError, match=f"collapsed at step 99.*{message}.*--adversarial none"):
        watch.check(99, healthy | change)


def test_a_discriminator_that_gives_no_gradient_stops_a_real_run(pretraining, tmp_path, monkeypatch):
    def constant(self, condition, image):
        return 0 * sum(weight.sum() for weight in self.parameters()) + 0 * image[:, :, :4, :4] + 0.5

    monkeypatch.setattr("emfm.pretraining.pretrain.LOG_STEPS", 1)
    monkeypatch.setattr(PatchDiscriminator, "forward", constant)
    with pytest.raises(EMError, match=f"collapsed at step {PATIENCE}"):
        pretrain(pretraining(tmp_path / "run", steps=100, save_steps=100))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adversarial": "wgan"}, "lsgan"),
        ({"precision": "fp16"}, "fp32, bf16"),
        ({"corruption": "rain"}, "paper, dose, masked"),
        ({"steps": 0}, "steps is 0"),
        ({"crop": 8}, "crop is 8"),
        ({"workers": -1}, "workers is -1"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps is 0"),
        ({"num_images": 0}, "num_images is 0"),
        ({"weights": (1.0, 2.0)}, "2 weights"),
        ({"weights": (0.0,)}, "above 0"),
        ({"data": ()}, "no data"),
        ({"streaming": True}, "is no dataset: streaming takes"),
    ],
)
def test_wrong_settings_say_what_was_expected(changes, message, pretraining, tmp_path):
    with pytest.raises(EMError, match=message):
        pretraining(tmp_path / "run", **changes)


def test_a_run_on_some_of_the_micrographs_trains_on_the_same_ones_and_one_more(pretraining, tmp_path):
    def chosen(count):
        args = pretraining(tmp_path / "run", num_images=count)
        data = open_data(args, EMImageProcessor())
        assert data.count == count
        return set(data.calibration.order(0).tolist())

    assert chosen(1) < chosen(2) < chosen(3) == {0, 1, 2}
    with pytest.raises(EMError, match="num_images is 4; 3 micrographs"):
        chosen(4)


def test_a_recipe_holds_what_decides_the_result_and_no_path_of_this_machine(pretraining, tmp_path):
    recipe = pretraining(tmp_path / "run").recipe()
    assert str(tmp_path) not in json.dumps(recipe)
    assert recipe["data"] == ["unlabelled"]
    assert PretrainArguments(data=("owner/set",), output="x", streaming=True).recipe()["data"] == ["owner/set"]


def anonymous_megabytes() -> float:
    """Return this process's own memory; pages of mapped files are the system's to give back."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous")) / 1024


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux to tell")
@pytest.mark.parametrize("streaming", [False, True])
def test_memory_stays_flat_over_two_thousand_steps(streaming, pretraining, parquet_folder, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr("emfm.pretraining.pretrain._Run.report", lambda run, losses: seen.append(anonymous_megabytes()))
    changes = {"data": (str(parquet_folder(60)),), "streaming": True} if streaming else {"corruption": "dose+masked"}
    pretrain(pretraining(tmp_path / "run", **changes, steps=2000, save_steps=500))
    assert len(seen) == 40
    # 500 steps and the first checkpoint, which loads what loading and cards need
    warm = max(seen[:11])
    assert max(seen[11:]) < warm + 10, seen


def test_streams_are_mixed_by_their_weights(parquet_folder, pretraining, tmp_path):
    sizes = {20: 48, 200: 32}  # the larger set has the smaller micrographs
    folders = tuple(str(parquet_folder(count, side=side)) for count, side in sizes.items())
    args = pretraining(tmp_path / "run", data=folders, weights=(1.0, 3.0), streaming=True)
    data = open_data(args, EMImageProcessor())
    widths = [decode(sample, "sample").image.shape[1] for sample in islice(read_samples(data.stream.rows), 80)]
    assert widths.count(32) / len(widths) == pytest.approx(0.75, abs=0.15)


@pytest.mark.slow
def test_a_compiled_run_gives_the_figures_of_one_that_is_not(pretraining, tmp_path):
    figures = []
    for compiled in (False, True):
        folder = pretrain(pretraining(tmp_path / f"run_{compiled}", steps=4, compile=compiled))
        model = EMFoundation.from_pretrained(folder)
        assert verify(model, folder) < 1e-4
        figures.append(model.config.pretraining["validation"]["l1"])
    assert figures[1] == pytest.approx(figures[0], rel=0.02)
