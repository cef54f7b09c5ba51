"""Importing this module makes emfm's models known to transformers: AutoModel, AutoImageProcessor and pipeline()."""

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForSemanticSegmentation

from emfm.config import EMFoundationConfig
from emfm.modeling import EMFoundation
from emfm.processing import EMImageProcessor
from emfm.tasks.segmentation import EMForSemanticSegmentation

AutoConfig.register(EMFoundationConfig.model_type, EMFoundationConfig, exist_ok=True)
AutoImageProcessor.register(
    EMFoundationConfig,
    image_processor_classes={"pil": EMImageProcessor, "torchvision": EMImageProcessor},
    exist_ok=True,
)
AutoModel.register(EMFoundationConfig, EMFoundation, exist_ok=True)
AutoModelForSemanticSegmentation.register(EMFoundationConfig, EMForSemanticSegmentation, exist_ok=True)
