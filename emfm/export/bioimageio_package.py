"""A package of the bioimage.io model zoo: ONNX weights, test tensors, cover, texts and rdf.yaml.

It follows the model specification 0.5 (https://github.com/bioimage-io/spec-bioimage-io).
"""

import json
import shutil
import tempfile
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import yaml
from huggingface_hub import ModelCard
from PIL import Image

import emfm
from emfm.errors import EMError
from emfm.export import PackageArguments
from emfm.export.onnx_file import INPUT, OPSET, export_onnx, need, say_replaced
from emfm.files import sha256, writable_file, writable_folder, write_atomically, write_text, writing
from emfm.hub.card import TEMPLATES, fill
from emfm.inference.predict import predict
from emfm.io.writing import write_image
from emfm.loading.names import model_folder
from emfm.modeling import EMPreTrainedModel
from emfm.simulate.nanoparticles import simulate_nanoparticles
from emfm.tasks import load_model, task_of

# A tile's result lacks a margin of the model's reach (px). Readers cut at most this much of it, so
# that something remains of the smallest tile.
LARGEST_HALO = 96
FILES = ("rdf.yaml", "README.md", "weights.onnx", "test_input.npy", "test_output.npy", "cover.png")
# The Hub's names of the licences that emfm's own cards use, and their SPDX identifiers.
SPDX = {"apache-2.0": "Apache-2.0", "mit": "MIT", "cc-by-4.0": "CC-BY-4.0"}


def export_package(source: str | Path, output: str | Path, arguments: PackageArguments | None = None) -> float:
    """Write a model as a bioimage.io package, and validate it with the specification's own library.

    Args:
        source: zoo name, folder or Hub id of the model.
        output: a `.zip` file, or a folder that is made or whose package is replaced.
        arguments: name, authors and licence.

    Returns:
        The largest difference from torch, as a share of the output's largest magnitude.

    Raises:
        EMError: a library is missing, the model does not load or export, the package is not valid,
            or the folder holds other files.
    """
    arguments, output = arguments or PackageArguments(), Path(output)
    (writable_file if output.suffix == ".zip" else writable_folder)(output)
    need("bioimageio.spec", "onnx", "onnxscript", "onnxruntime")
    arguments = replace(
        arguments, name=arguments.name or f"emfm {Path(source).name}", authors=arguments.authors or ("emfm",)
    )
    if output.is_dir() and any(path.name not in FILES for path in output.iterdir()):
        raise EMError(f"{output} holds files that are no part of a package: choose another --output")
    folder = model_folder(str(source))
    model = load_model(folder)
    with tempfile.TemporaryDirectory() as temporary, writing(temporary):
        package = Path(temporary)
        words = task_of(model).exported
        # what no step of bioimage.io makes of the output is done inside
        finished = words.finished != words.output and not words.steps
        difference = export_onnx(model, package / "weights.onnx", probabilities=finished)
        _write_example(package, model)
        _write_texts(package, model, folder / "README.md", arguments)
        _validate(package)
        say_replaced(output if output.suffix == ".zip" else output / FILES[0])
        if output.suffix == ".zip":
            write_atomically(output, lambda path: _zip(package, path))
        else:
            for name in (*FILES[1:], FILES[0]):  # the description, which makes it a package, last
                write_atomically(output / name, partial(shutil.copyfile, package / name))
    return difference


def smallest_side(model: EMPreTrainedModel) -> int:
    """Return the smallest side of an input in pixels: two halos and something between them."""
    return -(-(2 * min(model.reach, LARGEST_HALO) + 64) // 32) * 32


@torch.no_grad()
def _write_example(package: Path, model: EMPreTrainedModel) -> None:
    """Write a simulated micrograph and its result, as tensors and side by side as the cover."""
    side = smallest_side(model)
    image = simulate_nanoparticles((side, side), 0).image.astype(np.float32)  # (H, W)
    statistics = model.processor.statistics(image)
    values = model.processor.normalize(image, statistics)
    output = model.eval().maps(torch.from_numpy(values)[None, None]).cpu().numpy()  # (1, C, sH, sW)
    np.save(package / "test_input.npy", image[None, None])
    np.save(package / "test_output.npy", output)
    shown = task_of(model).report().before_and_after(predict(model, image, compare=False))
    pair = np.concatenate(shown, axis=1)
    height = min(512, pair.shape[0])
    cover = Image.fromarray(pair).resize((2 * height, height), Image.Resampling.BOX)
    write_image(package / "cover.png", np.asarray(cover))


def _write_texts(package: Path, model: EMPreTrainedModel, readme: Path, arguments: PackageArguments) -> None:
    """Write documentation and description, which holds the checksums of the package's files."""
    card = ModelCard.load(readme) if readme.is_file() else None
    task = task_of(model)
    purpose = task.purpose_of(model.config)
    common = {
        "arguments": arguments,
        "description": f"Electron micrographs: {purpose}; {model.config.generator} of emfm {emfm.__version__}",
        "input": INPUT,
        "words": task.exported,
        "channels": [*task.exported.channels, *(model.classes or model.object_classes).values()],
        "model": model,
    }
    validated = card.text.strip().replace("\n# ", "\n## ") if card else ""
    documentation = fill(TEMPLATES / "bioimageio_documentation.md", **common, card=validated)
    write_text(package / "README.md", f"{documentation}\n")
    description = fill(
        TEMPLATES / "bioimageio_rdf.json",
        **common,
        sha256=lambda name: sha256(package / name),
        least=smallest_side(model),
        halo=min(model.reach, LARGEST_HALO),
        opset=OPSET,
        class_name=type(model).__name__,
        license=arguments.license or (SPDX.get(card.data.license) if card else None),
    )
    rdf = yaml.safe_dump(json.loads(description), sort_keys=False, allow_unicode=True)
    write_text(package / "rdf.yaml", rdf)


MOST_SHOWN = 120  # characters of an error of the specification, which may list all licences


def _validate(package: Path) -> None:
    """Let the specification's library check the description and the files that it names."""
    from bioimageio.spec import InvalidDescr, ValidationContext, load_description
    from loguru import logger

    logger.disable("bioimageio")
    with ValidationContext(perform_io_checks=True):
        found = load_description(package / "rdf.yaml")
    if isinstance(found, InvalidDescr):
        wrong = [error for detail in found.validation_summary.details for error in detail.errors]
        errors = "; ".join(f"{'.'.join(map(str, error.loc))}: {error.msg[:MOST_SHOWN]}" for error in wrong[:3])
        raise EMError(f"the package does not meet the bioimage.io specification: {errors}")


def _zip(package: Path, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in FILES:
            archive.write(package / name, name)
