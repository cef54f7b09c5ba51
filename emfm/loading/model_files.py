"""Which files make a model folder, which of them are published, and their checksums."""

import json
from pathlib import Path

from emfm.errors import EMError
from emfm.files import sha256, write_text
from emfm.loading.domain import DOMAIN

CHECKSUMS = "checksums.json"
TEST_TENSORS = "test_tensors.safetensors"
# LoRA's additions, which a folder may hold in the place of whole weights.
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
# What loading or verifying a model reads: these have checksums.
LOADED = ("config.json", "preprocessor_config.json", "model.safetensors", *ADAPTER, TEST_TENSORS, DOMAIN)
RECORD = "finetuning.json"  # of a fine-tuning; written last: a folder with it is finished
# What tells of a model: people may correct a card, so these have none.
TOLD = ("README.md", "facts.json", RECORD, "curve.json", "curve.png")
PUBLISHED = (*LOADED, *TOLD, CHECKSUMS)
# Where checksums and test tensors come from.
WRITTEN_BY = "save_pretrained alone writes none; push_to_hub of model or trainer, emfm finetune and pretrain do"
# How files end that hold pickled weights, which emfm never reads.
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def write_checksums(folder: str | Path) -> None:
    """Write `checksums.json` with the SHA-256 of each file that loading or verifying reads."""
    folder = Path(folder)
    sums = {name: sha256(folder / name) for name in LOADED if (folder / name).is_file()}
    write_text(folder / CHECKSUMS, json.dumps(sums, indent=1))


def check_checksums(folder: str | Path) -> None:
    """Compare every file with its checksum.

    Raises:
        EMError: a file is missing, was changed or is not listed; the message names it.
    """
    folder = Path(folder)
    path = folder / CHECKSUMS
    if not path.is_file():
        raise EMError(f"{folder} has no {CHECKSUMS}, so its files cannot be verified: {WRITTEN_BY}")
    try:
        sums = json.loads(path.read_text(encoding="utf-8"))
        listed = {str(name): str(value) for name, value in sums.items()}
    except (ValueError, AttributeError) as error:
        raise EMError(f"{path} is damaged ({error}); expected each file's SHA-256") from error
    present = {name for name in LOADED if (folder / name).is_file()}
    for name in sorted(present | listed.keys()):
        if name not in LOADED:
            raise EMError(f"{path} lists {name}, which is no file of a model")
        if name not in present:
            raise EMError(f"{folder}: {name} is missing, though {CHECKSUMS} lists it: download or push it again")
        if name not in listed:
            raise EMError(f"{folder}: {name} is not listed in {CHECKSUMS}: it was added after the model was published")
        if sha256(folder / name) != listed[name]:
            raise EMError(f"{folder}: {name} was changed or cut short (its SHA-256 is not the one in {CHECKSUMS})")
