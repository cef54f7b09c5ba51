"""A model folder carries an input and the output that belongs to it, so that anyone can check what was loaded."""

from pathlib import Path

import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from emfm.errors import EMError
from emfm.hub.model_files import PUBLISHED, TEST_TENSORS, check_checksums, write_checksums
from emfm.modeling import EMPreTrainedModel
from emfm.weights import absent, locate

# Other machines sum in another order; measured between fp32 kernels the outputs differ by less than this.
TOLERANCE = 1e-3


def fixed_input(side: int = 128) -> torch.Tensor:
    """Return the fixed input (1, 1, side, side): a disc on a ramp under noise, in network values."""
    rows, columns = np.mgrid[:side, :side] / side - 0.5
    disc = np.where(np.hypot(rows, columns) < 0.25, 1.0, -0.5)
    noise = np.random.default_rng(0).normal(0, 0.2, (side, side))
    return torch.from_numpy((disc + 0.5 * columns + noise).astype(np.float32))[None, None]


@torch.no_grad()
def run_model(model: EMPreTrainedModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """Return the model's first output that is not a loss, in evaluation mode."""
    was_training = model.training
    outputs = model.eval()(pixel_values.to(model.device))
    model.train(was_training)
    return next(value for name, value in outputs.items() if name != "loss").float().cpu()


def write_test_tensors(model: EMPreTrainedModel, folder: str | Path) -> None:
    """Write `test_tensors.safetensors` with `input` and the model's `output` into its folder, and `checksums.json`."""
    pixel_values = fixed_input()
    output = run_model(model, pixel_values).contiguous()
    path = Path(folder) / TEST_TENSORS
    save_file({"input": pixel_values, "output": output}, path)
    path.chmod(0o644)  # safetensors makes it readable by its owner alone
    write_checksums(folder)


def verify(model: EMPreTrainedModel, folder: str | Path) -> float:
    """Compare the files with their checksums, recompute the stored output, and return the largest difference.

    Raises:
        EMError: a file is missing or was changed, or the outputs differ by more than the tolerance.
    """
    check_checksums(folder)
    path = Path(folder) / TEST_TENSORS
    if not path.is_file():
        raise EMError(f"{folder} has no {TEST_TENSORS}, so its weights cannot be verified")
    tensors = load_file(path)
    difference = float((run_model(model, tensors["input"]) - tensors["output"]).abs().max())
    if not difference <= TOLERANCE:
        raise EMError(
            f"{folder}: the output differs from the stored one by {difference:.3g} (allowed {TOLERANCE:g}): the "
            "weights, the configuration or the code are not those that were published"
        )
    return difference


def model_folder(name_or_path: str | Path, revision: str | None = None) -> Path:
    """Return the folder of a model: its own, or a copy of the Hub's with every published file.

    Args:
        name_or_path: zoo name, local folder or Hub id.
        revision: branch, tag or commit on the Hub.

    Raises:
        EMError: nothing goes by this name, or the Hub does not answer.
    """
    place = locate(name_or_path)
    if Path(place).is_dir():
        return Path(place)
    try:
        return Path(snapshot_download(place, revision=revision, allow_patterns=list(PUBLISHED)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        known = absent(name_or_path) or f"cannot download {place}"
        raise EMError(f"{known} ({error})") from error
