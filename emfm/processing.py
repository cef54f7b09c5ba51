"""The only place where intensities change: from a micrograph's units to network values and back."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers.image_processing_base import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from emfm.errors import EMError
from emfm.io.large_images import READ_PIXELS, release_pages, thinned

# Scales below this share of the dtype's unit (floats: the values' size) mean a constant image. In
# float64, values tell far smaller differences apart.
CONSTANT, CONSTANT_DOUBLE = 1e-6, 1e-12
# Statistics of larger micrographs come from a strided sample of about this many pixels.
SAMPLE_PIXELS = 4_000_000
# Up to this many pixels every value is checked for the statistics, else in `normalize`.
CHECKED_PIXELS = 2**24


@dataclass(frozen=True)
class IntensityStatistics:
    """How a micrograph's values map to network values: `(value - offset) / scale`."""

    offset: float  # the value that becomes 0, in the micrograph's units
    scale: float  # the distance in the micrograph's units that becomes 1; positive
    flat: bool = False  # every pixel has the same value: there is nothing to see


class EMImageProcessor(BaseImageProcessor):
    """Turns micrographs of any bit depth into `pixel_values`, and a network's outputs back.

    Each micrograph is scaled once by robust statistics of the whole, never of a tile: the
    percentiles `low` and `high` become -1 and +1, values beyond `clip` are cut. Training,
    evaluation and prediction share this rule; `preprocessor_config.json` keeps it by the weights.

    NaN is no data, as in the padding of aligned images: it takes no part in the statistics, and
    becomes 0, the middle of the range.

    Where the percentiles coincide (a sparse mask, say) the standard deviation is the scale; a
    constant micrograph becomes all zeros. The maximum is never used: a hot pixel changes nothing.

    Args:
        low: lower percentile, 0 to 100.
        high: upper percentile, above `low`, up to 100.
        clip: network values are limited to [-clip, clip].
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012  (transformers reads this attribute)

    def __init__(self, low: float = 1.0, high: float = 99.0, clip: float = 3.0, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= low < high <= 100:
            raise EMError(f"percentiles low={low} and high={high}: expected 0 <= low < high <= 100")
        if not clip >= 1:
            raise EMError(f"clip is {clip}: expected at least 1, the network value of the upper percentile")
        self.low, self.high, self.clip = float(low), float(high), float(clip)

    @classmethod
    def from_dict(cls, image_processor_dict: dict[str, Any], **kwargs):
        """Build the processor from `preprocessor_config.json`; an unknown field is an error."""
        fields = {k: v for k, v in image_processor_dict.items() if k not in ("image_processor_type", "processor_class")}
        fields.update({key: kwargs.pop(key) for key in ("low", "high", "clip") if key in kwargs})
        unknown = sorted(set(fields) - {"low", "high", "clip"})
        if unknown:
            raise EMError(f"the stored processor holds {', '.join(unknown)}; EMImageProcessor has low, high and clip")
        return_unused = kwargs.pop("return_unused_kwargs", False)
        processor = cls(**fields)
        return (processor, kwargs) if return_unused else processor

    def statistics(self, image: np.ndarray) -> IntensityStatistics:
        """Measure a whole micrograph once.

        Args:
            image: (H, W) of boolean, integer or floating dtype; may be memory-mapped, or anything
                with `shape`, `dtype` and `image[rows, columns]`. It is never loaded whole.

        Raises:
            EMError: shape or dtype do not fit, values are infinite, or all are NaN. Above 2^24
                pixels the sample is checked here, the rest by `normalize`.
        """
        _check_array(image)
        if image.shape[0] * image.shape[1] <= CHECKED_PIXELS:
            _check_finite(image)
        stride = max(1, int(np.ceil(np.sqrt(image.shape[0] * image.shape[1] / SAMPLE_PIXELS))))
        sample = thinned(image, stride).astype(np.float64)
        if np.isinf(sample).any():
            _check_finite(image)
        missing = np.isnan(sample)
        if missing.all():
            raise EMError("the micrograph holds no data: every pixel is NaN, or the value that stands for no data")
        if missing.any():
            sample = sample[~missing]
        low, middle, high = np.percentile(sample, [self.low, 50, self.high])
        unit = max(abs(low), abs(high), np.finfo(np.float32).tiny) if image.dtype.kind == "f" else 1.0
        smallest = (CONSTANT_DOUBLE if image.dtype.kind == "f" and image.dtype.itemsize > 4 else CONSTANT) * unit
        offset, scale = (low + high) / 2, (high - low) / 2
        if scale <= smallest:
            # both percentiles are background: two standard deviations keep sparse structure visible
            offset, scale = middle, 2 * float(sample.std())
        flat = scale <= smallest
        if flat:
            scale = max(1.0, abs(offset))  # so that rounding of large floats stays near zero, too
        return IntensityStatistics(float(offset), float(scale), bool(flat))

    def normalize(  # type: ignore[override]  # transformers' own takes a mean and a deviation
        self, image: np.ndarray, statistics: IntensityStatistics, origin: tuple[int, int] = (0, 0)
    ) -> np.ndarray:
        """Map values to float32 network values in [-clip, clip]; NaN becomes 0.

        Infinite values are an EMError.

        Args:
            image: (H, W), a whole micrograph or a part of it.
            statistics: of the whole micrograph.
            origin: row and column of a part within the micrograph, for the error.
        """
        _check_array(image)
        _check_finite(image, origin)
        values = (np.asarray(image, dtype=np.float64) - statistics.offset) / statistics.scale
        values = np.clip(values, -self.clip, self.clip).astype(np.float32)
        return np.nan_to_num(values, copy=False, nan=0.0) if image.dtype.kind == "f" else values

    def denormalize(self, values: np.ndarray, statistics: IntensityStatistics, dtype: Any) -> np.ndarray:
        """Map network values back to the micrograph's units and dtype; integers are rounded.

        A micrograph of one value stays as it is: what a network draws on it would be invented.
        """
        if statistics.flat:
            return as_dtype(np.full(np.shape(values), statistics.offset), dtype)
        return as_dtype(np.asarray(values, dtype=np.float64) * statistics.scale + statistics.offset, dtype)

    def preprocess(self, images: Any, return_tensors: str | None = "pt", **kwargs: Any) -> BatchFeature:
        """Turn one micrograph or a list of them into a batch.

        Args:
            images: a 2-D array or tensor, a greyscale PIL image, a list of these, or an array
                (B, H, W). A PIL image in RGB is accepted where its three channels are equal.
            return_tensors: "pt" for torch, "np" for numpy.
            **kwargs: none; a name that is not known is an error.

        Returns:
            `pixel_values` (B, 1, H, W), float32.

        Raises:
            EMError: colour, infinite values, or sizes that differ within the batch.
        """
        if kwargs:
            unknown = ", ".join(sorted(kwargs))
            raise EMError(f"EMImageProcessor does not know {unknown}: give images, return_tensors")
        batch = isinstance(images, (np.ndarray, Tensor)) and images.ndim == 3
        several = batch or isinstance(images, (list, tuple))
        arrays = [as_array(image) for image in (images if several else [images])]
        sizes = sorted({array.shape for array in arrays})
        if len(sizes) != 1:
            given = ", ".join(str(size) for size in sizes) or "none"
            raise EMError(f"a batch needs micrographs of one size, got {given}: pass them one by one, or use predict")
        normalized = [self.normalize(array, self.statistics(array)) for array in arrays]
        return BatchFeature({"pixel_values": np.stack(normalized)[:, None]}, tensor_type=return_tensors)

    def post_process_semantic_segmentation(
        self,
        outputs: Any,
        target_sizes: list[tuple[int, int]] | None = None,
        return_segmentation_scores: bool = False,
    ) -> list[Any]:
        """Return one class map (H, W), int64, per image from a model's `logits` (B, K, H, W).

        Args:
            outputs: what `EMForSemanticSegmentation` returned.
            target_sizes: (height, width) per image, to which the logits are resized; by default
                they have the input's size.
            return_segmentation_scores: return `segmentation`, the class map, and
                `segmentation_scores`, the logits (K, H, W), for each image.
        """
        scores = list(outputs.logits)
        if target_sizes is not None:
            if len(target_sizes) != len(scores):
                raise EMError(f"{len(target_sizes)} target sizes for {len(scores)} images: give one for each")
            sizes = [tuple(int(side) for side in size) for size in target_sizes]
            scores = [
                F.interpolate(logits[None], size, mode="bilinear")[0]
                for logits, size in zip(scores, sizes, strict=True)
            ]
        maps = [logits.argmax(dim=0) for logits in scores]
        if not return_segmentation_scores:
            return maps
        found = zip(maps, scores, strict=True)
        return [BatchFeature({"segmentation": each, "segmentation_scores": logits}) for each, logits in found]


def as_array(image: Any) -> np.ndarray:
    """Return a 2-D array in the image's own dtype; what a masked array hides is NaN, no data."""
    if isinstance(image, Tensor):
        image = image.detach().cpu()
        return (image.float() if image.dtype == torch.bfloat16 else image).numpy()
    if isinstance(image, np.ma.MaskedArray):
        if not np.ma.is_masked(image):
            return image.data
        return np.where(image.mask, np.nan, image.data).astype(np.result_type(image.dtype, np.float32))
    try:
        array = np.asarray(image)
    except ValueError as error:
        raise EMError(
            f"expected a micrograph as a 2-D array of numbers, got lists of unequal lengths ({error})"
        ) from error
    given = isinstance(image, (np.ndarray, Image.Image))
    if array.dtype == object or (array.dtype.kind not in "biufc" and not given):
        raise EMError(
            f"expected a micrograph as a 2-D array of numbers, got {type(image).__name__}: files are read by "
            "read_micrograph, several are predicted by predict_files"
        )
    if array.ndim < 2 and not given:
        raise EMError(f"expected a micrograph of shape (height, width), got {type(image).__name__} of {array.shape}")
    if not isinstance(image, Image.Image):
        return array
    if array.ndim == 3 and image.mode in ("RGB", "RGBA") and (array[..., :1] == array[..., :3]).all():
        return np.ascontiguousarray(array[..., 0])
    if array.ndim != 2 or image.mode == "P":
        raise EMError(
            f"the image is in colour (PIL mode {image.mode}); a micrograph has one channel: "
            "convert it, for example with image.convert('L')"
        )
    return array


