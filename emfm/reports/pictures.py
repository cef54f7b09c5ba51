"""Pictures for people: micrographs as 8-bit grey, classes in colour, a legend and a scale bar."""

from math import floor, log10

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from emfm.class_names import is_background
from emfm.io.large_images import release_pages, thinned
from emfm.reports.prediction import Prediction

# Okabe and Ito's colours, told apart by most colour-blind readers; orange stands out on grey.
COLOURS = np.array(
    [[230, 159, 0], [0, 114, 178], [0, 158, 115], [204, 121, 167], [86, 180, 233], [213, 94, 0], [240, 228, 66]],
    dtype=np.float32,
)
UNSURE = np.array([213, 94, 0], dtype=np.float32)  # the colour of what is not sure
LARGEST_SIDE = 2048  # in pixels; larger micrographs are shown smaller, by a whole factor
BAND_PIXELS = 2**22  # of a micrograph, read at a time
GAP = 8  # pixels between two pictures side by side
# Texts, each with the RGB colour (0 to 255) that it explains, or None.
Legend = list[tuple[str, np.ndarray | None]]


def to_display(image: np.ndarray) -> np.ndarray:
    """Return a micrograph as uint8, its 0.5th and 99.5th percentile black and white."""
    values = np.asarray(image, dtype=np.float32)
    return to_grey(values, *limits_of(values))


def limits_of(values: np.ndarray) -> tuple[float, float]:
    """Return the values that are shown black and white; pixels without data take no part."""
    known = values[~np.isnan(values)]
    if not len(known):
        return 0.0, 0.0
    low, high = np.percentile(known, [0.5, 99.5])
    return float(low), float(high)


