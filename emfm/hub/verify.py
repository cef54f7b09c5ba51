"""A model folder carries an input and its output, so that anyone can check what was loaded."""

from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from emfm.errors import EMError
from emfm.files import write_atomically
from emfm.loading.model_files import TEST_TENSORS, WRITTEN_BY, check_checksums, write_checksums

# Other machines sum in another order; between fp32 kernels outputs were measured to differ by less.
TOLERANCE = 1e-3


def fixed_input() -> torch.Tensor:
    """Return the fixed input (1, 1, 128, 128): a disc on a ramp under noise, in network values."""
    rows, columns = np.mgrid[:128, :128] / 128 - 0.5
    disc = np.where(np.hypot(rows, columns) < 0.25, 1.0, -0.5)
    noise = np.random.default_rng(0).normal(0, 0.2, disc.shape)
    return torch.from_numpy((disc + 0.5 * columns + noise).astype(np.float32))[None, None]


@torch.no_grad()
def run_model(model: PreTrainedModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """Return the model's first output that is not a loss, in evaluation mode."""
    was_training = model.training
    outputs = model.eval()(pixel_values.to(model.device))
    model.train(was_training)
    return next(value for name, value in outputs.items() if name != "loss").float().cpu()


def write_test_tensors(model: PreTrainedModel, folder: str | Path) -> None:
    """Write an input and the model's output as `test_tensors.safetensors`, and checksums."""
    pixel_values, path = fixed_input(), Path(folder) / TEST_TENSORS
    tensors = {"input": pixel_values, "output": run_model(model, pixel_values).contiguous()}
    write_atomically(path, lambda temporary: save_file(tensors, temporary))
    write_checksums(folder)


def verify(model: PreTrainedModel, folder: str | Path) -> float:
    """Compare files with checksums, recompute the stored output, return the largest difference.

    Raises:
        EMError: a file is missing or was changed, or the outputs differ by more than the tolerance.
    """
    check_checksums(folder)
    path = Path(folder) / TEST_TENSORS
    if not path.is_file():
        raise EMError(f"{folder} has no {TEST_TENSORS}, so its weights cannot be verified: {WRITTEN_BY}")
    try:
        tensors = load_file(path)
        expected, pixel_values = tensors["output"], tensors["input"]
    except (SafetensorError, KeyError) as error:
        raise EMError(f"{path} is damaged ({error}); expected 'input' and 'output'") from error
    output = run_model(model, pixel_values)
    if output.shape != expected.shape:
        raise EMError(f"{path}: the model answers with shape {tuple(output.shape)}, stored is {tuple(expected.shape)}")
    difference = float((output - expected).abs().max())
    if not difference <= TOLERANCE:
        raise EMError(
            f"{folder}: the output differs from the stored one by {difference:.3g} (allowed "
            f"{TOLERANCE:g}): weights, configuration or code are not those that were published"
        )
    return difference
