"""From what `load_em_dataset` returns to the crops that a trainer draws."""

from typing import Any

from emfm.data.croppers import new_cropper
from emfm.data.examples import Examples, PairedMicrographs
from emfm.data.streamed_examples import StreamedExamples
from emfm.data.training_crops import StreamedTrainingCrops, TrainingCrops
from emfm.finetuning.evaluate import check_data
from emfm.finetuning.trainer_arguments import EMTrainingArguments
from emfm.tasks.task import EMTaskModel

# Of a stream of pairs so many tell the units of the targets.
UNIT_SAMPLE = 32


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
    kind = data.like if isinstance(data, StreamedExamples) else data
    check_data(model, kind, "the training data")
    units = (1.0, 0.0)
    if isinstance(kind, PairedMicrographs):
        sample: Any = data.take(UNIT_SAMPLE) if isinstance(data, StreamedExamples) else data
        units = sample.target_units()
        model.config.target_units = None if units == (1.0, 0.0) else list(units)
    cropper = new_cropper(kind, model.processor, args.crop, args.intensity_jitter, units)
    if isinstance(data, StreamedExamples):
        return StreamedTrainingCrops(data, cropper, args.seed, (args.process_index, args.world_size))
    return TrainingCrops(data, cropper, args.max_steps * crops_per_step(args), args.seed)
