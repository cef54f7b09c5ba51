"""The demonstration's report: one HTML file with figures, curves and pictures inside."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from emfm.data.examples import LabelledMicrographs
from emfm.files import write_text
from emfm.hub.card import TEMPLATES, figure, fill
from emfm.reports.pictures import overlay, to_display


def write_report(
    output: Path, summary: dict[str, Any], unseen: LabelledMicrographs, class_maps: dict[str, list[np.ndarray]]
) -> None:
    """Write `report.html`.

    Args:
        output: folder that holds `curves.png`.
        summary: as `run_demo` returns it.
        unseen: micrographs with their truth.
        class_maps: answers (H, W) for each of them, by who gave them.
    """
    rows = []
    for number, (image, truth) in enumerate(zip(unseen.images, unseen.masks, strict=True)):
        shown = {"Micrograph": to_display(image), "Truth": overlay(image, truth, unseen.id2label)}
        for name, maps in class_maps.items():
            dice = figure(summary["unseen"][name]["each"][number], ".3f")
            shown[f"{name}, Dice {dice}"] = overlay(image, maps[number], unseen.id2label)
        rows.append({caption: _picture(picture) for caption, picture in shown.items()})
    curves = _data_url((output / "curves.png").read_bytes(), "png")
    values = {"summary": summary, "rows": rows, "curves": curves, "figure": figure, "names": list(class_maps)}
    write_text(output / "report.html", f"{fill(TEMPLATES / 'demo_report.html', **values)}\n")


def _picture(picture: np.ndarray) -> str:
    """Return a picture, grey or RGB uint8, as an address that holds it."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=88)
    return _data_url(buffer.getvalue(), "jpeg")


def _data_url(content: bytes, kind: str) -> str:
    """Return an image file as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
