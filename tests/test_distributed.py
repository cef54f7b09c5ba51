"""Two processes on the CPU, as torchrun starts them: they share the work, and one of them writes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from accelerate import Accelerator
from processes import share_without_fault
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torchrun import environment

from emfm import EMForSemanticSegmentation, EMFoundation, EMFoundationConfig, EMImageProcessor
from emfm.data.croppers import StreamedTrainingCrops
from emfm.finetuning.finetune import FinetuneArguments, finetune
from emfm.pretraining import batches
from emfm.pretraining.batches import Batches, open_data
from emfm.pretraining.pix2pix import PatchDiscriminator, Pix2Pix
from emfm.pretraining.pretext import Crops, Pretext
from emfm.pretraining.pretrain import PretrainArguments, pretrain

# a run that torchrun itself starts, and that would take hours
LONG = """
import sys
from emfm.pretraining.pretrain import PretrainArguments, pretrain
pretrain(PretrainArguments(
    data=(sys.argv[1],), output=sys.argv[2], generator="unet2-rf44", steps=100000, workers=1, batch_size=2, crop=32,
    adversarial="lsgan", discriminator_width=4, save_steps=50000,
))
"""


def pretrain_on(data: Path, output: Path) -> None:
    batches.VALIDATION_CROPS = 16
    settings = dict(generator="unet2-rf44", steps=4, batch_size=2, crop=32, discriminator_width=4, save_steps=4)
    pretrain(PretrainArguments(data=(str(data),), output=str(output), adversarial="lsgan", **settings))


def finetune_on(task: str, data: Path, output: Path, steps: int = 4, degrade: str | None = None) -> None:
    settings = dict(scratch="unet2-rf44", batch_size=2, crop=32, precision="fp32")
    finetune(FinetuneArguments(task, str(data), str(output), steps=steps, degrade=degrade, **settings))


def finetune_on_a_stream(data: Path, folder: Path) -> None:
    """Train on a stream of labelled micrographs, and write down the crops that this process saw."""
    seen = []
    draw = StreamedTrainingCrops.__iter__

    def drawn(self):
        for crop in draw(self):
            seen.append(round(float(crop["pixel_values"].sum()), 3))
            yield crop

    StreamedTrainingCrops.__iter__ = drawn
    settings = dict(scratch="unet2-rf44", steps=2, batch_size=2, crop=64, precision="fp32", intensity_jitter=0.0)
    facts = finetune(FinetuneArguments("segmentation", str(data), str(folder / "out"), streaming=True, **settings))
    (folder / f"seen_{os.environ['RANK']}.json").write_text(json.dumps([seen[:4], facts["processes"]]))


def read_crops(data: Path, folder: Path, streaming: bool) -> None:
    """Write down the crops of this process as pretraining reads them, by index after eight steps or from a stream."""
    accelerator = Accelerator()
    settings = dict(streaming=streaming, steps=12, batch_size=2, crop=32, workers=1)
    args = PretrainArguments(data=(str(data),), output="none", **settings)
    data = open_data(args, EMImageProcessor())
    batches = Batches(data, args, accelerator, 8 if data.stream is None else 0, [])
    seen = [key for _ in range(4) for key in next(batches)["key"].tolist()]
    everywhere = batches.position(accelerator)
    batches.close()
    accelerator.end_training()
    (folder / f"seen_{accelerator.process_index}.json").write_text(json.dumps([seen, everywhere]))


def take_a_step(path: Path, parts: int) -> None:
    """Take one step of plain gradient descent (see the test of a batch in parts) on this process's share of a batch."""
    accelerator = Accelerator()
    torch.manual_seed(0)
    damaged, clean = torch.randn(2, 4, 1, 32, 32)
    networks = [Pretext(EMFoundation(EMFoundationConfig.from_name("unet2-rf44"))), PatchDiscriminator(4)]
    optimizers = {
        name: torch.optim.SGD(network.parameters(), 0.1)
        for name, network in zip(("generator", "discriminator"), networks, strict=True)
    }
    prepared = accelerator.prepare(*networks)
    mine = slice(accelerator.process_index, None, accelerator.num_processes)
    batches = list(map(Crops, damaged[mine].chunk(parts), clean[mine].chunk(parts)))
    Pix2Pix(accelerator, *prepared, optimizers, "lsgan", 100.0).step(batches)
    if accelerator.is_main_process:
        tensors = {f"{i}.{name}": v.detach() for i, net in enumerate(networks) for name, v in net.named_parameters()}
        save_file(tensors, path, metadata={"processes": str(accelerator.num_processes)})
    accelerator.wait_for_everyone()  # and no network may hold on to the group when it ends
    del prepared
    accelerator.end_training()


