"""Pictures for people: micrographs as 8-bit grey, class maps as colours over them."""

import numpy as np

from emfm.inference.predict import Prediction

# Okabe and Ito's colours, told apart by most colour-blind readers; orange stands out on grey.
COLOURS = np.array(
    [[230, 159, 0], [0, 114, 178], [0, 158, 115], [204, 121, 167], [86, 180, 233], [213, 94, 0], [240, 228, 66]],
    dtype=np.float32,
)


def to_display(image: np.ndarray) -> np.ndarray:
    """Return a micrograph as uint8, its 0.5th and 99.5th percentile black and white."""
    values = np.asarray(image, dtype=np.float32)
    low, high = np.percentile(values, [0.5, 99.5])
    if high <= low:
        return np.full(values.shape, 128, dtype=np.uint8)
    return (np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def class_colours(id2label: dict[int, str]) -> dict[int, np.ndarray]:
    """Return an RGB colour (0 to 255) for each class but the one named "background"."""
    shown = [index for index, label in sorted(id2label.items()) if label.lower() != "background"]
    return {index: COLOURS[i % len(COLOURS)] for i, index in enumerate(shown)}


def overlay(image: np.ndarray, classes: np.ndarray, id2label: dict[int, str], opacity: float = 0.4) -> np.ndarray:
    """Return the micrograph with its classes tinted and outlined.

    Args:
        image: (H, W) micrograph.
        classes: (H, W) class indices.
        id2label: names of the classes.
        opacity: of the tint, 0 to 1; outlines are solid.

    Returns:
        (H, W, 3) uint8.
    """
    picture = np.repeat(to_display(image)[..., None], 3, axis=2).astype(np.float32)
    edge = np.zeros(classes.shape, dtype=bool)
    edge[:-1] |= classes[:-1] != classes[1:]
    edge[:, :-1] |= classes[:, :-1] != classes[:, 1:]
    for index, colour in class_colours(id2label).items():
        region = classes == index
        picture[region] += opacity * (colour - picture[region])
        picture[region & edge] = colour
    return picture.astype(np.uint8)


def picture_of(prediction: Prediction) -> np.ndarray:
    """Return a segmentation's overlay, or input and output of a restoration side by side on the input's grey scale."""
    if prediction.id2label is not None:
        return overlay(prediction.image, prediction.output, prediction.id2label)
    scale = prediction.output.shape[0] // prediction.image.shape[0]
    enlarged = prediction.image.repeat(scale, axis=0).repeat(scale, axis=1)
    return to_display(np.concatenate([enlarged, prediction.output], axis=1))
