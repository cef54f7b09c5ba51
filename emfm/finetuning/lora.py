"""LoRA (Hu et al. 2021, arXiv:2106.09685) through PEFT: small additions to frozen weights."""

from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from emfm.errors import EMError
from emfm.files import whole_files
from emfm.modeling import EMPreTrainedModel


def add_lora(model: EMPreTrainedModel, rank: int, base: str) -> PeftModel:
    """Freeze a model and add terms of low rank to its trunk's convolutions; the head learns whole.

    Args:
        model: gets the additions in place and goes on working by itself.
        rank: of the additions, 1 or more.
        base: name, folder or Hub id of the pretrained weights, which the adapter needs again.

    Returns:
        PEFT's view of the model, which saves the additions alone and merges them.
    """
    if not base:
        raise EMError("LoRA adds to trained weights; this model has random ones: use from_pretrained")
    if rank < 1:
        raise EMError(f"the rank of LoRA's additions is {rank}; expected 1 or more")
    names = [f"trunk.{name}" for name, module in model.trunk.named_modules() if _takes_additions(module)]
    head = [model.head_name]
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=names, modules_to_save=head, base_model_name_or_path=base
    )
    model.name_or_path = base  # PEFT writes it down as what the additions belong to
    return get_peft_model(model, config)


def _takes_additions(module: nn.Module) -> bool:
    """Tell whether a layer mixes all its channels: one that works on each alone has no low rank."""
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def write_model(model: EMPreTrainedModel, adapter: PeftModel | None, folder: Path) -> None:
    """Write a model, or what LoRA adds to one, into a folder; each file is whole, none a pickle."""
    with whole_files(folder) as temporary:
        if adapter is None:
            return model.save_pretrained(temporary)
        adapter.save_pretrained(str(temporary), safe_serialization=True, save_embedding_layers=False)
        (temporary / "README.md").unlink()  # PEFT's own says nothing
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(temporary)
        model.processor.save_pretrained(temporary)
    return None
