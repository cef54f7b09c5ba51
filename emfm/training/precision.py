"""Which precision a device computes in, and what the wrong one costs."""

import logging

import torch

logger = logging.getLogger(__name__)


def bf16_units() -> bool:
    """Tell whether the device computes bfloat16 in hardware: a recent GPU, or a CPU with AMX or AVX512-BF16."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def warn_of_emulated_bf16() -> None:
    """Log a warning where bf16 is asked for and the device has no units for it.

    A step of `unet4-rf200-w16` on such a CPU took thirty times as long as in fp32.
    """
    if not bf16_units():
        logger.warning(
            "precision is bf16, which this device computes without units for it, many times slower than fp32: "
            "use --precision fp32"
        )
