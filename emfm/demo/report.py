"""The demonstration's report: one HTML file with its pictures inside."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from emfm.files import write_text
from emfm.hub.card import TEMPLATES, fill


def write_report(output: Path, summary: dict[str, Any], pictures: dict[str, np.ndarray]) -> Path:
    """Write `report.html`.

    Args:
        output: the demonstration's folder; its `curves.png` goes into the page.
        summary: what `run_demo` measured.
        pictures: caption: grey or RGB uint8 picture.
    """
    page = fill(
        TEMPLATES / "demo_report.html",
        summary=summary,
        pictures={caption: _data_url(_jpeg(picture), "jpeg") for caption, picture in pictures.items()},
        curves=_data_url((output / "curves.png").read_bytes(), "png"),
    )
    path = output / "report.html"
    write_text(path, f"{page}\n")
    return path


def _jpeg(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=88)
    return buffer.getvalue()


def _data_url(content: bytes, kind: str) -> str:
    """Return an image file as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
