"""From what `load_em_dataset` returns to the crops that a trainer draws."""

from typing import Any

from emfm.data.examples import Examples
from emfm.data.streamed_examples import StreamedExamples
from emfm.data.training_crops import StreamedTrainingCrops, TrainingCrops
from emfm.finetuning.trainer_arguments import EMTrainingArguments
from emfm.tasks.task import EMTaskModel


def crops_per_step(args: EMTrainingArguments) -> int:
    """Return how many crops all processes together make one step of."""
    return args.train_batch_size * args.gradient_accumulation_steps * args.world_size


def training_crops(model: EMTaskModel, args: EMTrainingArguments, data: Any) -> Any:
    """Return training crops of micrographs; a dataset of items that are ready for the model as it is.

    Pairs whose targets have other units than their images leave the relation in the model's configuration.

    Raises:
        EMError: the data do not fit the model, or the crop does not fit the scale.
    """
    if not isinstance(data, (Examples, StreamedExamples)):
        return data
    model.check_data(data.like, "the training data")
    model.learn_units(data)
    cropper = model.cropper(data.like, args.crop, args.intensity_jitter)
    if isinstance(data, StreamedExamples):
        return StreamedTrainingCrops(data, cropper, args.seed, (args.process_index, args.world_size))
    return TrainingCrops(data, cropper, args.max_steps * crops_per_step(args), args.seed)
