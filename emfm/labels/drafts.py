"""`emfm labels draft`: predictions become drafts of labels, which count once they are reviewed."""

import filecmp
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm.auto import tqdm

from emfm.data.classes import IGNORE, read_labels
from emfm.data.json_files import find_json
from emfm.data.labelled_folder import open_labelled_folder
from emfm.data.splits import stem
from emfm.errors import EMError
from emfm.files import writable_folder, write_atomically, write_text
from emfm.inference.ensemble import ready_model
from emfm.inference.inputs import Input
from emfm.inference.predict import predict
from emfm.io.reading import FileChoice, open_stack, read_micrograph
from emfm.io.writing import write_image
from emfm.labels.paint import Classes
from emfm.labels.review import REVIEW, grey_type, read_review, write_splits
from emfm.modeling import EMPreTrainedModel


@dataclass(frozen=True)
class Drafted:
    """What drafting made."""

    folder: Path
    images: list[str]
    classes: tuple[str, ...]


def draft_labels(
    model: EMPreTrainedModel | str | Path,
    inputs: Sequence[str | Path | Input],
    output: str | Path,
    overwrite: bool = False,
) -> Drafted:
    """Predict micrographs into a labelled folder as drafts, of which nothing counts yet.

    `drafts/` holds what the model says, `masks/` "ignore" everywhere until `mark_reviewed` takes a
    region over, `review.json` which regions those are. In a folder that has been drafted before,
    masks and reviews stay as they are.

    Args:
        model: for segmentation: a model, or the name or folder of one.
        inputs: micrographs, single images.
        output: the folder; made if needed.
        overwrite: replace drafts that are there, corrected or not.

    Raises:
        EMError: the model is for something else or has other classes than the folder, an image
            cannot be read, or a draft is there.
    """
    output = writable_folder(output)
    if not inputs:
        raise EMError("no micrograph was given")
    model = ready_model(model)
    if model.classes is None:
        raise EMError(
            f"drafts need a model for segmentation; {model.name_or_path or 'this one'} is a {type(model).__name__}"
        )
    classes = Classes(tuple(model.classes.values()))
    labels = _labels(output, classes)
    review = read_review(output) if (output / REVIEW).is_file() else {}
    names = _names(inputs, output)
    if there := [name for name in names if (output / "drafts" / _mask_name(name)).exists() and not overwrite]:
        raise EMError(
            f"{output / 'drafts' / _mask_name(there[0])} is there: --overwrite replaces drafts, not what is reviewed"
        )
    _keep_splits(output)
    write_text(output / "labels.json", json.dumps({str(value): name for value, name in labels.items()}, indent=1))
    for name, given in tqdm(names.items(), unit="image", disable=len(names) == 1, leave=False):
        _draft_one(model, given, output, name, labels)
        review.setdefault(name, {"reviewed": []})["model"] = str(model.name_or_path)
        write_text(output / REVIEW, json.dumps(review, indent=1, ensure_ascii=False))
        write_splits(output, review)
    return Drafted(output, list(names), classes.names)


def _labels(output: Path, classes: Classes) -> dict[int, str]:
    """Return grey values with their names: those of the folder, where it has any, and "ignore".

    Raises:
        EMError: the folder lacks a class of the model.
    """
    path = find_json(output, "labels.json") if output.is_dir() else None
    if path is None:
        return {int(value): name for value, name in classes.labels(ignored=True).items()}
    labels = dict(read_labels(path).names)
    if missing := set(classes.names) - set(labels.values()):
        known = ", ".join(dict.fromkeys(labels.values()))
        raise EMError(
            f"{path} has no class {', '.join(sorted(missing))} of the model; it has {known}: use another --output"
        )
    if not any(name.casefold() == IGNORE for name in labels.values()):
        labels[next(value for value in range(255, -1, -1) if value not in labels)] = IGNORE
    return labels


def _keep_splits(output: Path) -> None:
    """Write down which images train and test, where only their folders said it so far."""
    if (output / "images").is_dir() and find_json(output, "splits.json") is None:
        splits = open_labelled_folder(output, None).splits
        write_text(output / "splits.json", json.dumps(splits, indent=1, ensure_ascii=False))


def _names(inputs: Sequence[str | Path | Input], output: Path) -> dict[str, Input]:
    """Return the name in `images/` of each input.

    Raises:
        EMError: two would have one, or one has the name of another image that is there.
    """
    names: dict[str, Input] = {}
    masks: dict[str, str] = {}
    images = output / "images"
    for given in map(Input.of, inputs):
        inside = given.file.resolve().is_relative_to(images.resolve())
        path = given.file.resolve().relative_to(images.resolve()) if inside else given.below / given.file.name
        name = path.as_posix()
        other = masks.setdefault(_mask_name(name).casefold(), name)
        if name in names or other != name:
            raise EMError(
                f"{given} and {names[other]} would have one mask, {_mask_name(name)}: give them folders of their own"
            )
        if not inside and (images / name).exists() and not _same(given.file, images / name):
            raise EMError(f"{images / name} is another image than {given}: choose another --output, or rename it")
        if len(open_stack(given.file, FileChoice(given.dataset))) > 1:
            raise EMError(f"{given} is a stack; drafts are of single images: save each slice as its own file")
        names[name] = given
    return names


def _same(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False)


def _mask_name(name: str) -> str:
    return PurePosixPath(name).with_suffix(".png").as_posix()


def _draft_one(model: EMPreTrainedModel, given: Input, output: Path, name: str, labels: dict[int, str]) -> None:
    """Write the image, its draft, and a mask that says nothing, where these are not there yet."""
    result = predict(model, read_micrograph(given.file, dataset=given.dataset)).output
    ignore = next(value for value, label in labels.items() if label.casefold() == IGNORE)
    draft: np.ndarray = np.full(result.shape, ignore, dtype=grey_type(labels))  # where there are no data
    for index, label in (model.classes or {}).items():
        draft[result == index] = min(value for value, known in labels.items() if known == label)
    image = output / "images" / name
    if not image.exists():
        image.parent.mkdir(parents=True, exist_ok=True)
        if given.file.is_dir():  # Zarr
            shutil.copytree(given.file, image)
        else:
            write_atomically(image, lambda temporary: shutil.copyfile(given.file, temporary))
    write_image(output / "drafts" / _mask_name(name), draft)
    if not _has_mask(output, name):
        write_image(output / "masks" / _mask_name(name), np.full_like(draft, ignore))


def _has_mask(output: Path, name: str) -> bool:
    """Tell whether an image has a mask, of any suffix."""
    folder = (output / "masks" / name).parent
    wanted = stem(PurePosixPath(name).name)
    return folder.is_dir() and any(stem(path.name) == wanted for path in folder.iterdir())
