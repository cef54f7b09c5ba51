"""Pushing a model folder to the Hub: one commit with the files of the model and nothing else."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from emfm.errors import EMError
from emfm.hub.card import card_for_repo, plain_card
from emfm.hub.download import model_folder
from emfm.hub.model_files import PUBLISHED, TOLD, check_private, sha256
from emfm.hub.verify import verify, write_test_tensors
from emfm.modeling import EMPreTrainedModel
from emfm.tasks import load_model

CARD = "README.md"


@dataclass(frozen=True)
class PushArguments:
    """Where and how to push.

    Args:
        repo_id: `owner/name`, or a name alone for the token's own user.
        private: whether a new repository is private; None leaves it to the account's settings.
        branch: to push to, made where it is missing; "main" by default.
        tag: a name for this revision, such as "v1.0".
        create_pr: propose the change instead of making it.
        token: by default that of the environment or of `hf auth login`.
        message: of the commit.
    """

    repo_id: str
    private: bool | None = None
    branch: str | None = None
    tag: str | None = None
    create_pr: bool = False
    token: str | None = None
    message: str | None = None

    def __post_init__(self):
        if self.tag and self.create_pr:
            raise EMError("a proposed change has no revision to tag: give either --tag or --create-pr")


def push_model(model: EMPreTrainedModel, args: PushArguments) -> str:
    """Push a model as it is in memory, with card and test tensors; returns the commit's address.

    A model that was loaded and not changed keeps its card and figures. Of one that was changed nothing is known but its
    configuration, and its card says so.

    Raises:
        EMError: the model holds something private, or the Hub refuses.
    """
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model.save_pretrained(folder)
        write_test_tensors(load_model(folder), folder)
        origin = _origin(model, folder)
        told = [origin / name for name in TOLD if (origin / name).is_file()] if origin else []
        for file in told:
            shutil.copyfile(file, folder / file.name)
        if not (folder / CARD).is_file():
            (folder / CARD).write_text(plain_card(model.config, type(model).__name__), encoding="utf-8")
        return push_folder(folder, args)


def _origin(model: EMPreTrainedModel, saved: Path) -> Path | None:
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


def push_folder(folder: str | Path, args: PushArguments) -> str:
    """Push a model folder in one commit and return the commit's address.

    Its test output is recomputed first. Files of the repository that do not belong to this model are removed by the
    same commit, so that nothing of an older one stays behind.

    Raises:
        EMError: the folder is no whole model, holds something private, or the Hub refuses.
    """
    folder = Path(folder)
    model = load_model(folder)
    if not (folder / CARD).is_file():
        raise EMError(f"{folder} has no {CARD}: a model is pushed with its card, as finetune and pretrain write it")
    verify(model, folder)
    check_private(folder)
    return _commit(folder, args)


def _commit(folder: Path, args: PushArguments) -> str:
    api = HfApi(token=args.token)
    try:
        repo_id = api.create_repo(args.repo_id, private=args.private, exist_ok=True).repo_id
        if args.branch and args.branch != "main":
            api.create_branch(repo_id, branch=args.branch, exist_ok=True)
        commit = api.create_commit(
            repo_id=repo_id,
            operations=_operations(folder, repo_id, api.list_repo_files(repo_id, revision=args.branch)),
            revision=args.branch,
            commit_message=args.message or "Upload model",
            create_pr=args.create_pr,
        )
        if args.tag:
            api.create_tag(repo_id, tag=args.tag, revision=commit.oid)
    except Exception as error:  # the client's transport has errors of its own, which differ between its releases
        raise EMError(f"cannot push to {args.repo_id} ({type(error).__name__}): {error}") from error
    return commit.pr_url or commit.commit_url


def _operations(folder: Path, repo_id: str, there: list[str]) -> list[Any]:
    """Return what the commit does: every file of the model is added, and what else lies there is removed."""
    files = {name: folder / name for name in PUBLISHED if (folder / name).is_file()}
    additions = [CommitOperationAdd(name, path) for name, path in files.items() if name != CARD]
    card = card_for_repo(files[CARD].read_text(encoding="utf-8"), repo_id)
    additions.append(CommitOperationAdd(CARD, card.encode()))
    stale = [name for name in there if name not in files and name != ".gitattributes"]
    return [*additions, *(CommitOperationDelete(name) for name in stale)]
