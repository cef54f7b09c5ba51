"""Draw the pictures of docs/trust.md: residuals good and bad, a sure and an unsure map, micrographs inside and outside.

All micrographs are simulated. A network is fine-tuned on eight of them, on the way.

    python -m benchmarks.trust_pictures
"""

import logging
import sys
import tempfile
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage

from benchmarks.opening import SAMPLE, SETTINGS
from benchmarks.render import PICTURES, ROOT
from benchmarks.trust_cell import changes
from emfm import EMForSemanticSegmentation, EMTrainer, EMTrainingArguments, load_em_dataset, predict
from emfm.files import write_atomically
from emfm.reports.pictures import overlay, to_display, unsure
from emfm.reports.residual import measure_residual
from emfm.simulate.folder import write_simulated_folder
from emfm.simulate.nanoparticles import simulate_nanoparticles

MODEL, STEPS, SIDE, UNSEEN = "hrnet-w18-small", 30, 256, 10_007


def fine_tuned(folder: Path) -> EMForSemanticSegmentation:
    """Return a model of simulated nanoparticles."""
    data = str(write_simulated_folder("nanoparticles", folder / "data", 10, (SIDE, SIDE), 0, SAMPLE))
    training = load_em_dataset(data, "train")
    model = EMForSemanticSegmentation.from_pretrained(MODEL, id2label=training.id2label)
    arguments = EMTrainingArguments(output_dir=str(folder / "run"), max_steps=STEPS, **SETTINGS)
    EMTrainer(model, arguments, training, load_em_dataset(data, "validation")).train()
    return model


def residuals(figure: Figure) -> None:
    """Draw what four restorations took away."""
    rng = np.random.default_rng(0)
    clean = ndimage.gaussian_filter(simulate_nanoparticles((SIDE, SIDE), UNSEEN, SAMPLE).image.astype(float), 1.5)
    contrast = float(np.subtract(*np.percentile(clean, [99, 1])))
    noise = rng.normal(0, 0.25 * contrast, clean.shape)
    lines = rng.normal(0, 0.15 * contrast, (SIDE, 1))
    cases = {
        "good: noise alone": (clean + noise, clean),
        "too smooth": (clean + noise, ndimage.gaussian_filter(clean, 9)),
        "scan lines removed": (clean + noise + lines, clean),
        "hardly changed": (clean + noise, clean + 0.8 * noise),
    }
    rows = figure.subplots(3, len(cases))
    for column, (title, (image, output)) in zip(rows.T, cases.items(), strict=True):
        found, residual = measure_residual(image, output)
        shown = {title: image, "result": output, f"taken away: {' and '.join(found.looks_like)}": residual}
        for axes, (label, array) in zip(column, shown.items(), strict=True):
            _show(axes, to_display(array), label)


def sureness(figure: Figure, model: EMForSemanticSegmentation) -> None:
    """Draw a result that is sure, and one that is not."""
    sample = simulate_nanoparticles((SIDE, SIDE), UNSEEN, SAMPLE)
    rng = np.random.default_rng(1)
    spread = float(np.subtract(*np.percentile(sample.image, [99, 1])))
    noisy = sample.image.astype(np.float32) + rng.normal(0, 0.6 * spread, sample.image.shape).astype(np.float32)
    for row, (title, image) in zip(
        figure.subplots(2, 3), {"as in training": sample.image, "with more noise": noisy}.items(), strict=True
    ):
        found = predict(model, image, uncertainty=True, compare=False)
        assert found.confidence is not None
        wrong = float(((found.output > 0) != (sample.mask > 0)).mean())
        _show(row[0], to_display(image), title)
        _show(row[1], overlay(image, found.output, found.labels), f"particles, {wrong:.1%} of the pixels wrong")
        below = found.confidence["share_below"]
        _show(row[2], unsure(found)[0], f"unsure (orange), {below:.1%} less sure than 0.9")


def domains(figure: Figure, model: EMForSemanticSegmentation) -> None:
    """Draw micrographs inside and outside of what the model knows, with what is said of them."""
    image = simulate_nanoparticles((SIDE, SIDE), UNSEEN + 1, SAMPLE).image
    for axes, (name, shown) in zip(
        figure.subplots(1, 5), {"as in training": image, **changes(image)}.items(), strict=True
    ):
        place = predict(model, shown).domain
        words = "inside" if place.inside else place.told()
        _show(axes, to_display(shown), f"{name}\n{place.distance:.1f}: {fill(words, 30)}")


def _show(axes: Any, picture: np.ndarray, title: str) -> None:
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
    axes.set_title(title, fontsize=8)
    axes.set_axis_off()


def main() -> int:
    """Draw and write all pictures; returns the exit code."""
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        model = fine_tuned(Path(folder))
    for name, size, draw in (
        ("trust-residuals", (9, 7), residuals),
        ("trust-unsure", (9, 6), lambda figure: sureness(figure, model)),
        ("trust-domain", (11, 3.3), lambda figure: domains(figure, model)),
    ):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        path = ROOT / PICTURES / f"{name}.png"
        write_atomically(path, lambda temporary, figure=figure: figure.savefig(temporary, dpi=90, format="png"))
        sys.stdout.write(f"{path.relative_to(ROOT)} drawn\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
