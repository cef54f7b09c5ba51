"""What takes the noise out of one micrograph: without learning, ready, or trained on it for some seconds.

Each takes the noisy micrograph (H, W), float32, and a `Budget`, and returns (H, W). All see the same pixels and
nothing else, but for the clean micrographs that a supervised training is given.
"""

import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from transformers import TrainerCallback

from emfm import EMForDenoising, predict
from emfm.defaults import DEFAULT_DENOISER
from emfm.finetuning.finetune import FinetuneArguments, finetune
from emfm.tasks import load_model

# The generator that trainings here begin with, pretrained or with random weights.
GENERATOR = "unet4-rf200-w16"
CROP, BATCH, RATE = 96, 8, 1e-3
# Steps whose processor time is measured before a training, to know how many fit; the first is slower.
TIMED = 9
# Processor time of a step, measured once for each way to train.
STEP_SECONDS: dict[str, float] = {}
PRETRAINED: dict[str, Any] = {"model": GENERATOR, "learning_rate": RATE, "residual": True}
RANDOM: dict[str, Any] = {"scratch": GENERATOR, "learning_rate": RATE, "residual": True}
# Runs in an environment of its own: CAREamics pins other versions of what emfm needs.
CAREAMICS = """
import sys, time
import numpy as np, tifffile, torch
torch.set_num_threads(1)
from careamics import CAREamist
from careamics.config import create_advanced_n2v_config
from lightning.pytorch import Callback
source, target, seconds, work = sys.argv[1:]
noisy = tifffile.imread(source).astype(np.float32)
config = create_advanced_n2v_config(
    experiment_name="n2v", data_type="array", axes="SYX", patch_size=[64, 64], batch_size=16, num_epochs=10000,
    use_n2v2=True, num_workers=0, seed=1,
)


class Spent(Callback):
    def on_train_start(self, trainer, module):
        self.left, self.steps = float(seconds), 0

    def on_train_batch_start(self, *rest):
        self.mark = time.process_time()

    def on_train_batch_end(self, trainer, *rest):
        self.left -= time.process_time() - self.mark
        self.steps += 1
        trainer.should_stop = self.left <= 0


spent = Spent()
careamist = CAREamist(config, work_dir=work, callbacks=[spent], enable_progress_bar=False)
# the same micrograph several times: an epoch of a few steps would be spent on validation
careamist.train(train_data=np.stack([noisy] * 16), val_data=noisy[None])
restored, _ = careamist.predict(noisy[None], num_workers=0)
tifffile.imwrite(target, np.asarray(restored[0]).reshape(noisy.shape).astype(np.float32))
print(spent.steps, "steps")
"""


@dataclass(frozen=True)
class Budget:
    """What a method may use."""

    seconds: float  # of one core for training, evaluations not counted
    seed: int = 0
    share: float = 1.0  # of the seconds; less to see who is ahead early
    careamics: str | None = None  # the Python that has CAREamics
    clean: Sequence[np.ndarray] = ()  # clean micrographs of the same kind, for supervised training


def untouched(noisy: np.ndarray, budget: Budget) -> np.ndarray:
    """Return the noisy micrograph."""
    return noisy


def nonlocal_means(noisy: np.ndarray, budget: Budget) -> np.ndarray:
    """Return non-local means with the strength that scikit-image recommends for the noise that it estimates."""
    from skimage.restoration import denoise_nl_means, estimate_sigma

    sigma = float(estimate_sigma(noisy))
    return denoise_nl_means(noisy, h=0.8 * sigma, sigma=sigma, fast_mode=True, patch_size=5, patch_distance=6)


def wavelets(noisy: np.ndarray, budget: Budget) -> np.ndarray:
    """Return wavelet shrinkage with BayesShrink's thresholds, shift-invariant."""
    from skimage.restoration import cycle_spin, denoise_wavelet

    options = {"method": "BayesShrink", "mode": "soft", "rescale_sigma": True}
    return cycle_spin(noisy, func=denoise_wavelet, max_shifts=3, func_kw=options, workers=1)


def bm3d(noisy: np.ndarray, budget: Budget) -> np.ndarray:
    """Return BM3D with the noise that scikit-image estimates; its package is for non-commercial use."""
    from bm3d import bm3d as filtered  # type: ignore[import-not-found]
    from skimage.restoration import estimate_sigma

    return filtered(noisy, sigma_psd=float(estimate_sigma(noisy)))