def test_two_processes_pretrain_one_model(labelled_folder, tmp_path):
    share_without_fault(pretrain_on, labelled_folder / "images", tmp_path / "run")
    model = EMFoundation.from_pretrained(tmp_path / "run" / "pretrained_model")
    assert model.config.pretraining["processes"] == 2
    states = load_file(tmp_path / "run" / "step_4" / "training_state" / "optimizers.safetensors")
    assert states["generator.0.step"].item() == states["discriminator.0.step"].item() == 4
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [(entry["step"], entry["group"]) for entry in log] == [(0, "validation"), (4, "train"), (4, "validation")]


def seen_by_two(source, streaming: bool, tmp_path) -> list[tuple[list, list]]:
    share_without_fault(read_crops, source, tmp_path, streaming)
    return [json.loads((tmp_path / f"seen_{rank}.json").read_text()) for rank in range(2)]


def test_every_crop_goes_to_exactly_one_process(labelled_folder, tmp_path):
    seen = [keys for keys, _ in seen_by_two(labelled_folder / "images", False, tmp_path)]
    # five micrographs an epoch; eight steps of four crops are done, four of sixteen in all follow
    assert sorted(seen[0] + seen[1]) == [list(divmod(index, 5)) for index in range(32, 48)]
    assert seen[0][:4] == [list(divmod(index, 5)) for index in (32, 33, 36, 37)]


def test_no_streamed_micrograph_goes_to_two_processes(parquet_folder, tmp_path):
    (mine, position), (other, the_same) = seen_by_two(parquet_folder(60), True, tmp_path)
    together = [tuple(key) for key in mine + other]
    assert len(set(together)) == len(together) == 16
    assert position == the_same == [[mine[-1][0], mine[-1][1] // 2 + 1], [other[-1][0], other[-1][1] // 2 + 1]]


@pytest.mark.parametrize("parts", [1, 2])
def test_a_step_of_two_processes_equals_that_of_one_with_twice_the_batch(parts, tmp_path):
    """Instance norm leaves the images of a batch independent; with batch norm each process has its own statistics."""
    share_without_fault(take_a_step, tmp_path / "two.safetensors", parts)
    share_without_fault(take_a_step, tmp_path / "one.safetensors", 1, processes=1)
    one, two = (load_file(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    with safe_open(tmp_path / "two.safetensors", "pt") as file:
        assert file.metadata() == {"processes": "2"}
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5)


def test_two_processes_fine_tune_one_model(labelled_folder, tmp_path):
    share_without_fault(finetune_on, "segmentation", labelled_folder, tmp_path / "out")
    model = EMForSemanticSegmentation.from_pretrained(tmp_path / "out")
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    curve = json.loads((tmp_path / "out" / "curve.json").read_text())
    assert [entry["step"] for entry in curve] == [0, 1, 2, 3, 4]
    assert curve[-1]["epoch"] == pytest.approx(4 * 2 * 2 / 3, abs=1e-3)


def test_two_processes_fine_tune_on_a_stream_without_sharing_a_micrograph(labelled_parquet, tmp_path):
    share_without_fault(finetune_on_a_stream, labelled_parquet, tmp_path)
    (mine, processes), (other, _) = (json.loads((tmp_path / f"seen_{rank}.json").read_text()) for rank in range(2))
    assert processes == 2
    assert len(mine) == len(other) == 4 and len(set(mine + other)) == 8  # eight micrographs, each seen once
    EMForSemanticSegmentation.from_pretrained(tmp_path / "out")


def test_figures_of_two_processes_are_those_of_one(labelled_folder, tmp_path):
    (labelled_folder / "splits.json").write_text(
        '{"train": ["0.png", "1.png"], "validation": ["3.png", "4.png", "5.png"]}'
    )
    # eight steps of two crops: both then have the sixteen crops to which a new head is fitted
    for processes, name in ((2, "two"), (1, "one")):
        task = ("denoising", labelled_folder, tmp_path / name, 8, "dose")
        share_without_fault(finetune_on, *task, processes=processes)
    one, two = (json.loads((tmp_path / name / "curve.json").read_text())[0] for name in ("one", "two"))
    assert one["n"] == two["n"] == 3
    for name in ("l1", "psnr", "ssim"):
        assert two[name] == pytest.approx(one[name], rel=1e-6)


def test_torchrun_told_to_end_leaves_a_checkpoint_and_no_process(labelled_folder, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(LONG)
    run = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen(
            [*command, str(labelled_folder / "images"), str(run)], env=environment(), stdout=log, stderr=log
        )
        deadline = time.time() + 100
        while time.time() < deadline and running.poll() is None and not (run / "pictures").exists():
            time.sleep(0.1)
        time.sleep(2)  # well into the training
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=60) != 0
    (saved,) = run.glob("step_*")
    assert 0 < int(saved.name.removeprefix("step_")) < 50000
    assert "the same command with --resume goes on" in (tmp_path / "log").read_text()
    EMFoundation.from_pretrained(saved / "pretrained_model")
    running = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert not [arguments for arguments in running if str(script) in arguments]
