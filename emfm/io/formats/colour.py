"""From colour to the one channel of a micrograph: by a named rule, or not at all."""

import numpy as np

from emfm.errors import EMError

# Shares of red, green and blue in the grey value. "luminance" is that of ITU-R BT.601, which Pillow's mode L has too.
RULES = {
    "luminance": (0.299, 0.587, 0.114),
    "mean": (1 / 3, 1 / 3, 1 / 3),
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
}


def one_channel(values: np.ndarray, colour: str | None, name: str) -> np.ndarray:
    """Return the grey values of red, green, blue and perhaps alpha, which is ignored.

    Equal channels are grey already; what differs is converted by the rule, in the image's own dtype.

    Args:
        values: (H, W, 3 or 4).
        colour: a name in RULES, or None to refuse.
        name: of the file, for the error.

    Raises:
        EMError: the channels differ, and there is no rule.
    """
    if (values[..., :1] == values[..., 1:3]).all():
        return np.ascontiguousarray(values[..., 0])
    if colour is None:
        raise EMError(
            f"{name}: a colour image; a micrograph has one channel: convert it to greyscale first, or name a rule, "
            "for example colour='luminance'"
        )
    grey = values[..., :3] @ np.array(RULES[colour])
    if values.dtype.kind == "b":
        return grey >= 0.5
    return (np.rint(grey) if values.dtype.kind in "iu" else grey).astype(values.dtype)
