"""transformers' pipelines over `predict`: whole statistics, tiles, any bit depth."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers.pipelines import ImageSegmentationPipeline, Pipeline

from emfm.errors import EMError
from emfm.inference.predict import predict
from emfm.io.reading import Micrograph, read_micrograph
from emfm.modeling import EMFoundation, EMPreTrainedModel
from emfm.processing import as_array
from emfm.reports.prediction import Prediction
from emfm.reports.residual import measure_residual
from emfm.tasks import TASKS, task_of

# Masks of objects, one byte a pixel and object, take so much memory at most.
MOST_BYTES = 2**31


def _open(image: Any) -> Micrograph:
    """Return a pipeline's input (file's path, 2-D array or tensor, PIL image) as a micrograph."""
    if isinstance(image, Micrograph):
        return image
    if isinstance(image, str) and image.startswith(("http://", "https://")):
        raise EMError(f"{image} is an address; give a file, array or image: download it first")
    if isinstance(image, (str, Path)):
        return read_micrograph(image)
    return Micrograph(as_array(image), None, "array")


class _OnMicrographs(Pipeline):
    """What both pipelines do for a model of emfm's; any other goes to the next class in line."""

    takes: tuple[str, ...] = ("tile",)
    pipeline_tag: str

    @property
    def _own(self) -> bool:
        """Whether the model is one of emfm's, of a task with this pipeline's tag on the Hub."""
        return isinstance(self.model, EMPreTrainedModel) and task_of(self.model).card.pipeline_tag == self.pipeline_tag

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict, dict, dict]:
        if not self._own:
            return super()._sanitize_parameters(**kwargs)
        unknown = sorted(set(kwargs) - set(self.takes))
        if unknown:
            raise EMError(f"{self.task} with a model of emfm's does not know {', '.join(unknown)}; it takes tile")
        return {}, {name: value for name, value in kwargs.items() if name == "tile"}, {}

    def get_iterator(self, inputs: Any, num_workers: int, batch_size: int, *params: dict) -> Any:
        """Return the results of many images, one after the other."""
        if self._own and batch_size != 1:
            raise EMError(f"batch_size is {batch_size}; micrographs are predicted one by one: leave it at 1")
        return super().get_iterator(inputs, num_workers, batch_size, *params)

    def preprocess(self, input_: Any, *args: Any, **kwargs: Any) -> Any:
        """Open one image."""
        return {"micrograph": _open(input_)} if self._own else super().preprocess(input_, *args, **kwargs)

    def _forward(self, input_tensors: Any, tile: int | None = None) -> Any:
        if not self._own:
            return super()._forward(input_tensors)
        return {"prediction": predict(self.model, input_tensors["micrograph"], tile)}


class EMImageToImagePipeline(_OnMicrographs):
    """`pipeline("em-image-to-image", model=...)`, for restoration or a generator.

    Takes the path of a micrograph, a 2-D array or tensor, a PIL image, or a list of these. Returns
    for each a dict: `image` (H, W), in the input's dtype and units (float32 for few grey levels),
    `scale` times as large by super-resolution; `pixel_size` in nm or None; `name`; `residual`, the
    figures of what was taken away, None if the size changed; and `domain`, whether the micrograph
    is like those of the training, None if the model does not know. `tile=` is a tile's side in
    pixels.
    """

    pipeline_tag = "image-to-image"
    # the model brings its own
    _load_processor: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = False

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict, dict, dict]:
        if not self._own:
            taken = [task.__name__ for task in TASKS.values() if task.card.pipeline_tag == self.pipeline_tag]
            names = ", ".join([EMFoundation.__name__, *taken])
            raise EMError(f"{type(self.model).__name__} is no model for {self.task}; it takes {names}")
        return super()._sanitize_parameters(**kwargs)

    def postprocess(self, model_outputs: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Return image, pixel size, name, what was taken away, and if the input is known."""
        prediction: Prediction = model_outputs["prediction"]
        taken = None
        if prediction.image.shape == prediction.output.shape:
            taken = measure_residual(prediction.image, prediction.output)[0].to_dict()
        place = None if prediction.domain is None else prediction.domain.to_dict()
        form = {"image": prediction.output, "pixel_size": prediction.pixel_size, "name": prediction.name}
        return {**form, "residual": taken, "domain": place}


class EMImageSegmentationPipeline(_OnMicrographs, ImageSegmentationPipeline):
    """`pipeline("image-segmentation", model=...)` that also knows emfm's models.

    transformers' own makes 8-bit colour of every image, which cuts a 16-bit micrograph off at 255.
    With a model of emfm's this one takes what `em-image-to-image` takes. It returns a list of
    `label`, `mask` (a PIL image, 255 where the class is) and `score` (None). With an
    `EMForInstanceSegmentation` each object has a mask, its class is the label ("object" without
    classes), and `id` is its number.
    """

    pipeline_tag = "image-segmentation"
    takes = ("tile", "subtask")

    def check_model_type(self, supported_models: Any) -> None:
        """Leave emfm's model in peace, which transformers does not list."""
        if not self._own:
            super().check_model_type(supported_models)

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict, dict, dict]:
        done = "instance" if self._own and task_of(self.model).separates else "semantic"
        if self._own and kwargs.get("subtask") not in (None, done):
            raise EMError(f"subtask is '{kwargs['subtask']}'; {type(self.model).__name__} does '{done}'")
        return super()._sanitize_parameters(**kwargs)

    def postprocess(self, model_outputs: Any, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        """Return a mask for every class, or every object, that is there."""
        if not self._own:
            return super().postprocess(model_outputs, *args, **kwargs)
        prediction: Prediction = model_outputs["prediction"]
        if task_of(self.model).separates:
            return _objects(prediction)
        assert prediction.id2label is not None
        there = np.intersect1d(prediction.output, list(prediction.id2label))  # no data has no class
        return [_masked(prediction.output, int(index), prediction.id2label[int(index)]) for index in there]


def _objects(prediction: Prediction) -> list[dict[str, Any]]:
    """Return a mask of the whole size for each object.

    Raises:
        EMError: they would take more than `MOST_BYTES`.
    """
    numbers = [int(number) for number in np.unique(prediction.output) if number]
    if len(numbers) * prediction.output.size > MOST_BYTES:
        raise EMError(
            f"{prediction.name}: masks of {len(numbers)} objects would take "
            f"{len(numbers) * prediction.output.size / 2**30:.0f} GiB; emfm.predict(model, image).output holds all "
            "their numbers in one array"
        )
    classes = prediction.object_classes
    return [
        {**_masked(prediction.output, number, "object" if classes is None else classes.name(number)), "id": number}
        for number in numbers
    ]


def _masked(output: np.ndarray, value: int, label: str) -> dict[str, Any]:
    mask = Image.fromarray(np.where(output == value, 255, 0).astype(np.uint8))
    return {"score": None, "label": label, "mask": mask}