def _check_array(image: np.ndarray) -> None:
    if image.ndim != 2 or 0 in image.shape:
        raise EMError(
            f"expected a micrograph of shape (height, width), got {image.shape}: "
            "pass slices of a stack one by one, and one channel of a colour image"
        )
    if image.dtype.kind not in "biuf":
        raise EMError(f"micrographs are boolean, integer or floating point; got dtype {image.dtype}")


def _check_finite(image: np.ndarray, origin: tuple[int, int] = (0, 0)) -> None:
    """Raise an error that counts infinite values and says where the first lies; NaN is no data."""
    if image.dtype.kind != "f":
        return
    infinities, first = 0, ""
    rows = max(1, READ_PIXELS // image.shape[1])
    for top in range(0, image.shape[0], rows):
        band = np.asarray(image[top : top + rows, :])
        release_pages(image)
        bad = np.isinf(band)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            first = first or f"row {origin[0] + top + row}, column {origin[1] + column}"
            infinities += int(bad.sum())
    if first:
        raise EMError(
            f"the micrograph holds {infinities} infinite values, the first at {first}: replace them, "
            "for example with numpy.nan_to_num or the local median"
        )


def as_dtype(values: np.ndarray, dtype: Any) -> np.ndarray:
    """Return values in a micrograph's dtype: integers are rounded and limited to their range."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return values >= 0.5
    if dtype.kind not in "iu":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    # float64 rounds the largest 64-bit integers up, out of the range: take the float64 below
    top = float(limits.max) if float(limits.max) <= limits.max else np.nextafter(float(limits.max), 0)
    return np.clip(np.rint(values.astype(np.float64)), limits.min, top).astype(dtype)
