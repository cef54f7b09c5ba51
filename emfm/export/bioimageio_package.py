"""A package of the bioimage.io model zoo: ONNX weights, test tensors, cover, documentation and rdf.yaml.

The description follows the bioimage.io model specification 0.5 (https://github.com/bioimage-io/spec-bioimage-io).
"""

import hashlib
import shutil
import tempfile
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from huggingface_hub import ModelCard
from PIL import Image

import emfm
from emfm.errors import EMError
from emfm.export.arguments import PackageArguments
from emfm.export.onnx_file import INPUT, OPSET, export_onnx, need
from emfm.files import write_atomically, write_text
from emfm.hub.card import TEMPLATES, fill
from emfm.io.writing import write_image
from emfm.loading.names import model_folder
from emfm.modeling import EMPreTrainedModel
from emfm.reports.prediction import Prediction
from emfm.simulate.nanoparticles import simulate_nanoparticles
from emfm.tasks import load_model, task_of

# The oldest version of the specification with every step that is used here; readers bring it up to date.
FORMAT_VERSION = "0.5.5"
# Readers cut tiles with such a margin (px) at most; something must remain of the smallest tile.
LARGEST_HALO = 96
FILES = ("rdf.yaml", "README.md", "weights.onnx", "test_input.npy", "test_output.npy", "cover.png")
PAPER = {
    "text": "Kazimi, Ruzaeva and Sandfeld 2024, Self-supervised learning with GANs for electron microscopy",
    "doi": "10.48550/arXiv.2402.18286",
}
# Smallest positive number that the specification's division by the range takes without a trace in float32.
NO_EPS = 1e-30


def export_package(source: str | Path, output: str | Path, arguments: PackageArguments | None = None) -> float:
    """Write a model as a bioimage.io package, and validate it with the specification's own library.

    Args:
        source: zoo name, folder or Hub id of the model.
        output: a `.zip` file, or a folder that is made or whose package is replaced.
        arguments: name, authors and licence.

    Returns:
        The largest difference between the ONNX weights and torch, as a share of the output's largest magnitude.

    Raises:
        EMError: a library is missing, the model does not load or export, the package does not validate, or the folder
            holds other files.
    """
    need("bioimageio.spec", "onnx", "onnxscript", "onnxruntime")
    arguments, output = arguments or PackageArguments(), Path(output)
    if output.is_dir() and any(path.name not in FILES for path in output.iterdir()):
        raise EMError(f"{output} holds files that are no part of a package: choose another --output")
    folder = Path(model_folder(str(source)))
    model = load_model(folder)
    with tempfile.TemporaryDirectory() as temporary:
        package = Path(temporary)
        difference = _fill(package, model, folder, _named(source, arguments))
        _validate(package)
        if output.suffix == ".zip":
            write_atomically(output, lambda path: _zip(package, path))
        else:
            for name in (*FILES[1:], FILES[0]):  # the description last: without it nothing takes the rest for a package
                write_atomically(output / name, partial(shutil.copyfile, package / name))
    return difference


def _named(source: str | Path, arguments: PackageArguments) -> PackageArguments:
    name = arguments.name or f"emfm {Path(source).name}"
    return PackageArguments(name, arguments.authors or ("emfm",), arguments.license)


def _fill(package: Path, model: EMPreTrainedModel, folder: Path, arguments: PackageArguments) -> float:
    """Write all files of a package into an empty folder."""
    difference = export_onnx(model, package / "weights.onnx", probabilities=False)
    image, output = example(model)
    np.save(package / "test_input.npy", image[None, None])
    np.save(package / "test_output.npy", output)
    write_image(package / "cover.png", _cover(model, image, output))
    card = ModelCard.load(folder / "README.md") if (folder / "README.md").is_file() else None
    write_text(package / "README.md", _documentation(model, arguments, card))
    description = describe(model, package, arguments, card.data.license if card else None)
    write_text(package / "rdf.yaml", yaml.safe_dump(description, sort_keys=False, allow_unicode=True))
    return difference


def halo(model: EMPreTrainedModel) -> int:
    """Return the margin in pixels of the input that a tile's result lacks: the model's reach, up to `LARGEST_HALO`."""
    return min(model.reach, LARGEST_HALO)


