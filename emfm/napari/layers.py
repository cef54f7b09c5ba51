"""What emfm and napari tell each other of a layer: pixels, their size, classes and colours."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from emfm.class_names import is_background
from emfm.errors import EMError
from emfm.io.formats.planes import nanometres, pixel_side
from emfm.io.large_images import LazyImage
from emfm.io.reading import Micrograph
from emfm.reports.pictures import class_colours

# Data, settings and kind of a layer, as napari's plugins hand it over.
LayerData = tuple[Any, dict[str, Any], str]
DATA_BAR = "emfm_data_bar"  # in a layer's metadata: rows at the bottom that are no micrograph
GREY = np.array([150, 150, 150])  # of strokes on the background, which has no colour of its own


def image_layer(
    data: Any, name: str, pixel_size: float | None, data_bar: int = 0, axis_labels: tuple[str, ...] = ()
) -> LayerData:
    """Return an image layer, with the pixel size as scale where it is known.

    Args:
        data: (..., H, W), or a list of ever smaller copies of an image.
        name: of the layer.
        pixel_size: in nm.
        data_bar: rows at the bottom that are no micrograph.
        axis_labels: one for each axis, or none.
    """
    settings: dict[str, Any] = {"name": name, "metadata": {DATA_BAR: data_bar}}
    if isinstance(data, list):
        settings["multiscale"] = True
    others = (data[0] if isinstance(data, list) else data).ndim - 2
    if axis_labels:
        settings["axis_labels"] = axis_labels
    if pixel_size is not None:
        settings["scale"] = (1.0,) * others + (pixel_size,) * 2
        settings["units"] = ("pixel",) * others + ("nm",) * 2
    return data, settings, "image"


def pixel_size_of(layer: Any) -> float | None:
    """Return the side of a layer's pixels in nm, None where its unit is no length."""
    sides = [nanometres(scale, unit) for scale, unit in zip(layer.scale[-2:], layer.units[-2:], strict=True)]
    return pixel_side(sides[1], sides[0], layer.name)


@dataclass(frozen=True)
class Source:
    """What of an image layer is used, and where its pixels lie.

    Attributes:
        layer: the layer; its data are read when they are asked for.
        places: of each slice that is used, its position along the axes before rows and columns.
        shape: lengths of these axes, among them the places lie.
    """

    layer: Any
    places: list[tuple[int, ...]]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, layer: Any, place: tuple[int, ...] | None) -> "Source":
        """Return one slice of a layer, at a place, or all its slices.

        Raises:
            EMError: there is no layer, or it is in colour.
        """
        if layer is None:
            raise EMError("there is no image layer: open a micrograph first")
        if layer.rgb:
            raise EMError(f"the layer '{layer.name}' is in colour; a micrograph has one channel: convert it to grey")
        shape = tuple(pixels_of(layer).shape[:-2])
        if place is None:
            return cls(layer, list(product(*map(range, shape))), shape)
        inside = [min(max(0, at), length - 1) for at, length in zip(place, shape, strict=True)]
        return cls(layer, [tuple(inside)], (1,) * len(shape))

    def micrographs(self) -> Iterator[Micrograph]:
        """Yield the slices, each with the layer's name and pixel size."""
        pixel_size = pixel_size_of(self.layer)
        for place in self.places:
            yield micrograph_at(self.layer, place, pixel_size)

    def settings(self, name: str, finer: int = 1) -> dict[str, Any]:
        """Return the settings of a layer that lies on this one.

        Args:
            name: of the layer.
            finer: so many times more pixels a side. The first pixel's middle is not the same then.
        """
        scale, translate = np.array(self.layer.scale, float), np.array(self.layer.translate, float)
        if len(self.places) == 1 and self.shape:
            translate[:-2] += scale[:-2] * self.places[0]
        translate[-2:] += (1 / finer - 1) / 2 * scale[-2:]
        scale[-2:] /= finer
        settings = {"name": name, "scale": scale, "translate": translate, "units": self.layer.units}
        return settings | {"axis_labels": self.layer.axis_labels}

    def joined(self, results: list[np.ndarray]) -> np.ndarray:
        """Return the results (h, w) of the slices as one array (..., h, w)."""
        return np.stack(results).reshape(*self.shape, *results[0].shape)


def pixels_of(layer: Any) -> Any:
    """Return a layer's data (..., H, W), those of the finest level if there are several."""
    return layer.data[0] if layer.multiscale else layer.data


def micrograph_at(layer: Any, place: tuple[int, ...], pixel_size: float | None) -> Micrograph:
    """Return a slice of an image layer as a micrograph."""
    pixels = pixels_of(layer)
    image = pixels if isinstance(pixels, LazyImage) else np.asarray(pixels[place] if place else pixels)
    name = f"{layer.name}[{', '.join(map(str, place))}]" if place else layer.name
    return Micrograph(image, pixel_size, name, data_bar=layer.metadata.get(DATA_BAR, 0))


def class_settings(id2label: dict[int, str], first: int = 0, background: bool = False) -> dict[str, Any]:
    """Return names and colours of classes for a layer of labels.

    Args:
        id2label: class names.
        first: label of class 0.
        background: whether a class of that name is seen, in grey.
    """
    colours = class_colours(id2label)
    shown: dict[int | None, Any] = {None: np.zeros(4)}
    for index, label in id2label.items():
        colour = colours.get(index, GREY)
        opacity = float(background or not is_background(label))
        shown[index + first] = np.array([*(np.asarray(colour) / 255), opacity])
    features = {"index": [index + first for index in id2label], "class": list(id2label.values())}
    return {"colormap": shown, "features": features}


def result_layer(results: list[np.ndarray], source: Source, model: Any, separates: bool) -> LayerData:
    """Return the layer of a model's results, which lies on that of the micrographs.

    Args:
        results: of each slice, in the form of `Prediction.output`.
        source: the slices.
        model: which made them.
        separates: the results are the numbers of objects.
    """
    settings = source.settings(f"{source.layer.name} {_ending(model, separates)}", model.scale)
    output = source.joined(results)
    if separates:
        return output, settings, "labels"
    if model.classes:
        return output, settings | class_settings(model.classes), "labels"
    return output, settings, "image"


def _ending(model: Any, separates: bool) -> str:
    return "objects" if separates else "classes" if model.classes else "restored"
