"""A small JSON file beside each result: what it was made from, so that a run that was stopped can go on."""

import hashlib
import json
from pathlib import Path
from typing import Any

from emfm.files import write_text
from emfm.modeling import EMPreTrainedModel


def fingerprint(model: EMPreTrainedModel) -> str:
    """Return the SHA-256 of a model's weights, processor and what its configuration says of the task."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().contiguous().cpu().numpy().tobytes())
    config = model.config
    facts = [type(model).__name__, config.norm, config.scale, model.classes, config.residual, config.pixel_size_range]
    processor = model.processor
    digest.update(json.dumps([facts, processor.low, processor.high, processor.clip], default=str).encode())
    return digest.hexdigest()


def input_facts(path: Path) -> dict[str, Any]:
    """Return name, size in bytes and time of change of a file, or of all in a folder such as a Zarr image."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    states = [file.stat() for file in files]
    return {
        "name": path.name,
        "bytes": sum(state.st_size for state in states),
        "changed": max((state.st_mtime_ns for state in states), default=0),
    }


def record_path(result: Path) -> Path:
    """Return where the record of a result stands: `NAME.tif.json` beside `NAME.tif`."""
    return result.with_name(f"{result.name}.json")


def read_record(result: Path) -> dict[str, Any] | None:
    """Return the record of a finished result, None where there is none or the result is gone."""
    try:
        found = json.loads(record_path(result).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and result.exists() else None


def write_record(result: Path, made_from: dict[str, Any], facts: dict[str, Any]) -> None:
    """Write the record of a result that is complete.

    Args:
        result: the result's file.
        made_from: input, model and settings; a later run with the same skips this result.
        facts: what is worth knowing of the result.
    """
    write_text(record_path(result), json.dumps({"made_from": made_from, **facts}, indent=1))