def smallest_side(model: EMPreTrainedModel) -> int:
    """Return the smallest side of an input in pixels: two halos and something between them."""
    return -(-(2 * halo(model) + 64) // 32) * 32


@torch.no_grad()
def example(model: EMPreTrainedModel) -> tuple[np.ndarray, np.ndarray]:
    """Return a simulated micrograph (H, W) float32 and what emfm makes of it (1, C, H * s, W * s) float32."""
    side = smallest_side(model)
    image = simulate_nanoparticles((side, side), 0).image.astype(np.float32)
    values = model.processor.normalize(image, model.processor.statistics(image))
    return image, model.eval().maps(torch.from_numpy(values)[None, None]).cpu().numpy()


def _cover(model: EMPreTrainedModel, image: np.ndarray, output: np.ndarray) -> np.ndarray:
    """Return input and result side by side, twice as wide as high, at most 512 pixels high."""
    statistics = model.processor.statistics(image)
    result = model.result(output[0], statistics, image.dtype)
    shown = task_of(model).report().before_and_after(Prediction(image, result, model.classes, None, ""))
    pair = np.concatenate(shown, axis=1)
    height = min(512, pair.shape[0])
    return np.asarray(Image.fromarray(pair).resize((2 * height, height), Image.Resampling.BOX))


def describe(
    model: EMPreTrainedModel, package: Path, arguments: PackageArguments, card_license: str | None
) -> dict[str, Any]:
    """Return the content of rdf.yaml, with the checksums of the files in the package's folder."""

    def file(name: str) -> dict[str, str]:
        return {"source": name, "sha256": hashlib.sha256((package / name).read_bytes()).hexdigest()}

    description: dict[str, Any] = {
        "type": "model",
        "format_version": FORMAT_VERSION,
        "name": arguments.name,
        "description": _description(model),
        "authors": [{"name": name} for name in arguments.authors],
        "cite": [PAPER],
        "documentation": file("README.md"),
        "covers": ["cover.png"],
        "tags": ["electron-microscopy", "emfm", "2d", task_of(model).exported.tag],
        "version": "0.1.0",
        "inputs": [_input(model, file("test_input.npy"))],
        "outputs": [_output(model, file("test_output.npy"))],
        "weights": {"onnx": {**file("weights.onnx"), "opset_version": OPSET}},
        "config": {"emfm": _config(model)},
    }
    license_name = arguments.license or _spdx(card_license)
    return {**description, "license": license_name} if license_name else description


def _spdx(card_license: str | None) -> str | None:
    """Return the SPDX identifier of a licence as the Hub writes it, for those that emfm's own cards use."""
    return {"apache-2.0": "Apache-2.0", "mit": "MIT", "cc-by-4.0": "CC-BY-4.0"}.get(card_license or "")


def _description(model: EMPreTrainedModel) -> str:
    classes = ", ".join((model.classes or {}).values())
    what = task_of(model).purpose.format(classes=classes, scale=model.scale)
    return f"Electron micrographs: {what}; {model.config.generator} of emfm {emfm.__version__}"


def _config(model: EMPreTrainedModel) -> dict[str, Any]:
    return {
        "class": type(model).__name__,
        "generator": model.config.generator,
        "scale": model.scale,
        "norm": model.config.norm,
        "reach": model.reach,
        "pixel_size_range_nm": list(model.config.pixel_size_range) if model.config.pixel_size_range else None,
    }


def _input(model: EMPreTrainedModel, test_tensor: dict[str, str]) -> dict[str, Any]:
    least = smallest_side(model)
    processor = model.processor
    percentiles = {"min_percentile": processor.low, "max_percentile": processor.high, "eps": NO_EPS}
    return {
        "id": INPUT,
        "description": "a micrograph in its own units",
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": ["intensity"]},
            *(
                {"type": "space", "id": axis, "size": {"min": least, "step": 1}, "concatenable": True}
                for axis in ("y", "x")
            ),
        ],
        "data": {"type": "float32"},
        "preprocessing": [
            {"id": "scale_range", "kwargs": {"axes": ["channel", "y", "x"], **percentiles}},
            {"id": "scale_linear", "kwargs": {"gain": 2.0, "offset": -1.0}},
            {"id": "clip", "kwargs": {"min": -processor.clip, "max": processor.clip}},
        ],
        "test_tensor": test_tensor,
    }


def _output(model: EMPreTrainedModel, test_tensor: dict[str, str]) -> dict[str, Any]:
    words = task_of(model).exported
    names = list((model.classes or {0: words.channel}).values())
    axes = [
        {
            "type": "space",
            "id": axis,
            "size": {"tensor_id": INPUT, "axis_id": axis},
            "scale": 1 / model.scale,
            "halo": halo(model) * model.scale,
        }
        for axis in ("y", "x")
    ]
    output: dict[str, Any] = {
        "id": words.finished,
        "description": words.description,
        "axes": [{"type": "batch"}, {"type": "channel", "channel_names": names}, *axes],
        "data": {"type": "float32"},
        "test_tensor": test_tensor,
    }
    if words.steps:
        output["postprocessing"] = [{"id": step, "kwargs": {"axis": "channel"}} for step in words.steps]
    return output


def _documentation(model: EMPreTrainedModel, arguments: PackageArguments, card: ModelCard | None) -> str:
    text = fill(
        TEMPLATES / "bioimageio_documentation.md",
        name=arguments.name,
        description=_description(model),
        input=INPUT,
        words=task_of(model).exported,
        model=model,
        processor=model.processor,
        card=card.text.strip().replace("\n# ", "\n## ") if card else "",
    )
    return f"{text}\n"


def _validate(package: Path) -> None:
    """Let the specification's library check the description and the files that it names."""
    from bioimageio.spec import InvalidDescr, ValidationContext, load_description
    from loguru import logger

    logger.disable("bioimageio")
    with ValidationContext(perform_io_checks=True):
        found = load_description(package / "rdf.yaml")
    if isinstance(found, InvalidDescr):
        errors = [
            f"{'.'.join(map(str, e.loc))}: {e.msg}"
            for detail in found.validation_summary.details
            for e in detail.errors
        ]
        raise EMError(f"the package does not meet the bioimage.io specification: {'; '.join(errors)}")


def _zip(package: Path, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in FILES:
            archive.write(package / name, name)
