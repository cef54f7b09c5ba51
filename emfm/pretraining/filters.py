"""What hand-made filters see in a micrograph: edges, ridges, blobs and local contrast at several scales.

Such responses are what random forests on pixels learn from (Arganda-Carreras et al. 2017, Trainable Weka Segmentation).
Here they are targets: a network that returns those of a clean micrograph from a damaged one has them ready for a task.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from emfm.data.degradations import gaussian_blur

SCALES = (1.0, 2.0, 4.0)  # standard deviations of the Gaussian, in pixels
RESPONSES = 5  # per scale
CHANNELS = RESPONSES * len(SCALES)
# Bring the responses of a typical micrograph to the size of its network values.
GAIN, CONTRAST_GAIN = 3.0, 2.0


def filter_responses(images: Tensor) -> Tensor:
    """Return the responses of images (B, 1, H, W) as (B, 15, H, W): five at each of three scales.

    Of the smoothed image: the gradient's length, the Hessian's larger and smaller eigenvalue, both made independent of
    the scale; the standard deviation of what the smoothing removed, in a neighbourhood of twice the scale; and the
    smoothed image itself.
    """
    found = []
    for scale in SCALES:
        smooth = gaussian_blur(images, images.new_full((len(images),), scale))
        down, right = _slope(smooth, -2), _slope(smooth, -1)
        gradient = (down.square() + right.square() + 1e-8).sqrt()
        vertical, horizontal, mixed = _slope(down, -2), _slope(right, -1), _slope(right, -2)
        middle = (vertical + horizontal) / 2
        half = ((vertical - horizontal).square() / 4 + mixed.square() + 1e-10).sqrt()
        removed = gaussian_blur((images - smooth).square(), images.new_full((len(images),), 2 * scale))
        found += [GAIN * scale * gradient, GAIN * scale**2 * (middle + half), GAIN * scale**2 * (middle - half)]
        found += [CONTRAST_GAIN * removed.clamp_min(1e-8).sqrt(), smooth]
    return torch.cat(found, dim=1)


def _slope(images: Tensor, axis: int) -> Tensor:
    """Return central differences along an axis (-2 or -1); edges are repeated."""
    padding = (1, 1, 0, 0) if axis == -1 else (0, 0, 1, 1)
    padded = F.pad(images, padding, mode="replicate")
    length = images.shape[axis]
    return (padded.narrow(axis, 2, length) - padded.narrow(axis, 0, length)) / 2
