"""A model folder that can be loaded, verified and pushed as it is."""

from pathlib import Path

from emfm.hub.verify import write_test_tensors
from emfm.modeling import EMFoundation
from emfm.pretraining.card import pretraining_card


def write_model_folder(model: EMFoundation, folder: Path) -> None:
    """Write configuration, weights, processor, test tensors and card into a folder.

    Args:
        model: `config.pretraining` holds recipe, cost and validation figures.
        folder: is made.
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=weights)
    # of the model as users will load it: that in training has another memory layout, and may be on a GPU
    write_test_tensors(EMFoundation.from_pretrained(folder), folder)
    (folder / "README.md").write_text(pretraining_card(model.config), encoding="utf-8")
