"""EMTrainer: what learns and what stays, LoRA, going on after an interruption, streams."""

import json

import numpy as np
import pytest
import torch
from conftest import disc_image
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import TrainerCallback

from emfm import (
    EMError,
    EMForDenoising,
    EMForSemanticSegmentation,
    EMFoundation,
    EMFoundationConfig,
    EMTrainer,
    EMTrainingArguments,
    load_em_dataset,
    predict,
)
from emfm.data.examples import CleanMicrographs, PairedMicrographs
from emfm.data.restoration_pairs import Degradation
from emfm.finetuning.course import Course
from emfm.finetuning.finetune import FinetuneArguments, finetune
from emfm.finetuning.freezing import freeze
from emfm.hub.verify import verify

LABELS = {0: "background", 1: "disc"}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A small U-Net and a small HRNet as if they were pretrained."""
    folder = tmp_path_factory.mktemp("pretrained")
    torch.manual_seed(1)
    for name in ("unet2-rf44", "hrnet-w18-small"):
        EMFoundation(EMFoundationConfig.from_name(name)).save_pretrained(folder / name)
    return folder


def arguments(output, **changes) -> EMTrainingArguments:
    settings = dict(max_steps=4, per_device_train_batch_size=2, crop=32, precision="fp32", disable_tqdm=True)
    return EMTrainingArguments(output_dir=str(output), **{**settings, **changes})


def finetune_arguments(folder, output, **changes) -> FinetuneArguments:
    settings = dict(steps=10, batch_size=2, crop=32, precision="fp32")
    return FinetuneArguments("segmentation", str(folder), str(output), **{**settings, **changes})


@pytest.mark.parametrize("name", ["unet2-rf44", "hrnet-w18-small"])
@pytest.mark.parametrize("what", ["encoder", "all-but-head", "last:2"])
def test_a_frozen_part_is_unchanged_to_the_bit_and_the_rest_learns(name, what, pretrained, labelled_folder, tmp_path):
    data = load_em_dataset(labelled_folder)
    model = EMForSemanticSegmentation.from_pretrained(pretrained / name, id2label=LABELS)
    output = tmp_path / "out"
    before = {key: value.clone() for key, value in model.state_dict().items()}
    encoder, decoder = model.trunk.blocks()
    blocks = [*encoder, *decoder]
    frozen = {"encoder": encoder, "all-but-head": blocks, "last:2": blocks[:-2]}[what]
    identities = {id(tensor) for part in frozen for tensor in (*part.parameters(), *part.buffers())}
    kept = {key for key, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in identities}
    trainer = EMTrainer(model, arguments(output, freeze=what), data, data)
    trainer.train()
    # as the last step left it, not as the best evaluation chose
    after = load_file(output / "checkpoint-4" / "training_state" / "model.safetensors")
    assert kept and {key for key in before if torch.equal(before[key], after[key])} >= kept
    learning = [key for key in before if key not in kept and key.endswith("weight")]
    assert learning and all(not torch.equal(before[key], after[key]) for key in learning)


def test_freezing_nothing_and_wrong_parts():
    model = EMForSemanticSegmentation(EMFoundationConfig.from_name("unet2-rf44", id2label=LABELS))
    assert freeze(model, "none") == [] and all(parameter.requires_grad for parameter in model.parameters())
    for what in ("decoder", "last:0", "last:6", "last:x"):
        with pytest.raises(EMError, match=f"'{what}'.*(expected none|K is 1 to 5)"):
            freeze(model, what)


@pytest.mark.parametrize("name", ["unet2-rf44", "hrnet-w18-small"])
def test_lora_saves_loads_and_merges_to_equal_outputs(name, pretrained, labelled_folder, tmp_path):
    data, base = load_em_dataset(labelled_folder), pretrained / name
    model = EMForSemanticSegmentation.from_pretrained(base, id2label=data.id2label)
    trainer = EMTrainer(model, arguments(tmp_path, lora=2, learning_rate=1e-2), data, data)
    trainer.train()
    trainer.save_model(str(tmp_path / "adapter"))
    with safe_open(tmp_path / "adapter" / "adapter_model.safetensors", "pt") as file:
        kinds = {key.split(".")[-2] for key in file.keys()}  # noqa: SIM118
        learned = sum(file.get_tensor(key).numel() for key in file.keys())  # noqa: SIM118
    assert kinds == {"lora_A", "lora_B", "class_head"} and learned < 0.5 * model.num_parameters()
    image = data.images[0]
    with_additions = trainer.model.eval().maps(torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)))
    trainer.merge_adapter()
    trainer.save_model(str(tmp_path / "merged"))
    for folder in ("adapter", "merged"):
        loaded = EMForSemanticSegmentation.from_pretrained(tmp_path / folder).eval()
        outputs = loaded.maps(torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)))
        torch.testing.assert_close(outputs, with_additions, rtol=1e-4, atol=1e-5)
        assert not any("lora" in key for key in loaded.state_dict())
        assert predict(tmp_path / folder, image).id2label == data.id2label
    assert not (tmp_path / "merged" / "adapter_model.safetensors").exists()


@pytest.mark.parametrize("merge", [False, True])
def test_a_run_with_lora_leaves_a_folder_that_verifies(merge, pretrained, labelled_folder, tmp_path):
    output = tmp_path / "out"
    facts = finetune(
        finetune_arguments(labelled_folder, output, model=str(pretrained / "unet2-rf44"), lora=2, merge=merge), False
    )
    assert (output / "adapter_model.safetensors").exists() != merge
    assert (output / "model.safetensors").exists() == merge
    assert facts["lora"] == 2 and "LoRA of rank 2" in (output / "README.md").read_text()
    assert verify(EMForSemanticSegmentation.from_pretrained(output), output) < 1e-4


def test_lora_needs_pretrained_weights(labelled_folder, tmp_path):
    data = load_em_dataset(labelled_folder)
    model = EMForSemanticSegmentation(EMFoundationConfig.from_name("unet2-rf44", id2label=LABELS))
    with pytest.raises(EMError, match="random ones"):
        EMTrainer(model, arguments(tmp_path, lora=2), data, data)


init = EMTrainer.__init__


class Cut(TrainerCallback):
    """Ends the process after a step, as a power cut would."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise InterruptedError


