"""The crops that a fine-tuning trains on."""

import logging
from typing import Any

from torch.utils.data import Dataset, IterableDataset

from emfm.data.augmentation import Augmentation
from emfm.data.croppers import StreamedTrainingCrops, TrainingCrops
from emfm.data.examples import Examples
from emfm.data.streamed_examples import StreamedExamples
from emfm.finetuning.trainer_arguments import EMTrainingArguments
from emfm.finetuning.truth import check_training_truth, say_useless
from emfm.tasks.task import EMTaskModel

logger = logging.getLogger(__name__)
# So many crops tell a new head what the features mean.
HEAD_CROPS = 16


def training_crops(
    model: EMTaskModel, args: EMTrainingArguments, data: Any, crops_per_step: int
) -> Dataset | IterableDataset:
    """Return training crops of micrographs; other data are ready for the model as they are.

    Raises:
        EMError: the data do not fit the model, or hold nothing to learn from.
    """
    if not isinstance(data, (Examples, StreamedExamples)):
        return data
    model.check_data(data.like, "the training data")
    if isinstance(data, Examples):
        check_training_truth(model, data, "the training data")
        say_useless(data, "the training data")
    model.learn_units(data)
    note_pixel_sizes(model, data)
    cropper = model.cropper(data.like, args.crop, Augmentation(args.intensity_jitter, args.augment))
    if isinstance(data, StreamedExamples):
        return StreamedTrainingCrops(data, cropper, args.seed, (args.process_index, args.world_size))
    count = args.max_steps * crops_per_step or HEAD_CROPS
    return TrainingCrops(data, cropper, count, args.seed)


def note_pixel_sizes(model: EMTaskModel, data: Any) -> None:
    """Note in the configuration the smallest and largest pixel size that is trained at.

    Where not all micrographs say theirs, none is noted: those of the first weights are not kept.
    """
    sizes = data.pixel_sizes if isinstance(data, Examples) else []
    known = [size for size in sizes if size is not None]
    model.config.pixel_size_range = [min(known), max(known)] if known and len(known) == len(sizes) else None
    if known and len(known) < len(sizes):
        logger.warning(
            "%d of %d training micrographs do not say their pixel size: none is noted with the model",
            *(len(sizes) - len(known), len(sizes)),
        )
