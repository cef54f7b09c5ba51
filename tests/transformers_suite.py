"""transformers' own common tests over every class of emfm; `test_transformers_suite.py` runs this file.

They come from the folder `tests` in transformers' sdist, which must be on the path. The sdist leaves
out the folders below it, so what those files import from there is put in their place: mixins
without a test, the values of common configuration fields, and an address that stays one.
"""

import sys
import unittest
from types import ModuleType

import numpy as np
import torch
import transformers
import transformers.utils
from PIL import Image

import emfm.auto  # noqa: F401  (makes emfm known to the Auto classes)
from emfm import EMForSemanticSegmentation, EMFoundation, EMFoundationConfig, EMImageProcessor
from emfm.tasks import TASKS

COMMON_FIELDS = {
    "return_dict": False,
    "output_hidden_states": True,
    "dtype": "float16",
    "architectures": ["EMFoundation"],
    "id2label": {0: "particle"},
    "label2id": {"particle": 0},
    "problem_type": "regression",
}
# they import transformers from beside themselves, where the sdist of the tests has none of it
transformers.utils.direct_transformers_import = lambda *place: transformers
for name, content in (
    ("tests.exporters.test_export", {"ExportTesterMixin": type("ExportTesterMixin", (), {})}),
    ("tests.generation.test_utils", {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})}),
    ("tests.utils.test_configuration_utils", {"config_common_kwargs": COMMON_FIELDS}),
    ("fetch_hub_objects_for_ci", {"url_to_local_path": str}),
):
    sys.modules[name] = ModuleType(name)
    vars(sys.modules[name]).update(content)

from tests.test_configuration_common import ConfigTester  # noqa: E402
from tests.test_image_processing_common import (  # noqa: E402
    ImageProcessingTester,
    ImageProcessingTestMixin,
    PostProcessSemanticSegmentationTestMixin,
)
from tests.test_modeling_common import ModelTesterMixin  # noqa: E402

SIDE = 24


class Inputs:
    """Gives transformers' tests a configuration and inputs of a class."""

    batch_size, is_training = 3, True
    num_hidden_layers = 2  # levels of the U-Net; its bottleneck comes to that

    def __init__(self, test: unittest.TestCase, cls: type):
        self.test, self.cls = test, cls
        self.seq_length = self.hidden_size = SIDE * cls(self.get_config()).scale  # of the finest map

    def get_config(self) -> EMFoundationConfig:
        """Return a small configuration for the class."""
        if self.cls is EMForSemanticSegmentation:
            return EMFoundationConfig.from_name("unet2-rf44", id2label={0: "background", 1: "particle", 2: "pore"})
        return EMFoundationConfig.from_name("unet2-rf44")

    def prepare_config_and_inputs_for_common(self) -> tuple[EMFoundationConfig, dict[str, torch.Tensor]]:
        """Return the configuration and a batch."""
        torch.manual_seed(0)
        return self.get_config(), {"pixel_values": torch.randn(self.batch_size, 1, SIDE, SIDE)}


class _Models(ModelTesterMixin):
    """What is the same for each class of models."""

    has_attentions = False
    test_resize_embeddings = False

    def setUp(self):
        self.model_tester = Inputs(self, self.all_model_classes[0])

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = dict(inputs_dict)
        if return_labels:
            side = SIDE * model_class(self.model_tester.get_config()).scale
            classes = model_class is EMForSemanticSegmentation
            labels = torch.arange(3 * side * side).reshape(3, 1, side, side) % 3
            inputs["labels"] = labels[:, 0] if classes else labels.float()
        return inputs


for cls in (EMFoundation, *TASKS.values()):
    globals()[f"{cls.__name__}Test"] = type(
        f"{cls.__name__}Test", (_Models, unittest.TestCase), {"all_model_classes": (cls,)}
    )


class EMFoundationConfigTest(unittest.TestCase):
    def setUp(self):
        self.model_tester = Inputs(self, EMFoundation)
        self.config_tester = ConfigTester(self, EMFoundationConfig, has_text_modality=False, common_properties=[])


def _check(name: str):
    return lambda self: getattr(self.config_tester, name)()


for check in vars(ConfigTester):
    if check.startswith(("create_and_test_", "check_")):
        name = check.removeprefix("create_and_").removeprefix("check_")
        setattr(EMFoundationConfigTest, name if name.startswith("test_") else f"test_{name}", _check(check))


class ProcessorTester(ImageProcessingTester):
    """Gives transformers' tests the processor, and micrographs of one size, which have no channels."""

    def __init__(self, parent: unittest.TestCase):
        super().__init__(parent, num_channels=1, low=2.0, high=98.0, clip=4.0)
        self.num_labels, self.size = 3, {"height": SIDE, "width": SIDE}

    def _get_image_processing_classes(self) -> dict[str, type]:
        return {"torchvision": EMImageProcessor}

    def prepare_image_processor_dict(self) -> dict[str, float]:
        """Return the processor's fields."""
        return {"low": self.low, "high": self.high, "clip": self.clip}

    def prepare_image_inputs(self, batch_size=None, numpify=False, torchify=False, **kwargs) -> list:
        """Return micrographs as PIL images, arrays or tensors."""
        rng = np.random.default_rng(0)
        arrays = rng.integers(0, 255, (batch_size or self.batch_size, SIDE, SIDE), dtype=np.uint8)
        kind = torch.from_numpy if torchify else np.asarray if numpify else Image.fromarray
        return [kind(array) for array in arrays]


class EMImageProcessorTest(ImageProcessingTestMixin, PostProcessSemanticSegmentationTestMixin, unittest.TestCase):
    image_processor_tester_class = ProcessorTester
