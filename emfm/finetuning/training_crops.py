"""The crops that a fine-tuning trains on."""

from typing import Any

from torch.utils.data import Dataset, IterableDataset

from emfm.data.augmentation import Augmentation
from emfm.data.croppers import StreamedTrainingCrops, TrainingCrops
from emfm.data.examples import Examples
from emfm.data.streamed_examples import StreamedExamples
from emfm.finetuning.trainer_arguments import EMTrainingArguments
from emfm.finetuning.truth import check_training_truth
from emfm.tasks.task import EMTaskModel

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
    model.learn_units(data)
    cropper = model.cropper(data.like, args.crop, Augmentation(args.intensity_jitter, args.augment))
    if isinstance(data, StreamedExamples):
        return StreamedTrainingCrops(data, cropper, args.seed, (args.process_index, args.world_size))
    count = args.max_steps * crops_per_step or HEAD_CROPS
    return TrainingCrops(data, cropper, count, args.seed)
