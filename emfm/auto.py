"""Importing this module makes emfm known to AutoModel, AutoImageProcessor and pipeline().

`AutoModel.from_pretrained` takes a bundled model's name, a folder or a Hub id, and returns what was
saved there. `pipeline("em-image-to-image")` restores, `pipeline("image-segmentation")` segments.
"""

import functools
from pathlib import Path
from typing import Any

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageSegmentation,
    AutoModelForInstanceSegmentation,
    AutoModelForSemanticSegmentation,
    pipelines,
)
from transformers.pipelines import PIPELINE_REGISTRY

from emfm.config import EMFoundationConfig
from emfm.inference.pipelines import EMImageSegmentationPipeline, EMImageToImagePipeline
from emfm.loading.names import BUNDLED, bundled_names
from emfm.modeling import EMFoundation
from emfm.processing import EMImageProcessor
from emfm.tasks import TASKS
from emfm.tasks.instances import EMForInstanceSegmentation
from emfm.tasks.segmentation import EMForSemanticSegmentation

IMAGE_TO_IMAGE = "em-image-to-image"
# transformers takes the one that the configuration names
_CLASSES: Any = (EMFoundation, *TASKS.values())


def _folder_of(name: Any) -> Any:
    """Return the folder of a bundled model; a folder of that name comes first, others stay."""
    bundled = isinstance(name, str) and name in bundled_names() and not Path(name).exists()
    return str(BUNDLED / name) if bundled else name


def _know_zoo(auto: Any) -> None:
    """Let an Auto class take the names of bundled models."""
    load = auto.from_pretrained.__func__
    if getattr(load, "knows_emfm", False):
        return

    @functools.wraps(load)
    def from_pretrained(cls: Any, name: Any, *args: Any, **kwargs: Any) -> Any:
        return load(cls, _folder_of(name), *args, **kwargs)

    from_pretrained.knows_emfm = True  # type: ignore[attr-defined]
    auto.from_pretrained = classmethod(from_pretrained)


AutoConfig.register(EMFoundationConfig.model_type, EMFoundationConfig, exist_ok=True)
AutoImageProcessor.register(
    EMFoundationConfig,
    image_processor_classes={"pil": EMImageProcessor, "torchvision": EMImageProcessor},
    exist_ok=True,
)
AutoModel.register(EMFoundationConfig, _CLASSES, exist_ok=True)
AutoModelForSemanticSegmentation.register(EMFoundationConfig, EMForSemanticSegmentation, exist_ok=True)
AutoModelForInstanceSegmentation.register(EMFoundationConfig, EMForInstanceSegmentation, exist_ok=True)
# what the pipeline asks first
_SEGMENTING: Any = (EMForSemanticSegmentation, EMForInstanceSegmentation)
AutoModelForImageSegmentation.register(EMFoundationConfig, _SEGMENTING, exist_ok=True)

if not hasattr(pipelines.find_adapter_config_file, "__wrapped__"):
    # `pipeline` asks for LoRA's additions first; for a bundled name the Hub is not asked
    look: Any = pipelines.find_adapter_config_file
    for_bundled: Any = functools.wraps(look)(lambda name, *args, **kwargs: look(_folder_of(name), *args, **kwargs))
    pipelines.find_adapter_config_file = for_bundled
_AUTO: Any = (
    AutoConfig,
    AutoModel,
    AutoModelForSemanticSegmentation,
    AutoModelForInstanceSegmentation,
    AutoModelForImageSegmentation,
    AutoImageProcessor,
)
for known in _AUTO:
    _know_zoo(known)

if IMAGE_TO_IMAGE not in PIPELINE_REGISTRY.supported_tasks:
    PIPELINE_REGISTRY.register_pipeline(IMAGE_TO_IMAGE, EMImageToImagePipeline, pt_model=AutoModel, type="image")
PIPELINE_REGISTRY.supported_tasks["image-segmentation"]["impl"] = EMImageSegmentationPipeline
