"""Requests to the Hub: repeated after a fault that passes; other faults told in one line."""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from emfm.errors import EMError
from emfm.files import reason_of

Result = TypeVar("Result")
# Answers of a Hub that may be another one a moment later.
PASSING = (408, 429, 500, 502, 503, 504)
WAITS = (0.5, 2)  # seconds before each further try
REFUSED = (401, 403)
TOKEN = re.compile(r"\bhf_\w+")
SIGNATURE = re.compile(r"\?\S*\b(?:[Ss]ignature|[Tt]oken|X-Amz-\w+)=[^\s'\"]*")  # of an address, as good as a token
LOGIN = " Log in with `hf auth login` or set HF_TOKEN, and check that the token may write there."


def with_retries(request: Callable[[], Result]) -> Result:
    """Return what a request to the Hub returns; repeated, twice at most, if a fault may pass.

    A download goes on where the last try broke off. A fault that stays is raised as it comes.
    """
    for wait in WAITS:
        try:
            return request()
        except Exception as error:
            if not _may_pass(error):
                raise
        time.sleep(wait)
    return request()


def _may_pass(error: BaseException | None) -> bool:
    """Tell whether the same request may succeed later; what disk or cache refuses will not."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if isinstance(error, LocalEntryNotFoundError):  # not in the cache, for a reason
        return _may_pass(error.__cause__)
    if isinstance(error, HfHubHTTPError):
        return error.response is not None and error.response.status_code in PASSING
    transport = HfHubHTTPError.__bases__[0]  # the HTTP library's, which differs between releases
    return isinstance(error, transport) or "Consistency check failed" in str(error)  # cut short


@contextmanager
def download_errors(repo_id: str, revision: str | None) -> Iterator[None]:
    """Turn what the Hub's client raises in a download into an error that says how to go on."""
    from huggingface_hub import errors

    try:
        yield
    except Exception as error:  # the client's transport has its own, which differ between releases
        why = f"cannot download {repo_id}: {_told(error)}"
        if isinstance(error, errors.GatedRepoError):
            why = f"{repo_id} is gated: ask for access on its page, then log in with `hf auth login` or give a token"
        elif isinstance(error, errors.RepositoryNotFoundError):
            why = f"there is no repository {repo_id} on the Hub, or it is private: check the name, or give a token"
        elif isinstance(error, errors.RevisionNotFoundError):
            why = f"{repo_id} has no revision '{revision}': give a branch, tag or commit that it has"
        elif isinstance(error, errors.LocalEntryNotFoundError):
            cause = f" ({_told(error.__cause__)})" if error.__cause__ else ""
            why = f"{repo_id} is not in the cache, and the Hub did not answer{cause}: try again with a connection"
        raise EMError(why) from error


@contextmanager
def push_errors(repo_id: str) -> Iterator[None]:
    """Turn what the Hub's client raises in a push into an error that says how to go on.

    A card that the Hub refuses is a ValueError, a large file that does not arrive a RuntimeError.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    try:
        yield
    except LocalTokenNotFoundError as error:
        raise EMError(f"cannot push to {repo_id} without a token.{LOGIN}") from error
    except Exception as error:
        refused = isinstance(error, HfHubHTTPError) and error.response.status_code in REFUSED
        cause = f" ({_told(error.__cause__)})" if isinstance(error, RuntimeError) and error.__cause__ else ""
        raise EMError(f"cannot push to {repo_id}: {_told(error)}{cause}{LOGIN if refused else ''}") from error


def _told(error: BaseException) -> str:
    """Return an error's text without tokens, and of the disk's errors the reason in plain words."""
    if isinstance(error, OSError) and error.errno and error.filename:
        return f"{error.filename}: {reason_of(error)}"
    text = TOKEN.sub("hf_...", SIGNATURE.sub("?...", str(error)))
    given = os.environ.get("HF_TOKEN", "")
    return text.replace(given, "...") if given else text
