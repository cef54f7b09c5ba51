"""Foundation models for electron microscopy.

The public names load on first use, so that `import emfm` costs no more than a few milliseconds:
torch, timm, datasets and transformers come in only with the class that needs them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_MODULE_OF = {
    "EMFoundation": "emfm.modeling",
    "EMFoundationConfig": "emfm.config",
    "EMImageProcessor": "emfm.processing",
    "EMForBackgroundRemoval": "emfm.tasks.background_removal",
    "EMForDenoising": "emfm.tasks.denoising",
    "EMForInstanceSegmentation": "emfm.tasks.instances",
    "EMForSemanticSegmentation": "emfm.tasks.segmentation",
    "EMForSuperResolution": "emfm.tasks.super_resolution",
    "EMTrainer": "emfm.finetuning.trainer",
    "EMTrainingArguments": "emfm.finetuning.trainer_arguments",
    "EMError": "emfm.errors",
    "draft_labels": "emfm.labels.drafts",
    "export_labels": "emfm.labels.exporting",
    "import_labels": "emfm.labels.importing",
    "mark_reviewed": "emfm.labels.review",
    "list_models": "emfm.hub.zoo",
    "load_em_dataset": "emfm.labels.loading",
    "push_dataset": "emfm.hub.datasets.push",
    "predict": "emfm.inference.predict",
    "read_micrograph": "emfm.io.reading",
    "read_stack": "emfm.io.reading",
}

__all__ = ["__version__", *sorted(_MODULE_OF)]

if TYPE_CHECKING:
    from emfm.config import EMFoundationConfig as EMFoundationConfig
    from emfm.errors import EMError as EMError
    from emfm.finetuning.trainer import EMTrainer as EMTrainer
    from emfm.finetuning.trainer_arguments import EMTrainingArguments as EMTrainingArguments
    from emfm.hub.datasets.push import push_dataset as push_dataset
    from emfm.hub.zoo import list_models as list_models
    from emfm.inference.predict import predict as predict
    from emfm.io.reading import read_micrograph as read_micrograph
    from emfm.io.reading import read_stack as read_stack
    from emfm.labels.drafts import draft_labels as draft_labels
    from emfm.labels.exporting import export_labels as export_labels
    from emfm.labels.importing import import_labels as import_labels
    from emfm.labels.loading import load_em_dataset as load_em_dataset
    from emfm.labels.review import mark_reviewed as mark_reviewed
    from emfm.modeling import EMFoundation as EMFoundation
    from emfm.processing import EMImageProcessor as EMImageProcessor
    from emfm.tasks.background_removal import EMForBackgroundRemoval as EMForBackgroundRemoval
    from emfm.tasks.denoising import EMForDenoising as EMForDenoising
    from emfm.tasks.instances import EMForInstanceSegmentation as EMForInstanceSegmentation
    from emfm.tasks.segmentation import EMForSemanticSegmentation as EMForSemanticSegmentation
    from emfm.tasks.super_resolution import EMForSuperResolution as EMForSuperResolution


def __getattr__(name: str) -> object:
    """Load a public name when it is first asked for (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'emfm' has no attribute '{name}'; it offers {', '.join(sorted(_MODULE_OF))}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)
