"""Rules for masks: a pixel is a number. Colours are none, indices of a palette are."""

import numpy as np

from emfm.errors import EMError

# More colours than a person paints: a photograph, an overlay, or edges that were smoothed.
FLAT_COLOURS = 32
SHOWN = 6  # colours that a message lists


def one_value(samples: np.ndarray, name: str) -> np.ndarray:
    """Return the values (H, W) of a mask that was saved with two to four numbers a pixel.

    Args:
        samples: (H, W, 2 to 4): grey and alpha, or red, green, blue and perhaps alpha.
        name: of the file, for errors.

    Raises:
        EMError: red, green and blue differ, or pixels are transparent.
    """
    if samples.shape[-1] in (2, 4):
        alpha = samples[..., -1]
        most = np.iinfo(alpha.dtype).max if alpha.dtype.kind in "iu" else alpha.max()
        if share := float((alpha != most).mean()):
            raise EMError(
                f"{name}: {share:.1%} of the pixels of this mask are transparent, so they have no value: "
                "flatten it, and save it as grey without alpha"
            )
        samples = samples[..., :-1]
    if (samples[..., :1] == samples[..., 1:]).all():
        return np.ascontiguousarray(samples[..., 0])
    colours, counts = np.unique(samples.reshape(-1, 3), axis=0, return_counts=True)
    if len(colours) > FLAT_COLOURS:
        raise EMError(
            f"{name}: a picture of {len(colours):,} colours, not a mask: a mask holds one number for "
            "each class; save it without smoothing, JPEG or overlay, as grey or palette (indexed) PNG"
        )
    order = np.argsort(-counts)[:SHOWN]
    listed = [f"({', '.join(map(str, colours[i].tolist()))}) {counts[i] / counts.sum():.1%}" for i in order]
    more = f" and {len(colours) - SHOWN} more" if len(colours) > SHOWN else ""
    raise EMError(
        f"{name}: a mask in {len(colours)} colours: {', '.join(listed)}{more}; a mask holds one number for "
        "each class: save it as palette (indexed) PNG, whose indices are the numbers, or as grey"
    )


def is_grey(palette: np.ndarray) -> bool:
    """Tell whether a palette (N, 3) holds shades of grey alone."""
    return bool((palette[:, :1] == palette[:, 1:]).all())
