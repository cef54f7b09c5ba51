"""What a fine-tuned model keeps so that others can tell how far to trust it."""

from typing import Any

from emfm.finetuning.calibration import note_calibration
from emfm.finetuning.separation import note_separation
from emfm.inference.domain import domain_of_examples
from emfm.loading.domain import write_domain


def note_for_trust(trainer: Any) -> None:
    """Keep with a trainer's model how sure it may be, and what its micrographs were like.

    Thresholds of objects are chosen with it, for they come from the same micrographs.
    """
    model, validation = trainer.model, trainer.eval_dataset
    folder = str(trainer.args.output_dir) if trainer.is_world_process_zero() else None
    note_calibration(model, validation, trainer.training_kind, folder)
    if model.config.class_offsets is not None and not trainer.amended():
        note_calibration(model, validation, trainer.training_kind, folder, offsets=False)
    note_separation(model, validation, folder)
    model.domain = domain_of_examples(model, trainer.training_kind)
    if model.domain is not None and folder is not None:
        write_domain(model.domain, folder)
