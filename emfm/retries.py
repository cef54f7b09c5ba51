"""Faults of a network that pass by themselves: the same request again, a moment later."""

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")
# Answers of a Hub that may be another one a moment later.
PASSING = (408, 429, 500, 502, 503, 504)
WAITS = (0.5, 2)  # seconds before each further try


def with_retries(request: Callable[[], Result]) -> Result:
    """Return what a request to the Hub returns; after a fault that may pass it is made again, twice at most.

    Args:
        request: may be made again; a download goes on where the last try broke off.

    Raises:
        Exception: that of the last try, or one that will not pass, as it comes.
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