@pytest.mark.parametrize("start", [{"scratch": "unet2-rf44"}, {"scratch": "unet2-rf44", "norm": "batch"}, {"lora": 2}])
def test_an_interrupted_run_ends_with_the_same_weights(start, pretrained, labelled_folder, tmp_path, monkeypatch):
    start = start if "scratch" in start else {**start, "model": str(pretrained / "unet2-rf44")}
    settings = dict(early_stopping=50, **start)
    finetune(finetune_arguments(labelled_folder, tmp_path / "whole", **settings), False)
    monkeypatch.setattr(
        EMTrainer, "__init__", lambda self, *args, **kwargs: init(self, *args, **{**kwargs, "callbacks": [Cut(7)]})
    )
    with pytest.raises(InterruptedError):
        finetune(finetune_arguments(labelled_folder, tmp_path / "cut", **settings), False)
    monkeypatch.setattr(EMTrainer, "__init__", init)
    (tmp_path / "cut" / "checkpoint-9").mkdir()  # a torn one
    finetune(finetune_arguments(labelled_folder, tmp_path / "cut", resume=True, **settings), False)
    files = [next((tmp_path / name).glob("*model.safetensors")) for name in ("whole", "cut")]
    first, second = (load_file(file) for file in files)
    assert [key for key in first if not torch.equal(first[key], second[key])] == []
    curves = [json.loads((tmp_path / name / "curve.json").read_text()) for name in ("whole", "cut")]
    for one, other in zip(*curves, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert not list((tmp_path / "cut").glob("checkpoint-*"))


def test_an_interrupted_run_on_a_stream_ends_with_the_same_weights(labelled_parquet, tmp_path, monkeypatch):
    settings = dict(scratch="unet2-rf44", streaming=True)
    finetune(finetune_arguments(labelled_parquet, tmp_path / "whole", **settings), False)
    monkeypatch.setattr(
        EMTrainer, "__init__", lambda self, *args, **kwargs: init(self, *args, **{**kwargs, "callbacks": [Cut(7)]})
    )
    with pytest.raises(InterruptedError):
        finetune(finetune_arguments(labelled_parquet, tmp_path / "cut", **settings), False)
    monkeypatch.setattr(EMTrainer, "__init__", init)
    finetune(finetune_arguments(labelled_parquet, tmp_path / "cut", resume=True, **settings), False)
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


def test_a_checkpoint_holds_no_pickle_and_other_settings_are_refused(labelled_folder, tmp_path):
    data = load_em_dataset(labelled_folder)
    model = EMForSemanticSegmentation(EMFoundationConfig.from_name("unet2-rf44", id2label=data.id2label))
    output = tmp_path / "out"
    EMTrainer(model, arguments(output), data, data).train()
    suffixes = {path.suffix for path in output.rglob("*") if path.is_file()}
    assert suffixes == {".json", ".safetensors"}
    with pytest.raises(EMError, match="seed was 42, now 7"):
        EMTrainer(model, arguments(output, seed=7), data, data).train(resume_from_checkpoint=True)
    with pytest.raises(EMError, match="no whole checkpoint"):
        EMTrainer(model, arguments(tmp_path / "empty"), data, data).train(resume_from_checkpoint=True)


def test_a_damaged_checkpoint_is_refused_and_one_without_checksums_still_goes_on(labelled_folder, tmp_path):
    data = load_em_dataset(labelled_folder)
    output = tmp_path / "out"

    def trainer() -> EMTrainer:
        model = EMForSemanticSegmentation(EMFoundationConfig.from_name("unet2-rf44", id2label=data.id2label))
        return EMTrainer(model, arguments(output), data, data)

    first = trainer()
    first.train()
    state = next(output.glob("checkpoint-*")) / "training_state"
    sound = (state / "optimizer.safetensors").read_bytes()
    (state / "optimizer.safetensors").write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    with pytest.raises(EMError, match=r"no checkpoint of .* is whole: .*optimizer\.safetensors is damaged"):
        trainer().train(resume_from_checkpoint=True)
    (state / "optimizer.safetensors").write_bytes(sound)
    run = json.loads((state / "run.json").read_text())
    assert set(run.pop("sha256")) == {f"training_state/{name}.safetensors" for name in ("model", "best", "optimizer")}
    (state / "run.json").write_text(json.dumps(run))  # as earlier versions wrote it
    resumed = trainer()
    resumed.train(resume_from_checkpoint=str(state.parent))
    assert resumed.curve == first.curve and resumed.course.seconds > run["seconds"]


def test_patience_is_kept_when_a_run_goes_on():
    model = torch.nn.Linear(1, 1)
    course = Course("dice", greater_is_better=True)
    waited = []
    for step, dice in enumerate((0.9, 0.5, 0.6, 0.6, 0.4)):  # the one before training does not count
        course.add(step, None, {"dice": dice}, model)
        waited.append(course.without_better())
    assert waited == [0, 0, 0, 1, 2]
    resumed = Course("dice", greater_is_better=True)
    resumed.go_on(course.curve, course.best_weights, seconds=100)
    assert resumed.without_better() == 2 and resumed.seconds > 100 and resumed.best(resumed.curve)["dice"] == 0.9


def test_early_stopping_ends_a_run_that_gets_no_better(labelled_folder, tmp_path):
    settings = dict(scratch="unet2-rf44", steps=40, learning_rate=1e-9, early_stopping=2)
    finetune(finetune_arguments(labelled_folder, tmp_path / "out", **settings), False)
    curve = json.loads((tmp_path / "out" / "curve.json").read_text())
    assert 3 <= len(curve) < 6 and curve[-1]["step"] < 40


def test_a_training_that_runs_away_stops_with_advice(labelled_folder, tmp_path):
    with pytest.raises(EMError, match=r"no longer finite at step \d+: lower the learning rate"):
        finetune(finetune_arguments(labelled_folder, tmp_path / "out", scratch="unet2-rf44", learning_rate=1e38), False)


def test_the_trunk_learns_at_its_own_rate(labelled_folder, tmp_path):
    data = load_em_dataset(labelled_folder)
    model = EMForSemanticSegmentation(EMFoundationConfig.from_name("unet2-rf44", id2label=data.id2label))
    trainer = EMTrainer(model, arguments(tmp_path, backbone_lr_scale=0.1, learning_rate=1e-3), data, data)
    rates = {}
    for group in trainer.create_optimizer().param_groups:
        for parameter in group["params"]:
            rates[id(parameter)] = (group["lr"], group["weight_decay"])
    found = {name: rates[id(parameter)] for name, parameter in model.named_parameters()}
    assert found["class_head.weight"] == (1e-3, 1e-4) and found["class_head.bias"] == (1e-3, 0)
    assert found["trunk.bottleneck.conv1.weight"] == (pytest.approx(1e-4), 1e-4)
    assert found["trunk.bottleneck.norm1.weight"] == (pytest.approx(1e-4), 0)
    assert len(rates) == len(list(model.parameters()))


def test_accumulated_batches_make_the_step_of_the_larger_batch(labelled_folder, tmp_path):
    data = load_em_dataset(labelled_folder)
    clean = CleanMicrographs(data.images, data.names, data.pixel_sizes, Degradation("paper"))
    weights = []
    for batch, parts in ((4, 1), (2, 2)):
        torch.manual_seed(0)
        model = EMForDenoising(EMFoundationConfig.from_name("unet2-rf44"))
        output = tmp_path / str(parts)
        settings = dict(max_steps=2, per_device_train_batch_size=batch, gradient_accumulation_steps=parts, seed=3)
        EMTrainer(model, arguments(output, optim="sgd", **settings), clean, clean).train()
        weights.append(load_file(output / "checkpoint-2" / "training_state" / "model.safetensors"))
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-6)


