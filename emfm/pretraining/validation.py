"""What a pretrained generator restores, in figures for its card."""

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.functional.image import structural_similarity_index_measure

from emfm.data.degradations import Corruption
from emfm.modeling import EMFoundation
from emfm.pretraining.crops import UnlabelledCrops
from emfm.tasks.metrics import l1, psnr

BATCH = 16
# Network values whose percentiles lie at -1 and +1.
DATA_RANGE = 2.0


@torch.no_grad()
def validate(
    model: EMFoundation, crops: UnlabelledCrops, corrupt: Corruption
) -> tuple[dict[str, float], tuple[Tensor, Tensor, Tensor]]:
    """Return L1, PSNR and SSIM of damaged and of restored crops; and first images of all three.

    The same crops get the same damage every time, whatever the step. `crops` is their number.
    """
    was_training = model.training
    model.eval()
    inputs, outputs, targets = [], [], []
    for batch in DataLoader(crops, batch_size=BATCH):
        damaged, clean = corrupt(batch["clean"].to(model.device), batch["key"].to(model.device))
        inputs.append(damaged.cpu())
        outputs.append(model(damaged).reconstruction.float().cpu())
        targets.append(clean.cpu())
    model.train(was_training)
    before, after, target = torch.cat(inputs), torch.cat(outputs), torch.cat(targets)
    figures: dict[str, float] = {}
    for name, images in (("_input", before), ("", after)):
        figures[f"l1{name}"] = l1(images, target)
        figures[f"psnr{name}"] = psnr(images, target, DATA_RANGE)
        similarity = structural_similarity_index_measure(images, target, data_range=DATA_RANGE)
        assert isinstance(similarity, Tensor)
        figures[f"ssim{name}"] = float(similarity)
    return figures | {"crops": len(target)}, (before[:BATCH], after[:BATCH], target[:BATCH])
