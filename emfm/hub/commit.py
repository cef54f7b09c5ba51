"""One commit to a repository of the Hub: all of the files that it shall hold, and nothing of what it held before."""

from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, RepoCard
from tqdm.auto import tqdm

from emfm.hub.arguments import PushArguments
from emfm.hub.card import card_for_repo
from emfm.retries import push_errors

# Files that are uploaded at the same time.
TOGETHER = 5


def commit_files(files: Mapping[str, Path], args: PushArguments, repo_type: str = "model") -> str:
    """Push files in one commit and return its address, or that of the proposed change.

    Files of the repository that are not among these are removed by the same commit, so that nothing of an older
    version stays behind. Large files are uploaded first; nobody sees them before the commit.

    Args:
        files: path in the repository: file. The example in README.md is changed to load from the repository.
        args: where and how.
        repo_type: "model" or "dataset".

    Raises:
        EMError: the Hub refuses or does not answer; the repository is then as it was, or new and empty.
    """
    api = HfApi(token=args.token)
    where = {"repo_type": repo_type, "revision": args.branch}
    with push_errors(args.repo_id):
        repo_id = api.create_repo(args.repo_id, repo_type=repo_type, private=args.private, exist_ok=True).repo_id
        if args.branch and args.branch != "main":
            api.create_branch(repo_id, repo_type=repo_type, branch=args.branch, exist_ok=True)
        card = card_for_repo(files["README.md"].read_text(encoding="utf-8"), repo_id)
        RepoCard(card).validate(repo_type=repo_type)  # before anything large is uploaded
        contents: dict[str, Path | bytes] = {**files, "README.md": card.encode()}
        additions = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=file) for path, file in contents.items()]
        old = set(api.list_repo_files(repo_id, **where)) - files.keys() - {".gitattributes"}
        with tqdm(total=len(additions), desc="uploading", unit="file", leave=False) as bar:
            for start in range(0, len(additions), TOGETHER):
                some = additions[start : start + TOGETHER]
                api.preupload_lfs_files(
                    repo_id, some, **where, create_pr=args.create_pr, num_threads=TOGETHER, free_memory=False
                )
                bar.update(len(some))
        commit = api.create_commit(
            repo_id,
            [*additions, *(CommitOperationDelete(path_in_repo=path) for path in sorted(old))],
            repo_type=repo_type,
            revision=args.branch,
            commit_message=args.message or f"Upload {repo_type}",
            create_pr=args.create_pr,
        )
        if args.tag:
            api.create_tag(repo_id, repo_type=repo_type, tag=args.tag, revision=commit.oid)
    return commit.pr_url or commit.commit_url


def check_login(args: PushArguments) -> None:
    """Ask the Hub who the token belongs to, before work that would be lost without one.

    Raises:
        EMError: there is no token, or the Hub does not know it.
    """
    with push_errors(args.repo_id):
        HfApi(token=args.token).whoami()
