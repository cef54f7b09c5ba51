"""The generator as it is before the first step: random weights, ImageNet's, or those of a model."""

import logging
from dataclasses import replace

from emfm.backbones import BACKBONES, has_norms
from emfm.config import EMFoundationConfig
from emfm.defaults import DEFAULT_GENERATOR
from emfm.errors import EMError
from emfm.loading.names import model_folder
from emfm.loading.strict import read_config
from emfm.modeling import EMFoundation
from emfm.pretraining.arguments import IMAGENET, PretrainArguments

logger = logging.getLogger(__name__)


def with_generator(args: PretrainArguments) -> PretrainArguments:
    """Return the settings with the generator's name, norm and residual, those of the first weights.

    Raises:
        EMError: a setting contradicts the model that `init` names.
    """
    if args.init is None or args.init == IMAGENET:
        return replace(args, generator=args.generator or DEFAULT_GENERATOR)
    config, _ = read_config(model_folder(args.init))
    own = {"generator": config.generator, "norm": config.norm, "residual": config.residual}
    for name, value in own.items():
        asked = getattr(args, name)
        if asked is not None and asked != value:
            raise EMError(f"{name} is {asked}, but {args.init} has {value}: leave it out, or go on from another model")
    norm = config.norm if has_norms(config.generator) else None
    return replace(args, generator=config.generator, norm=norm, residual=config.residual)


def new_generator(args: PretrainArguments) -> EMFoundation:
    """Return the generator with its first weights; random ones follow from torch's seed.

    Raises:
        EMError: the weights cannot be had.
    """
    if args.init is not None and args.init != IMAGENET:
        model = EMFoundation.from_pretrained(args.init)
        if model.new_head:
            logger.warning("%s has no head that makes an image: it begins with a new one", args.init)
        model.config.id2label = EMFoundationConfig().id2label
        model.config.scale, model.config.target_units, model.config.class_weights = 1, None, None
        model.config.class_offsets, model.config.temperature = None, 1.0
        model.config.pretraining = None
        return model
    norm = {} if args.norm is None else {"norm": args.norm}
    config = EMFoundationConfig.from_name(args.generator or DEFAULT_GENERATOR, **norm)
    drawn_anew = BACKBONES[config.backbone].full_resolution
    config.residual = not drawn_anew if args.residual is None else args.residual
    model = EMFoundation(config)
    if args.init == IMAGENET:
        logger.warning("the encoder begins with ImageNet weights: %s", model.trunk.load_imagenet())
    return model