def to_grey(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return values as uint8, `low` black and `high` white."""
    if high <= low:
        return np.full(values.shape, 128, dtype=np.uint8)
    shown = np.clip((values - low) / (high - low), 0, 1) * 255
    return np.nan_to_num(shown, nan=0.0).astype(np.uint8)  # no data are black


def class_colours(id2label: dict[int, str]) -> dict[int, np.ndarray]:
    """Return an RGB colour (0 to 255) for each class but the one named "background"."""
    shown = [index for index, label in sorted(id2label.items()) if not is_background(label)]
    return {index: COLOURS[i % len(COLOURS)] for i, index in enumerate(shown)}


def overlay(image: np.ndarray, classes: np.ndarray, id2label: dict[int, str], opacity: float = 0.4) -> np.ndarray:
    """Return the micrograph (H, W) with its classes (H, W) tinted and outlined, as (H, W, 3) uint8.

    The opacity, 0 to 1, is that of the tint; outlines are solid.
    """
    grey = to_display(image)
    picture = as_rgb(grey)
    edge = np.zeros(classes.shape, dtype=bool)
    edge[:-1] |= classes[:-1] != classes[1:]
    edge[:, :-1] |= classes[:, :-1] != classes[:, 1:]
    greys = np.arange(256, dtype=np.float32)[:, None]
    for index, colour in class_colours(id2label).items():
        region = classes == index
        # (256, 3): what each grey becomes
        tint = (greys + opacity * (colour - greys)).astype(np.uint8)
        picture[region] = tint[grey[region]]
        picture[region & edge] = colour
    return picture


def unsure(prediction: Prediction) -> tuple[np.ndarray, Legend]:
    """Return the micrograph tinted where its prediction is unsure (H, W, 3) uint8, and a legend.

    Classes and objects are unsure from 0 to 1, restored values up to the 99.5th percentile.
    """
    doubt = np.asarray(shrink(np.asarray(prediction.uncertainty), reduction(prediction)), dtype=np.float32)
    known = doubt[np.isfinite(doubt)]
    in_units = prediction.output.dtype.kind == "f" or (prediction.id2label is None and known.max(initial=0) > 1)
    top = max(float(np.percentile(known, 99.5)), 1e-12) if in_units and len(known) else 1.0
    share = np.clip(np.nan_to_num(doubt / top), 0, 1)[..., None]
    grey = as_rgb(to_display(shown_input(prediction))).astype(np.float32)
    picture = (grey + share * (UNSURE - grey)).astype(np.uint8)
    return picture, [("grey: sure", None), (f"unsure: {top:.3g}", UNSURE)]


def as_rgb(grey: np.ndarray) -> np.ndarray:
    """Return a grey picture (H, W) in three channels."""
    return np.repeat(grey[..., None], 3, axis=2)


def shrink(image: np.ndarray, factor: int, means: bool = True) -> np.ndarray:
    """Return an image (H, W) reduced by a whole factor; memory-mapped ones are read in bands.

    Blocks of `factor` pixels a side become one pixel: their mean (float32) for intensities, or
    else, for class indices, their first pixel.
    """
    if factor == 1:
        return np.asarray(image)
    if not means:
        return thinned(image, factor)
    step = factor * max(1, BAND_PIXELS // (image.shape[1] * factor))
    starts = np.arange(0, image.shape[1], factor)
    widths = np.diff([*starts, image.shape[1]])
    bands = []
    for top in range(0, image.shape[0], step):
        band = np.add.reduceat(np.asarray(image[top : top + step], dtype=np.float64), starts, axis=1)
        lines = np.arange(0, len(band), factor)
        heights = np.diff([*lines, len(band)])
        bands.append(np.add.reduceat(band, lines, axis=0) / (heights[:, None] * widths))
        release_pages(image)
    return np.concatenate(bands).astype(np.float32)


def reduction(prediction: Prediction) -> int:
    """Return the factor that makes a picture of an output at most `LARGEST_SIDE` pixels a side."""
    scale = prediction.output.shape[0] // prediction.image.shape[0]
    factor = -(-max(prediction.output.shape) // LARGEST_SIDE)
    # so that the input's own factor is a whole one
    return 1 if factor == 1 else -(-factor // scale) * scale


def shown_input(prediction: Prediction) -> np.ndarray:
    """Return the micrograph (H, W) at the size of the reduced output."""
    scale = prediction.output.shape[0] // prediction.image.shape[0]
    factor = reduction(prediction)
    image = shrink(prediction.image, max(1, factor // scale))
    if factor == 1 and scale > 1:
        image = image.repeat(scale, axis=0).repeat(scale, axis=1)
    return image


def bar_length(nanometres: float) -> tuple[float, str]:
    """Return the longest 1, 2 or 5 times a power of ten within a length in nm, and its text."""
    power = 10.0 ** floor(log10(nanometres) + 1e-9)
    length = power * max(step for step in (1, 2, 5) if step * power <= nanometres * (1 + 1e-9))
    return length, f"{length / 1000:g} µm" if length >= 1000 else f"{length:g} nm"


def beside(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return two pictures (H, W, 3) of one size side by side."""
    gap = np.full((len(before), GAP, 3), 255, dtype=np.uint8)
    return np.concatenate([before, gap, after], axis=1)


def captioned(picture: np.ndarray, legend: Legend, prediction: Prediction) -> np.ndarray:
    """Put a legend, and a scale bar if the pixel size is known, below a picture (H, W, 3) uint8.

    The picture shows the prediction, reduced as `reduction` says.
    """
    size = int(np.clip(picture.shape[1] / 45, 13, 64))
    font = ImageFont.load_default(size)
    widths = [font.getlength(text) + (2.5 if colour is not None else 1) * size for text, colour in legend]
    bar, written, needed = 0, "", sum(widths) + size
    if prediction.pixel_size is not None:
        factor = reduction(prediction)
        shown = prediction.pixel_size * factor  # nm per pixel of the picture
        length, written = bar_length(shown * prediction.output.shape[1] / factor / 5)
        bar = max(1, round(length / shown))
        needed += bar + 2 * size + font.getlength(written)
    canvas = Image.new("RGB", (max(picture.shape[1], int(needed)), picture.shape[0] + 2 * size), "white")
    canvas.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(canvas)
    x, middle = size / 2, picture.shape[0] + size
    for (text, colour), width in zip(legend, widths, strict=True):
        indent = 0.0
        if colour is not None:
            draw.rectangle((x, middle - size / 2, x + size, middle + size / 2), fill=tuple(int(c) for c in colour))
            indent = 1.5 * size
        draw.text((x + indent, middle), text, fill="black", font=font, anchor="lm")
        x += width
    if bar:
        right = canvas.width - size
        draw.rectangle((right - bar, middle - size / 6, right, middle + size / 6), fill="black")
        draw.text((right - bar - size / 2, middle), written, fill="black", font=font, anchor="rm")
    return np.asarray(canvas)
