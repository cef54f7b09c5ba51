"""What pretraining on CEM500K with the settings of the paper costs, estimated from counted operations.

python -m benchmarks.pretrain_cost --teraflops 10

A step runs the generator forward once and backward (twice the work), and the discriminator on clean
and generated images forward and backward, then on generated ones forward and back to the image:
    eight of its forward passes.
"""

import argparse
import sys

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from emfm import EMFoundation, EMFoundationConfig
from emfm.pretraining.pix2pix import PatchDiscriminator

GENERATORS = ("unet4-rf200", "unet4-rf200-w16", "hrnet-w18-small", "hrnet-w48")
SUBSETS = (50_000, 100_000, 200_000)
EPOCHS, SIDE = 60, 224


def gigaflops(network: nn.Module, *inputs: torch.Tensor) -> float:
    """Return the floating point operations of one forward pass, in 1e9."""
    with FlopCounterMode(display=False) as counter:
        network(*inputs)
    return counter.get_total_flops() / 1e9


def per_crop(generator: str) -> float:
    """Return the operations of a training step for one crop of 224 x 224, in 1e9."""
    image = torch.empty(1, 1, SIDE, SIDE)
    network = EMFoundation(EMFoundationConfig.from_name(generator)).eval()
    return 3 * gigaflops(network, image) + 8 * gigaflops(PatchDiscriminator(), image, image)


def table(teraflops: float) -> str:
    """Return GFLOP per crop and hours for each subset of the paper.

    Args:
        teraflops: operations that the device sustains, in 1e12 per second.
    """
    rows = ["| generator | GFLOP per crop | 50k | 100k | 200k |", "|---|---|---|---|---|"]
    for generator in GENERATORS:
        work = per_crop(generator)
        hours = [f"{work * EPOCHS * images / teraflops / 1e3 / 3600:.1f} h" for images in SUBSETS]
        rows.append(f"| `{generator}` | {work:.0f} | {' | '.join(hours)} |")
    return "\n".join(rows)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teraflops", type=float, default=10.0)
    sys.stdout.write(table(parser.parse_args().teraflops) + "\n")


if __name__ == "__main__":
    main()
