"""A model folder that can be loaded, verified and pushed as it is; and the figures that its card shows."""

from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.functional.image import structural_similarity_index_measure

from emfm.data.degradations import Corruption
from emfm.data.pretraining_crops import UnlabelledCrops
from emfm.hub.pretraining_card import pretraining_card
from emfm.hub.verify import write_test_tensors
from emfm.modeling import EMFoundation
from emfm.training.metrics import l1, psnr

BATCH = 16
# Network values whose percentiles lie at -1 and +1.
DATA_RANGE = 2.0


def write_model_folder(model: EMFoundation, folder: Path) -> None:
    """Write configuration, weights, processor, test tensors and card into a folder.

    Args:
        model: `config.pretraining` holds recipe, cost and validation figures.
        folder: is made.
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=weights)
    # of the model as users will load it: that in training has another memory layout, and may be on a GPU
    write_test_tensors(EMFoundation.from_pretrained(folder), folder)
    (folder / "README.md").write_text(pretraining_card(model.config), encoding="utf-8")


@torch.no_grad()
def validate(
    model: EMFoundation, crops: UnlabelledCrops, corrupt: Corruption
) -> tuple[dict[str, float], tuple[Tensor, Tensor, Tensor]]:
    """Return L1, PSNR and SSIM of damaged and of restored crops with their number; and the first images of all three.

    The same crops get the same damage every time, whatever the step.
    """
    was_training = model.training
    model.eval()
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for batch in DataLoader(crops, batch_size=BATCH):
        damaged, clean = corrupt(batch["clean"].to(model.device), batch["key"].to(model.device))
        parts.append((damaged.cpu(), model(damaged).reconstruction.float().cpu(), clean.cpu()))
    model.train(was_training)
    before, after, target = (torch.cat(images) for images in zip(*parts, strict=True))
    figures: dict[str, float] = {}
    for name, images in (("_input", before), ("", after)):
        figures[f"l1{name}"] = l1(images, target)
        figures[f"psnr{name}"] = psnr(images, target, DATA_RANGE)
        similarity = structural_similarity_index_measure(images, target, data_range=DATA_RANGE)
        assert isinstance(similarity, Tensor)
        figures[f"ssim{name}"] = float(similarity)
    return figures | {"crops": len(target)}, (before[:BATCH], after[:BATCH], target[:BATCH])
