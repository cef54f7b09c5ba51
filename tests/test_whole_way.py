"""The whole way over HTTP: a streamed dataset, pretraining, the Hub, fine-tuning, the Hub again, a pipeline.

Each stage is a process of its own that knows nothing but names on the Hub.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import disc_image
from hub_server import HubServer
from PIL import Image

PRETRAIN = """
from emfm.hub.push import PushArguments, push_folder
from emfm.pretraining.pretrain import PretrainArguments, pretrain
folder = pretrain(PretrainArguments(data=("lab/micrographs",), output="run", streaming=True, generator="unet2-rf44",
                                    steps=4, batch_size=2, crop=32, discriminator_width=4, save_steps=4))
push_folder(load_model(folder), folder, PushArguments("lab/base", tag="v1"))
write_output(EMFoundation.from_pretrained(folder), "pretrained.npy")
"""
FINETUNE = """
from emfm.hub.push import PushArguments, push_folder
from emfm.finetuning.finetune import FinetuneArguments, finetune
base = EMFoundation.from_pretrained("lab/base", revision="v1")
write_output(base, "loaded.npy")
finetune(FinetuneArguments("segmentation", "lab/discs", "out", model="lab/base", streaming=True, steps=4, batch_size=2,
                           crop=32, precision="fp32"), show_progress=False)
push_folder(load_model("out"), "out", PushArguments("lab/segmenter"))
write_output(EMForSemanticSegmentation.from_pretrained("out"), "finetuned.npy")
"""
USE = """
import emfm.auto
from transformers import pipeline
from emfm.loading.names import model_folder
from emfm.hub.verify import verify
from emfm.tasks import load_model
parts = pipeline("image-segmentation", model="lab/segmenter")("image.png")
areas = {part["label"]: int((np.asarray(part["mask"]) > 0).sum()) for part in parts}
write_output(load_model("lab/segmenter"), "segmenter.npy")
print(json.dumps({"areas": areas, "difference": verify(load_model("lab/segmenter"), model_folder("lab/segmenter"))}))
"""
COMMON = """
import json
import numpy as np
import torch
from emfm import EMForSemanticSegmentation, EMFoundation, EMImageProcessor
from emfm.tasks import load_model

@torch.no_grad()
def write_output(model, path):
    image = np.random.default_rng(0).integers(0, 255, (48, 48)).astype(np.uint8)
    outputs = model.eval()(**model.processor(image))
    np.save(path, (outputs.reconstruction if "reconstruction" in outputs else outputs.logits).numpy())
"""


@pytest.fixture
def stage(tmp_path):
    """Return a function that runs code in a new process beside a Hub, and returns the last line that it printed."""

    def run(hub: HubServer, code: str) -> str:
        environment = hub.environment(tmp_path, HF_TOKEN="hf_test", PYTHONPATH=str(Path(__file__).parent.parent))
        command = [sys.executable, "-c", COMMON + code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        return (done.stdout.strip().splitlines() or [""])[-1]

    return run


def test_from_a_streamed_dataset_to_a_pipeline_by_names_on_the_hub_alone(
    stage, parquet_folder, labelled_parquet, tmp_path
):
    Image.fromarray(disc_image(64, 9)[0]).save(tmp_path / "image.png")
    datasets = {"datasets/lab/micrographs": parquet_folder(40), "datasets/lab/discs": labelled_parquet}
    with HubServer(datasets) as hub:
        stage(hub, PRETRAIN)
        stage(hub, FINETUNE)
        result = json.loads(stage(hub, USE))
        card = hub.repos["lab/segmenter"].read("main", "README.md").decode()
    for here, there in (("pretrained", "loaded"), ("finetuned", "segmenter")):
        np.testing.assert_array_equal(np.load(tmp_path / f"{here}.npy"), np.load(tmp_path / f"{there}.npy"))
    assert sum(result["areas"].values()) == 64 * 64 and result["areas"].keys() <= {"background", "disc"}
    assert result["difference"] < 1e-4
    assert "lab/base" in card and "unet2-rf44" in card
