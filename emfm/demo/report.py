"""The demonstration's report: one HTML file with its pictures inside."""

import base64
import io
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from emfm.files import write_text

TEMPLATE = Path(__file__).with_name("report.html")


def write_report(output: Path, summary: dict[str, Any], pictures: dict[str, np.ndarray]) -> Path:
    """Write `report.html`.

    Args:
        output: the demonstration's folder; its `curves.png` goes into the page.
        summary: what `run_demo` measured.
        pictures: caption: grey or RGB uint8 picture.
    """
    unseen = summary["unseen"]
    rows = "".join(
        f"<tr><td>{name}</td><td>{unseen[name]['dice']:.3f}</td><td>{unseen[name]['iou']:.3f}</td>"
        f"<td>{summary['curves'][name][-1]['dice']:.3f}</td></tr>"
        for name in ("pretrained", "scratch")
    )
    figures = "".join(
        f"<figure><figcaption>{escape(caption)}</figcaption>"
        f'<img src="{_jpeg(picture)}" alt="{escape(caption)}"></figure>'
        for caption, picture in pictures.items()
    )
    curves = base64.b64encode((output / "curves.png").read_bytes()).decode()
    page = TEMPLATE.read_text(encoding="utf-8").format(
        summary=summary,
        model=escape(summary["model"]),
        data=escape(summary["data"]),
        rows=rows,
        speed=escape(_speed(summary)),
        curves=curves,
        figures=figures,
    )
    path = output / "report.html"
    write_text(path, page)
    return path


def _speed(summary: dict[str, Any]) -> str:
    step = summary["pretrained_reaches_final_scratch_at_step"]
    if step is None:
        return "The pretrained start did not reach scratch's final validation Dice."
    return f"The pretrained start reached scratch's final validation Dice at step {step} of {summary['steps']}."


def _jpeg(picture: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
