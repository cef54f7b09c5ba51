"""One commit to a repository of the Hub: all of the files that it shall hold, and nothing of what it held before."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, RepoCard
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
from tqdm.auto import tqdm

from emfm.errors import EMError
from emfm.hub.arguments import PushArguments

# Files that are uploaded at the same time.
TOGETHER = 5
REFUSED = (401, 403)
LOGIN = " Log in with `hf auth login` or set HF_TOKEN, and check that the token may write there."


def commit_files(files: Mapping[str, Path | bytes], args: PushArguments, repo_type: str = "model") -> str:
    """Push files in one commit and return its address, or that of the proposed change.

    Files of the repository that are not among these are removed by the same commit, so that nothing of an older
    version stays behind. Large files are uploaded first; nobody sees them before the commit.

    Args:
        files: path in the repository: file, or its content.
        args: where and how.
        repo_type: "model" or "dataset".

    Raises:
        EMError: the Hub refuses or does not answer; the repository is then as it was, or new and empty.
    """
    api = HfApi(token=args.token)
    additions = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=content) for path, content in files.items()]
    where = {"repo_type": repo_type, "revision": args.branch}
    with _explained(args):
        repo_id = api.create_repo(args.repo_id, repo_type=repo_type, private=args.private, exist_ok=True).repo_id
        if args.branch and args.branch != "main":
            api.create_branch(repo_id, repo_type=repo_type, branch=args.branch, exist_ok=True)
        _check_card(files.get("README.md"), repo_type)
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
    with _explained(args):
        HfApi(token=args.token).whoami()


@contextmanager
def _explained(args: PushArguments) -> Iterator[None]:
    """Turn what the client raises into an error that says how to go on."""
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise EMError(f"cannot push to {args.repo_id} without a token.{LOGIN}") from error
    # a card that the Hub does not take is a ValueError, a large file that does not arrive a RuntimeError, and the
    # client's transport has errors of its own, which differ between its releases
    except Exception as error:
        refused = isinstance(error, HfHubHTTPError) and error.response.status_code in REFUSED
        why = f"{error} ({error.__cause__})" if isinstance(error, RuntimeError) and error.__cause__ else str(error)
        raise EMError(f"cannot push to {args.repo_id}: {why}{LOGIN if refused else ''}") from error


def _check_card(card: Path | bytes | None, repo_type: str) -> None:
    """Ask the Hub whether it takes the card's header, before anything large is uploaded."""
    if card is not None:
        text = card.decode() if isinstance(card, bytes) else card.read_text(encoding="utf-8")
        RepoCard(text).validate(repo_type=repo_type)
