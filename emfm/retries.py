"""Requests to the Hub: made again after a fault that passes by itself, and other faults told in one line."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from emfm.errors import EMError

Result = TypeVar("Result")
# Answers of a Hub that may be another one a moment later.
PASSING = (408, 429, 500, 502, 503, 504)
WAITS = (0.5, 2)  # seconds before each further try
REFUSED = (401, 403)
LOGIN = " Log in with `hf auth login` or set HF_TOKEN, and check that the token may write there."


def with_retries(request: Callable[[], Result]) -> Result:
    """Return what a request to the Hub returns; after a fault that may pass it is made again, twice at most.

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
    """Tell whether the same request may succeed a moment later; what the disk or the cache refuses will not."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if isinstance(error, LocalEntryNotFoundError):  # not in the cache, for a reason
        return _may_pass(error.__cause__)
    if isinstance(error, HfHubHTTPError):
        return error.response is not None and error.response.status_code in PASSING
    transport = HfHubHTTPError.__bases__[0]  # that of the HTTP library, which differs between releases of the client
    return isinstance(error, transport) or "Consistency check failed" in str(error)  # a body that was cut short


@contextmanager
def download_errors(repo_id: str, revision: str | None) -> Iterator[None]:
    """Turn what the Hub's client raises in a download into an error that says how to go on."""
    from huggingface_hub import errors

    try:
        yield
    except Exception as error:  # the client's transport has errors of its own, which differ between its releases
        why = f"cannot download {repo_id}: {error}"
        if isinstance(error, errors.GatedRepoError):
            why = f"{repo_id} is gated: ask for access on its page, then log in with `hf auth login` or give a token"
        elif isinstance(error, errors.RepositoryNotFoundError):
            why = f"there is no repository {repo_id} on the Hub, or it is private: check the name, or give a token"
        elif isinstance(error, errors.RevisionNotFoundError):
            why = f"{repo_id} has no revision '{revision}': give a branch, tag or commit that it has"
        elif isinstance(error, errors.LocalEntryNotFoundError):
            cause = f" ({error.__cause__})" if error.__cause__ else ""
            why = f"{repo_id} is not in the cache, and the Hub did not answer{cause}: try again with a connection"
        raise EMError(why) from error


@contextmanager
def push_errors(repo_id: str) -> Iterator[None]:
    """Turn what the Hub's client raises in a push into an error that says how to go on.

    A card that the Hub does not take is a ValueError, a large file that does not arrive a RuntimeError.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    try:
        yield
    except LocalTokenNotFoundError as error:
        raise EMError(f"cannot push to {repo_id} without a token.{LOGIN}") from error
    except Exception as error:
        refused = isinstance(error, HfHubHTTPError) and error.response.status_code in REFUSED
        cause = f" ({error.__cause__})" if isinstance(error, RuntimeError) and error.__cause__ else ""
        raise EMError(f"cannot push to {repo_id}: {error}{cause}{LOGIN if refused else ''}") from error
