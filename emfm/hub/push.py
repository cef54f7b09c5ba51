"""Pushing a model folder to the Hub: one commit with the files of the model and nothing else."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import PreTrainedModel

from emfm.errors import EMError
from emfm.files import sha256
from emfm.hub.card import plain_card
from emfm.hub.commit import PushArguments, commit_files
from emfm.hub.privacy import check_private
from emfm.hub.verify import verify, write_test_tensors
from emfm.loading.model_files import PUBLISHED, TOLD
from emfm.loading.names import model_folder

CARD = "README.md"


def push_model(model: PreTrainedModel, args: PushArguments) -> str:
    """Push a model as it is in memory, with card and test tensors; returns the commit's address.

    A model that was loaded and not changed keeps its card and figures. The card of a changed model
    says that nothing but its configuration is known.

    Raises:
        EMError: the model holds something private, or the Hub refuses.
    """
    with TemporaryDirectory(ignore_cleanup_errors=True) as temporary:  # Windows keeps mapped files
        folder = Path(temporary)
        model.save_pretrained(folder)
        saved = type(model).from_pretrained(folder)
        write_test_tensors(saved, folder)
        origin = _origin(model, folder)
        for name in TOLD:
            if origin and (origin / name).is_file():
                shutil.copyfile(origin / name, folder / name)
        if not (folder / CARD).is_file():
            (folder / CARD).write_text(plain_card(model.config.generator, type(model).__name__), encoding="utf-8")
        return push_folder(saved, folder, args)


def _origin(model: PreTrainedModel, saved: Path) -> Path | None:
    """Return the folder from which a model was loaded, where its weights are still the same."""
    if not model.name_or_path:
        return None
    try:
        place = model_folder(model.name_or_path, local_files_only=True)
    except EMError:  # a folder that is gone, or another revision than the one in the cache
        return None
    weights = place / "model.safetensors"
    same = weights.is_file() and sha256(weights) == sha256(saved / "model.safetensors")
    return place if same else None


def push_folder(model: PreTrainedModel, folder: str | Path, args: PushArguments) -> str:
    """Verify a model's folder and push it in one commit; returns the commit's address.

    Raises:
        EMError: the folder is no whole model, holds something private, or the Hub refuses.
    """
    folder = Path(folder)
    if not (folder / CARD).is_file():
        raise EMError(
            f"{folder} has no {CARD}: a model is pushed with its card, which finetune, pretrain and push_to_hub write"
        )
    verify(model, folder)
    check_private(folder)
    return commit_files({name: folder / name for name in PUBLISHED if (folder / name).is_file()}, args)