def noise2void(noisy: np.ndarray, budget: Budget) -> np.ndarray:
    """Return Noise2Void's second version as CAREamics trains it, on this micrograph, in the given time."""
    assert budget.careamics is not None
    with tempfile.TemporaryDirectory() as work:
        source, target = str(Path(work) / "noisy.tif"), str(Path(work) / "restored.tif")
        tifffile.imwrite(source, noisy)
        words = [budget.careamics, "-c", CAREAMICS, source, target, str(budget.seconds * budget.share), work]
        done = subprocess.run(words, capture_output=True, text=True, cwd=work)
        if done.returncode:
            raise SystemExit(f"CAREamics failed: {done.stderr.strip().splitlines()[-1]}")
        return tifffile.imread(target)


class Clock(TrainerCallback):
    """Adds up the processor time of training steps; evaluations and what is written do not count."""

    def __init__(self):
        self.seconds: list[float] = []
        self._mark = 0.0

    def on_train_begin(self, *rest, **options):
        """Start."""
        self._mark = time.process_time()

    on_evaluate = on_save = on_train_begin

    def on_step_end(self, *rest, **options):
        """Add a step."""
        self.seconds.append(time.process_time() - self._mark)
        self._mark = time.process_time()


def processor_time() -> float:
    """Return the seconds that this process and those that it waited for have computed."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def self_supervised(noisy: np.ndarray, budget: Budget, **start: Any) -> np.ndarray:
    """Return what emfm restores after learning from this micrograph alone."""
    with tempfile.TemporaryDirectory() as work:
        data = Path(work) / "noisy"
        data.mkdir()
        tifffile.imwrite(data / "noisy.tif", noisy)
        return _trained(noisy, Path(work), budget, self_supervised=True, **start)


def supervised(noisy: np.ndarray, budget: Budget) -> np.ndarray:
    """Return what emfm restores after learning from clean micrographs of the same kind with made noise."""
    with tempfile.TemporaryDirectory() as work:
        images = Path(work) / "noisy" / "images"
        images.mkdir(parents=True)
        for number, clean in enumerate(budget.clean):
            tifffile.imwrite(images / f"{number:03}.tif", clean.astype(np.float32))
        return _trained(noisy, Path(work), budget, degrade="dose", dose=(1, 500), **PRETRAINED)


def _trained(noisy: np.ndarray, work: Path, budget: Budget, **settings: Any) -> np.ndarray:
    fixed = {"crop": CROP, "batch_size": BATCH, "seed": budget.seed}
    asked = partial(FinetuneArguments, "denoising", str(work / "noisy"), **fixed, **settings)
    key, output = str(sorted(settings.items())), str(work / "model")
    if key not in STEP_SECONDS:
        clock = Clock()
        finetune(asked(output=str(work / "timed"), steps=TIMED), False, [clock])
        STEP_SECONDS[key] = float(np.median(clock.seconds[1:]))
    finetune(asked(output=output, steps=max(1, round(budget.seconds * budget.share / STEP_SECONDS[key]))), False)
    return predict(EMForDenoising.from_pretrained(output), noisy).output


def ready(name: str) -> Callable[[np.ndarray, Budget], np.ndarray]:
    """Return a denoiser that needs no training: a name of the zoo, or a folder."""
    model = load_model(name)

    def restored(noisy: np.ndarray, budget: Budget) -> np.ndarray:
        return predict(model, noisy).output

    return restored


@cache
def method(name: str) -> Callable[[np.ndarray, Budget], np.ndarray]:
    """Return a method by its name: one of METHODS, else a model, which is loaded once."""
    return METHODS.get(name) or ready(name)


def cannot(name: str, budget: Budget) -> str | None:
    """Return why a method cannot be measured here; None where it can."""
    if name == "bm3d" and find_spec("bm3d") is None:
        return "bm3d is not installed; its licence allows non-commercial use alone"
    if name == "noise2void" and budget.careamics is None:
        return "no Python with CAREamics is given: --careamics PATH"
    return None


# Those that train are given the budget's seconds for each micrograph.
METHODS: dict[str, Callable[[np.ndarray, Budget], np.ndarray]] = {
    "noisy": untouched,
    "non-local means": nonlocal_means,
    "wavelets": wavelets,
    "bm3d": bm3d,
    "noise2void": noise2void,
    "self-supervised": self_supervised,
    "self-supervised, pretrained": lambda noisy, budget: self_supervised(noisy, budget, **PRETRAINED),
    "self-supervised, random": lambda noisy, budget: self_supervised(noisy, budget, **RANDOM),
    "supervised": supervised,
}
TRAINED = tuple(METHODS)[4:]
# The models that methods begin with.
STARTS = {"self-supervised": DEFAULT_DENOISER, "self-supervised, pretrained": GENERATOR, "supervised": GENERATOR}
