"""What a task says of itself in model cards and in packages for other programs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CardWords:
    """What the card of a fine-tuned model takes from its task; by default that of an image from pairs.

    Args:
        pipeline_tag: the Hub's name of the task.
        output: what `predict` returns.
        image: what one training micrograph is called.
        truth: added to that: what it comes with.
        needs: what micrographs of another kind may need of their own.
        limits: further limits, a sentence each.
    """

    pipeline_tag: str = "image-to-image"
    output: str = "an image, in the units of the targets"
    image: str = "micrograph"
    truth: str = " with targets"
    needs: str = "pairs"
    limits: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportWords:
    """What a package for other programs says of a task; by default that of a restoration.

    Args:
        tag: the kind of task, among the tags of bioimage.io.
        output: name of what the network puts out.
        finished: name of what it is after `steps`.
        channel: name of the output's channel, where there are no classes.
        description: of the finished output, in a line.
        meaning: of its values.
        metric: what to measure on own micrographs.
        steps: what makes the output the finished one, in bioimage.io's names.
    """

    tag: str = "image-restoration"
    output: str = "reconstruction"
    finished: str = "reconstruction"
    channel: str = "intensity"
    description: str = "restored image, in network values"
    meaning: str = "the restored image, -1 and +1 being those percentiles"
    metric: str = "L1, PSNR and SSIM"
    steps: tuple[str, ...] = ()
