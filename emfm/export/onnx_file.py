"""Export to ONNX: one file for images and batches of any size, compared with torch."""

import copy
import json
import logging
import warnings
from importlib import import_module
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import emfm
from emfm.backbones.norms import InstanceNorm, SpelledInstanceNorm, exchange
from emfm.errors import EMError
from emfm.files import writable_file, write_atomically
from emfm.modeling import EMPreTrainedModel
from emfm.tasks import task_of
from emfm.tasks.task import EMTaskModel

logger = logging.getLogger(__name__)
OPSET = 18
INPUT = "image"
# Largest difference from torch that passes, as a share of the output's largest magnitude (at least
# 1): both sum float32 in their own order.
TOLERANCE = 1e-4
# (batch, height, width) to compare: a multiple of every stride, one of none, narrow, one pixel.
CHECKED_SIZES = ((1, 64, 96), (3, 45, 83), (2, 5, 130), (1, 1, 1))


def need(*modules: str) -> None:
    """Raise an EMError that names the extra, where a library that exporting needs is missing."""
    for module in modules:
        try:
            import_module(module)
        except ImportError as error:
            raise EMError(f"export needs {module}, which is not installed: pip install 'emfm[export]'") from error


class ExportNetwork(nn.Module):
    """A copy of a model that a tracer can follow at every size: no branch depends on the size.

    Padding looks mirrored pixels up instead of repeating mirrored padding. Instance norm is spelled
    out, which also holds for a single pixel. Values equal the model's own.

    Args:
        model: any of emfm's models; it is not changed.
        finished: return what a user wants, such as class probabilities instead of logits.
    """

    def __init__(self, model: EMPreTrainedModel, finished: bool = False):
        super().__init__()
        self.model = copy.deepcopy(model).cpu().float().eval()
        self.finished = task_of(model).finished if finished else None
        self.model.padded = MethodType(_mirrored, self.model)
        exchange(self.model, InstanceNorm, SpelledInstanceNorm)

    def forward(self, image: Tensor) -> Tensor:
        """Map network values (B, 1, H, W) to scores (B, K, H, W) or an image (B, 1, sH, sW)."""
        output = _calibrated(self.model, self.model(image)[0])
        return output if self.finished is None else self.finished(output)


def _calibrated(model: EMPreTrainedModel, outputs: Tensor) -> Tensor:
    """Return outputs whose softmax gives the model's own probabilities."""
    return model.calibrated(outputs) if isinstance(model, EMTaskModel) else outputs


def _mirrored(model: EMPreTrainedModel, pixel_values: Tensor) -> Tensor:
    """Mirror bottom and right edges up to a multiple of its stride, as the model does."""
    height, width = pixel_values.shape[-2:]
    stride = model.stride
    return pixel_values.index_select(2, _mirror(height, stride)).index_select(3, _mirror(width, stride))


def _mirror(length: int, stride: int) -> Tensor:
    """Return which row of the image (`length`) each padded row repeats: 0 1 2 1 0 1 2 ..."""
    padded = (length + stride - 1) // stride * stride
    period = torch.full((1,), torch.sym_max(2 * (length - 1), 1), dtype=torch.int64)
    along = torch.remainder(torch.arange(padded), period)
    return torch.minimum(along, 2 * (length - 1) - along)


def export_onnx(model: EMPreTrainedModel, path: str | Path, probabilities: bool = False) -> float:
    """Write an ONNX file with dynamic batch, height and width, if it agrees with torch.

    The input `image` (B, 1, H, W) holds network values, as `EMImageProcessor` makes them. The
    metadata hold its rule, class names, generator, scale and pixel-size range. Padding to the
    network's stride is inside the graph.

    Args:
        model: any of emfm's models.
        path: the file to write.
        probabilities: a segmentation's output is `probabilities` instead of `logits`.

    Returns:
        The largest difference from torch, as a share of the output's largest magnitude.

    Raises:
        EMError: a library is missing, torch cannot export the model, or the outputs differ.
    """
    writable_file(path)
    need("onnx", "onnxscript", "onnxruntime")
    network = ExportNetwork(model, probabilities)
    words = task_of(model).exported
    program = _trace(network, words.finished if probabilities else words.output)
    content = _with_metadata(program.model_proto, model)
    difference = compare(probabilities, model, content)
    say_replaced(Path(path))
    write_atomically(path, lambda temporary: temporary.write_bytes(content))
    return difference


