"""Model cards, rendered from what a run stored in the configuration; nothing in them is typed by hand."""

from typing import Any

from huggingface_hub import ModelCardData

from emfm.config import EMFoundationConfig

TAGS = ["electron-microscopy", "emfm"]


def pretraining_card(config: EMFoundationConfig) -> str:
    """Return the README.md of a pretrained generator, from `config.pretraining`."""
    run: dict[str, Any] = config.pretraining
    figures = run["validation"]
    header = ModelCardData(
        library_name="emfm",
        license="apache-2.0",
        pipeline_tag="image-to-image",
        tags=[*TAGS, "self-supervised", "pix2pix"],
    )
    crops = run["steps"] * run["batch_size"] * run["processes"]
    return f"""---
{header.to_yaml()}
---

# {config.generator}, pretrained on electron micrographs

An image-to-image generator for one-channel electron micrographs, pretrained without labels as in
[Kazimi et al. 2024](https://arxiv.org/abs/2402.18286). It is a starting point for fine-tuning; by itself it removes
the noise and blur that it was trained on.

```python
from emfm import EMFoundation, EMForSemanticSegmentation
generator = EMFoundation.from_pretrained("{config.generator}")
model = EMForSemanticSegmentation.from_pretrained("{config.generator}", id2label={{0: "background", 1: "particle"}})
```

## Training

| | |
|---|---|
| data | {", ".join(run["data"])}: {run["micrographs"]} micrographs |
| crops | {crops:,} of {run["crop"]} x {run["crop"]} pixels, {run["steps"]:,} steps |
| corruption | {run["corruption"]}: {_strength(run["strength"])} |
| loss | {run["adversarial"]} + {run["l1_weight"]:g} x L1, discriminator of width {run["discriminator_width"]} |
| optimiser | Adam {run["learning_rate"]:g}, betas 0.5 / 0.999, constant then linear to 0; weights averaged ({run["ema_decay"]}) |
| norm, precision, seed | {config.norm}, {run["precision"]}, {run["seed"]} |

## Figures

On {figures["crops"]} damaged crops of held-out micrographs, in network values (the micrograph's 1st and 99th percentile
lie at -1 and +1, PSNR with a data range of 2):

| | L1 | PSNR (dB) |
|---|---|---|
| damaged input | {figures["l1_input"]:.4f} | {figures["psnr_input"]:.2f} |
| restored | {figures["l1"]:.4f} | {figures["psnr"]:.2f} |

## Limits

- One seed, one mix of data: what it says about your instrument is unknown until you measure it on your own images.
- Pixel sizes were not recorded in the training data, so no range is claimed.
- The output is a plausible image, not a measurement: do not quantify intensities on it.
"""


def _strength(strength: dict[str, Any]) -> str:
    noise, blur = strength["noise"], strength["blur"]
    return f"Gaussian blur of {blur[0]:g} to {blur[1]:g} pixels, then Gaussian noise of {noise[0]:g} to {noise[1]:g}"
