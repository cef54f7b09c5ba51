"""The demonstration's report: one HTML file with its pictures inside."""

import base64
import io
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from emfm.files import write_text

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1c2430; }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse }
th, td { padding: .35rem .9rem; text-align: right; border-bottom: 1px solid #d5dbe3 }
th:first-child, td:first-child { text-align: left }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1rem }
figure { margin: 0 } figure img { width: 100%; height: auto; border-radius: 4px } figcaption { font-weight: 600 }
.curves { max-width: 40rem; width: 100% } .small { color: #5a6675; font-size: .9rem }
"""


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
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>emfm demo</title><style>{STYLE}</style></head><body>
<h1>Pretrained against scratch on {summary["images"]["train"]} labelled micrographs</h1>
<p class="small">{escape(summary["model"])}, {summary["steps"]} steps each, same crops, same rate; data:
{escape(summary["data"])}. One seed: an illustration, not evidence.</p>
<table><tr><th></th><th>Dice, unseen image</th><th>IoU, unseen image</th><th>Dice, validation, last step</th></tr>
{rows}</table>
<p>{escape(_speed(summary))}</p>
<h2>Learning curves on the validation images</h2>
<img class="curves" src="data:image/png;base64,{curves}" alt="validation Dice over training steps">
<h2>An unseen micrograph, {unseen["shape"][1]} x {unseen["shape"][0]} pixels</h2>
<div class="grid">{figures}</div>
<p class="small">The fine-tuned model is in <code>model/</code>: use it with
<code>emfm predict --model model IMAGE --output results</code>.</p>
</body></html>
"""
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