def say_replaced(path: Path) -> None:
    """Warn of a file or package that an export is about to replace."""
    if path.exists():
        logger.warning("%s: what was there is replaced", path)


def metadata(model: EMPreTrainedModel) -> dict[str, str]:
    """Return what an ONNX file of this model says about it; values that are no strings are JSON."""
    config = model.config
    told: dict[str, Any] = {
        "emfm_version": emfm.__version__,
        "class": type(model).__name__,
        "generator": config.generator,
        "scale": model.scale,
        "stride": model.stride,
        "reach": model.reach,
        "norm": config.norm,
        "pixel_size_range_nm": config.pixel_size_range,
        "processor": {"low": model.processor.low, "high": model.processor.high, "clip": model.processor.clip},
        "id2label": model.classes or model.object_classes or None,
    }
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in told.items()}


def _trace(network: ExportNetwork, output: str) -> Any:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # the exporter's advice to its developers
    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.onnx.export(
                network,
                (torch.zeros(2, 1, 77, 59),),  # sizes that stand for any
                dynamo=True,
                dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),
                input_names=[INPUT],
                output_names=[output],
                opset_version=OPSET,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        first = str(error).strip().splitlines()[0]
        raise EMError(f"torch {torch.__version__} cannot export this model to ONNX: {first}") from error
    finally:
        logging.disable(before)


def _with_metadata(proto: Any, model: EMPreTrainedModel) -> bytes:
    """Return the file's bytes, with plain names of dimensions and what is known of the model."""
    import onnx

    del proto.graph.value_info[:]  # shapes inside, in the tracer's symbols
    enlarged = f"{model.scale}*" if model.scale > 1 else ""
    for tensor, factor in ((proto.graph.input[0], ""), (proto.graph.output[0], enlarged)):
        dimensions = tensor.type.tensor_type.shape.dim
        dimensions[0].dim_param = "batch"
        dimensions[2].dim_param = f"{factor}height"
        dimensions[3].dim_param = f"{factor}width"
    onnx.helper.set_model_props(proto, metadata(model))
    rule = model.processor
    proto.doc_string = (
        f"{type(model).__name__} ({model.config.generator}) of emfm. '{INPUT}' holds network "
        f"values: percentiles {rule.low:g} and {rule.high:g} at -1 and +1, cut at {rule.clip:g}."
    )
    onnx.checker.check_model(proto)
    return proto.SerializeToString()


def session(content: bytes) -> Any:
    """Return an onnxruntime session on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@torch.no_grad()
def compare(
    finished: bool, model: EMPreTrainedModel, content: bytes, sizes: tuple[tuple[int, int, int], ...] = CHECKED_SIZES
) -> float:
    """Return the largest difference from torch, as a share of the output's largest magnitude.

    Args:
        finished: whether the file's output is the finished one, such as class probabilities.
        model: what was exported.
        content: the file.
        sizes: (batch, height, width) of the inputs.

    Raises:
        EMError: shapes differ, or values by more than `TOLERANCE`.
    """
    runtime, worst = session(content), 0.0
    rng, was_training = np.random.default_rng(0), model.training
    model.eval()
    try:
        for size in sizes:
            values = rng.normal(0, 0.7, (size[0], 1, *size[1:])).astype(np.float32)
            own = _calibrated(model, model(torch.from_numpy(values).to(model.device, model.dtype))[0].float())
            expected = (task_of(model).finished(own) if finished else own).cpu().numpy()
            found = runtime.run(None, {INPUT: values})[0]
            if found.shape != expected.shape:
                raise EMError(f"the export gives {found.shape} for {size}; torch {expected.shape}")
            difference = float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max())))
            if not difference <= TOLERANCE:
                raise EMError(f"the export differs from torch by {difference:.2g} at {size}; nothing was written")
            worst = max(worst, difference)
    finally:
        model.train(was_training)
    return worst
