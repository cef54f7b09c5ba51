"""The model that a fine-tuning starts from; what was trained for something else gets a new head."""

import logging
from typing import Any

from emfm.config import EMFoundationConfig
from emfm.finetuning.arguments import GENTLE_RATE, RATE, FinetuneArguments
from emfm.loading.names import model_folder
from emfm.loading.strict import TASK_FIELDS, read_config
from emfm.tasks import TASKS
from emfm.tasks.task import EMTaskModel

logger = logging.getLogger(__name__)


def pretrained_start(task: type[EMTaskModel], name: str, fields: dict[str, Any]) -> EMTaskModel:
    """Load a model to fine-tune. A generator, or a model of the same task, loads as it is.

    Of a model for other classes or for another task the trunk is kept, with a warning.

    Args:
        task: what to learn.
        name: zoo name, folder or Hub id.
        fields: of the configuration, which the data decide.

    Raises:
        EMError: nothing goes by this name, or it does not load.
    """
    folder = model_folder(name)
    config, _ = read_config(folder)
    source = _trained_for(config)
    if source is None:
        return task.from_pretrained(name, **fields)
    reason = task.why_new_head(source, config, fields)
    if reason is not None:
        logger.warning("%s %s: its trunk is kept, its head is new", name, reason)
        return with_new_head(task, source.from_pretrained(name), fields)
    if (folder / "adapter_config.json").is_file():  # LoRA's additions come with their own fields
        return source.from_pretrained(name)
    return task.from_pretrained(name, **fields)


def learning_rate(args: FinetuneArguments) -> float:
    """Return the rate that is asked for, or else the one that measured best for such a start."""
    if args.learning_rate is not None:
        return args.learning_rate
    if not args.self_supervised or args.model is None:
        return RATE
    config, _ = read_config(model_folder(args.model))
    return GENTLE_RATE if _trained_for(config) is TASKS[args.task] else RATE


def _trained_for(config: EMFoundationConfig) -> type[EMTaskModel] | None:
    """Return the task of a model that was fine-tuned; None of a generator."""
    saved_by = (config.architectures or [""])[0]
    return next((known for known in TASKS.values() if known.__name__ == saved_by), None)


def with_new_head(task: type[EMTaskModel], trained: EMTaskModel, fields: dict[str, Any]) -> EMTaskModel:
    """Return a model of the task with the trunk and the processor of a model for something else."""
    of_generators = [key for key in EMFoundationConfig.__annotations__ if key not in TASK_FIELDS]
    generator = {key: getattr(trained.config, key) for key in of_generators}
    model = task(EMFoundationConfig(**{**generator, **fields}))
    model.trunk.load_state_dict(trained.trunk.state_dict())
    model.processor, model.name_or_path = model.fitting(trained.processor), trained.name_or_path
    return model
