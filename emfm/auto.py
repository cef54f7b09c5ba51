"""Importing this module makes emfm known to AutoModel, AutoImageProcessor and pipeline().

`AutoModel.from_pretrained` takes a folder or a Hub id and returns the class that was saved there.
`pipeline("em-image-to-image")` restores, `pipeline("image-segmentation")` segments micrographs.
"""

from typing import Any

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForSemanticSegmentation
from transformers.pipelines import PIPELINE_REGISTRY

from emfm.config import EMFoundationConfig
from emfm.inference.pipelines import EMImageSegmentationPipeline, EMImageToImagePipeline
from emfm.modeling import EMFoundation
from emfm.processing import EMImageProcessor
from emfm.tasks import TASKS
from emfm.tasks.segmentation import EMForSemanticSegmentation

IMAGE_TO_IMAGE = "em-image-to-image"
# transformers takes the one that the configuration names
_CLASSES: Any = (EMFoundation, *TASKS.values())

AutoConfig.register(EMFoundationConfig.model_type, EMFoundationConfig, exist_ok=True)
AutoImageProcessor.register(
    EMFoundationConfig,
    image_processor_classes={"pil": EMImageProcessor, "torchvision": EMImageProcessor},
    exist_ok=True,
)
AutoModel.register(EMFoundationConfig, _CLASSES, exist_ok=True)
AutoModelForSemanticSegmentation.register(EMFoundationConfig, EMForSemanticSegmentation, exist_ok=True)

if IMAGE_TO_IMAGE not in PIPELINE_REGISTRY.supported_tasks:
    PIPELINE_REGISTRY.register_pipeline(IMAGE_TO_IMAGE, EMImageToImagePipeline, pt_model=AutoModel, type="image")
PIPELINE_REGISTRY.supported_tasks["image-segmentation"]["impl"] = EMImageSegmentationPipeline
