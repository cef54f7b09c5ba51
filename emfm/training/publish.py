"""From an averaged generator to a finished model folder: statistics, validation figures, card, test tensors."""

import shutil
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

from emfm.data.degradations import Corruption
from emfm.data.patches import UnlabelledCrops
from emfm.hub.card import pretraining_card
from emfm.hub.verify import write_test_tensors
from emfm.modeling import EMFoundation
from emfm.training.batch_norm import recalibrate_batch_norm
from emfm.training.metrics import l1, psnr

BATCH = 16
CALIBRATION_CROPS = 50 * BATCH
VALIDATION_CROPS = 8 * BATCH


def publish(
    model: EMFoundation,
    corrupt: Corruption,
    crops: UnlabelledCrops,
    held_out: list[np.ndarray],
    folder: Path,
) -> None:
    """Write the model folder, whole or not at all.

    Args:
        model: the averaged generator; its batch-norm statistics are measured here, and the validation figures added
            to `config.pretraining`, which holds recipe and cost.
        corrupt: the damage of the run.
        crops: the training crops.
        held_out: micrographs for the validation figures.
        folder: where the model goes; an older one is replaced.
    """
    device = next(model.parameters()).device
    calibration = DataLoader(Subset(crops, range(min(len(crops), CALIBRATION_CROPS))), batch_size=BATCH)
    recalibrate_batch_norm(model, (corrupt(b["clean"], b["key"]).to(device) for b in calibration))
    model.eval()
    validation = UnlabelledCrops(held_out, model.processor, crops.side, VALIDATION_CROPS, crops.seed + 1)
    model.config.pretraining["validation"] = validate(model, validation, corrupt)
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.to(memory_format=torch.contiguous_format).save_pretrained(temporary)
    write_test_tensors(model, temporary)
    (temporary / "README.md").write_text(pretraining_card(model.config), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


@torch.no_grad()
def validate(model: EMFoundation, crops: UnlabelledCrops, corrupt: Corruption) -> dict[str, float]:
    """Return L1 and PSNR (data range 2) of damaged and of restored crops, and their number."""
    damaged, restored, clean = [], [], []
    for batch in DataLoader(crops, batch_size=BATCH):
        clean.append(batch["clean"])
        damaged.append(corrupt(batch["clean"], batch["key"]))
        restored.append(model(damaged[-1].to(model.device)).reconstruction.cpu())
    target, before, after = torch.cat(clean), torch.cat(damaged), torch.cat(restored)
    return {
        "l1_input": l1(before, target),
        "l1": l1(after, target),
        "psnr_input": psnr(before, target),
        "psnr": psnr(after, target),
        "crops": len(target),
    }