def test_targets_in_other_units_train_and_come_back_in_the_units_of_the_image(tmp_path):
    images = [disc_image(64, seed)[0].astype(np.uint16) * 200 for seed in range(3)]
    targets = [disc_image(64, seed)[1].astype(np.float32) / 255 for seed in range(3)]  # 0 and 1
    pairs = PairedMicrographs(images, ["a", "b", "c"], [None] * 3, targets)
    gain, offset = pairs.target_units()
    assert gain == pytest.approx(100 * 200, rel=0.05) and offset == pytest.approx(60 * 200, rel=0.05)
    torch.manual_seed(0)
    model = EMForDenoising(EMFoundationConfig.from_name("unet2-rf44-w8", residual=True))
    settings = dict(max_steps=60, learning_rate=3e-3, per_device_train_batch_size=4)
    trainer = EMTrainer(model, arguments(tmp_path, **settings), pairs, pairs)
    trainer.train()
    assert min(entry["l1"] for entry in trainer.curve) < 0.6 * trainer.curve[0]["l1"]
    loaded = EMForDenoising.from_pretrained(tmp_path)
    assert loaded.config.target_units == pytest.approx([gain, offset])
    output = predict(loaded, images[0]).output
    assert output.dtype == np.uint16
    assert output[targets[0] > 0].mean() == pytest.approx(160 * 200, rel=0.05)


def test_a_model_in_training_and_its_arguments_say_what_they_cannot_do(labelled_folder, tmp_path):
    data = load_em_dataset(labelled_folder)
    model = EMForSemanticSegmentation(EMFoundationConfig.from_name("unet2-rf44", id2label={0: "a", 1: "b"}))
    with pytest.raises(EMError, match=r"the model's classes are .*'b'.*disc"):
        EMTrainer(model, arguments(tmp_path / "out"), data, data)
    with pytest.raises(EMError, match="needs micrographs with targets"):
        EMTrainer(EMForDenoising(EMFoundationConfig.from_name("unet2-rf44")), arguments(tmp_path / "out"), data, data)
    for wrong in (
        dict(lora=2, freeze="encoder"),
        dict(backbone_lr_scale=0.0),
        dict(fp16=True),
        dict(early_stopping=-1),
    ):
        with pytest.raises(EMError, match=next(iter(wrong))):
            arguments(tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()
