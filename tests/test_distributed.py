"""Two processes on the CPU, started by torchrun: they share the work, and one of them writes."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from emfm import EMForSemanticSegmentation, EMFoundation

PRETRAIN = """
import sys
from emfm.training.pretrain import PretrainArguments, pretrain
pretrain(PretrainArguments(
    data=(sys.argv[1],), output=sys.argv[2], generator="unet2-rf44", steps=4, batch_size=2, crop=32,
    discriminator_width=4, save_steps=4,
))
"""
FINETUNE = """
import sys
from emfm.training.finetune import FinetuneArguments, finetune
finetune(FinetuneArguments(
    "segmentation", sys.argv[1], sys.argv[2], scratch="unet2-rf44", steps=4, batch_size=2, crop=32, precision="fp32",
))
"""
# the loader as pretraining builds it, over numbers in place of crops, resumed after the first eight
SHARE = """
import json, sys
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Subset
accelerator = Accelerator()
loader = accelerator.prepare(DataLoader(Subset(list(range(24)), range(8, 24)), batch_size=2))
seen = torch.cat(list(loader)).tolist()
open(f"{sys.argv[1]}/seen_{accelerator.process_index}.json", "w").write(json.dumps(seen))
"""


def torchrun(code: str, tmp_path, *arguments: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "1"}
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_pretrain_one_model(labelled_folder, tmp_path):
    torchrun(PRETRAIN, tmp_path, str(labelled_folder / "images"), str(tmp_path / "run"))
    model = EMFoundation.from_pretrained(tmp_path / "run" / "pretrained_model")
    assert model.config.pretraining["processes"] == 2
    states = load_file(tmp_path / "run" / "step_4" / "training_state" / "optimizers.safetensors")
    assert states["generator.0.step"].item() == states["discriminator.0.step"].item() == 4
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [4]


def test_every_crop_goes_to_exactly_one_process(tmp_path):
    torchrun(SHARE, tmp_path, str(tmp_path))
    seen = [json.loads((tmp_path / f"seen_{rank}.json").read_text()) for rank in range(2)]
    assert sorted(seen[0] + seen[1]) == list(range(8, 24))
    assert seen[0][:4] == [8, 9, 12, 13]


def test_two_processes_fine_tune_one_model(labelled_folder, tmp_path):
    torchrun(FINETUNE, tmp_path, str(labelled_folder), str(tmp_path / "out"))
    model = EMForSemanticSegmentation.from_pretrained(tmp_path / "out")
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    curve = json.loads((tmp_path / "out" / "curve.json").read_text())
    assert [entry["step"] for entry in curve] == [0, 1, 2, 3, 4]
    assert curve[-1]["epoch"] == pytest.approx(4 * 2 * 2 / 3, abs=1e-3)
