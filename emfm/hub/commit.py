"""One commit to a repository of the Hub: all of the files that it shall hold, and nothing of what it held before."""

from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from emfm.hub.arguments import PushArguments
from emfm.hub.card import card_for_repo
from emfm.retries import push_errors


def commit_files(files: Mapping[str, Path], args: PushArguments, repo_type: str = "model") -> str:
    """Push files in one commit and return its address, or that of the proposed change.

    The same commit removes all other files of the repository, so that nothing of an older version
    stays behind. The Hub checks the card first, then large files are uploaded; nobody sees them
    before the commit.

    Args:
        files: path in the repository: file. The example in README.md is changed to load from the repository.
        args: where and how.
        repo_type: "model" or "dataset".

    Raises:
        EMError: the Hub refuses or does not answer; the repository is then as it was, or new and empty.
    """
    api = HfApi(token=args.token)
    with push_errors(args.repo_id):
        repo_id = api.create_repo(args.repo_id, repo_type=repo_type, private=args.private, exist_ok=True).repo_id
        if args.branch and args.branch != "main":
            api.create_branch(repo_id, repo_type=repo_type, branch=args.branch, exist_ok=True)
        card = card_for_repo(files["README.md"].read_text(encoding="utf-8"), repo_id)
        contents: dict[str, Path | bytes] = {**files, "README.md": card.encode()}
        additions = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=file) for path, file in contents.items()]
        there = set(api.list_repo_files(repo_id, repo_type=repo_type, revision=args.branch))
        old = sorted(there - files.keys() - {".gitattributes"})
        commit = api.create_commit(
            repo_id,
            [*additions, *(CommitOperationDelete(path_in_repo=path) for path in old)],
            repo_type=repo_type,
            revision=args.branch,
            commit_message=args.message or f"Upload {repo_type}",
            create_pr=args.create_pr,
        )
        if args.tag:
            api.create_tag(repo_id, repo_type=repo_type, tag=args.tag, revision=commit.oid)
    return commit.pr_url or commit.commit_url


def check_login(args: PushArguments) -> None:
    """Raise an EMError, before work that would be lost, where the Hub does not know the token."""
    with push_errors(args.repo_id):
        HfApi(token=args.token).whoami()
