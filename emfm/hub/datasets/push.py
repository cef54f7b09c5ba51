"""Pushing a folder of micrographs as a dataset: parquet files, classes of the masks, a card."""

import logging
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

from tqdm.auto import tqdm

from emfm.data.sources import is_dataset
from emfm.errors import EMError
from emfm.hub.commit import PushArguments, check_login, commit_files
from emfm.hub.datasets.card import DatasetCard
from emfm.hub.datasets.image_folder import ImageFolder, open_image_folder
from emfm.hub.datasets.parquet_folder import (
    check_splits,
    describe_parquet_folder,
    open_prepared_folder,
    write_parquet_folder,
)
from emfm.hub.privacy import private_content

logger = logging.getLogger(__name__)
# How the Hub writes licences; it checks the name itself.
LICENSE = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")
LICENSES = "cc0-1.0, cc-by-4.0, cc-by-sa-4.0, cc-by-nc-4.0, mit, apache-2.0, other; unknown if none"
# Truth of a folder: the Hub's name of the task, and the card's summary unless one is given.
KINDS = {
    "masks": ("image-segmentation", "Electron micrographs with masks for segmentation."),
    "targets": ("image-to-image", "Electron micrographs with target images for restoration."),
    None: ("image-feature-extraction", "Unlabelled electron micrographs."),
}
NOTES = """Files are unchanged where they were PNG, JPEG or TIFF of one channel; others, and those whose
metadata held a path, a token or a user's name, are encoded anew: the same values (float64 as
float32) as PNG or TIFF."""


def push_dataset(
    folder: str | Path,
    repo_id: str,
    license: str | None = None,
    citation: str | None = None,
    source: str | None = None,
    summary: str | None = None,
    **push: Any,
) -> str:
    """Push a folder of micrographs as a dataset in one commit; returns the commit's address.

    The rows are written to parquet files in a temporary folder first: after an error nothing has
    been pushed. The same commit replaces what the repository held before.

    Args:
        folder: with `images/` and `masks/` or `targets/`, `labels.json` and `splits.json`, as
            `load_em_dataset` takes it; or micrographs alone, of any format that is read; or a
            folder of parquet files with its card, as the scripts in `hub_scripts/` prepare it.
        repo_id: `owner/name`.
        license: the Hub's identifier, as "cc-by-4.0"; "unknown" where the source names none.
            Needed unless the folder has a card that says it.
        citation: one line or BibTeX. Needed unless the folder has a card.
        source: where the images are from, for the card.
        summary: what they show, for the card.
        **push: `private`, `branch`, `tag`, `create_pr`, `token`, `message` of `PushArguments`.

    Raises:
        EMError: licence or citation is missing, the folder is empty or its parts do not fit,
            something in it is private, or the Hub refuses.
    """
    folder, args = Path(folder), PushArguments(repo_id, **push)
    if _is_prepared(folder):
        files, _ = open_prepared_folder(folder, license, citation)
        return commit_files(files, args, "dataset")
    found, card = _opened(folder, repo_id, license, citation, source, summary)
    check_login(args)  # encoding may take hours
    with TemporaryDirectory(prefix="emfm-dataset-") as temporary:
        written = write_parquet_folder(Path(temporary) / "dataset", found.splits, found.row, card, found.labels)
        files, _ = open_prepared_folder(written, license)
        return commit_files(files, args, "dataset")


def describe_dataset(
    folder: str | Path, repo_id: str, license: str | None = None, citation: str | None = None, **push: Any
) -> str:
    """Check every image and its truth, and return as text what `push_dataset` would push."""
    folder = Path(folder)
    PushArguments(repo_id, **push)
    if _is_prepared(folder):
        files, rows = open_prepared_folder(folder, license, citation)
        return f"{rows:,} rows in {len(files)} files: {', '.join(files)}"
    found, _ = _opened(folder, repo_id, license, citation, None, None)
    for names in found.splits.values():
        for name in tqdm(names, desc="checking", unit="image", leave=False):
            found.row(name)
    return describe_parquet_folder(found.splits, found.row)


def _is_prepared(folder: Path) -> bool:
    return folder.is_dir() and is_dataset(str(folder))


def _opened(
    folder: Path, repo_id: str, license: str | None, citation: str | None, source: str | None, summary: str | None
) -> tuple[ImageFolder, DatasetCard]:
    """Open a folder of images and make its card; check all that needs no look at the pixels."""
    if not license or not LICENSE.fullmatch(license):
        given = f"the licence is '{license}'" if license else "the licence of the images is missing"
        raise EMError(f"{given}; expected the Hub's identifier with --license: {LICENSES}")
    if not citation or not citation.strip():
        raise EMError("the citation is missing; say with --citation whom users shall cite")
    found = open_image_folder(folder)
    check_splits(found.splits)
    _check_space(found)
    if unused := found.unused():
        logger.warning("%d images of %s are in no split of splits.json: left out", unused, folder)
    task, default_summary = KINDS[found.truth]
    card = DatasetCard(
        title=repo_id.rsplit("/", 1)[-1],
        summary=summary or default_summary,
        task=task,
        license=license,
        source=source or "The source is described by the citation below.",
        citation=citation,
        made_by=f"emfm push-dataset FOLDER {repo_id}",
        notes=NOTES,
    )
    names = [name for names in found.splits.values() for name in names]
    words = [source or "", summary or "", citation, *(found.labels or {}).values(), *names]
    if private := private_content("\n".join(words)):
        raise EMError(f"the card or a file name in {folder} holds {' and '.join(private)}: remove or rename it")
    return found, card


def _check_space(found: ImageFolder) -> None:
    size = sum((found.images / name).stat().st_size for names in found.splits.values() for name in names)
    free = shutil.disk_usage(gettempdir()).free
    if size > free:
        raise EMError(
            f"the images take {size / 1e9:.1f} GB, the temporary folder {gettempdir()} has "
            f"{free / 1e9:.1f} GB free: set TMPDIR to a folder on a larger disk"
        )
