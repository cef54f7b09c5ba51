"""The benchmark of what pretraining is worth: its runs, what it reads from their results, its pages."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import disc_image
from processes import quick_context

from benchmarks.render import rendered
from benchmarks.studies import RATES, SEEDS, STUDIES, TUNING, Problem, Study, chosen_rate, representative
from benchmarks.transfer import parse, run_cells
from benchmarks.transfer_cell import MARKS, SIDE, Cell, Places, centred, run_cell
from benchmarks.transfer_plots import plot
from benchmarks.transfer_report import Curve, curves, describe, read_results
from benchmarks.transfer_tables import averages, comparison, cost, line_of, panel_of, reached, summary, verdict
from emfm import EMError, EMFoundation, EMFoundationConfig
from emfm.data.examples import LabelledMicrographs, PairedMicrographs
from emfm.io.writing import write_image

STUDY = Study("Test", (Problem("segmentation", "discs"),), generators=("unet2-rf44",), rate=1e-3)
CELL = STUDY.cells({})[0]


def result(cell: Cell, values) -> dict:
    name = "dice" if cell.task == "segmentation" else "l1"
    curve = [{"share": s, name: v} for s, v in zip(MARKS, values, strict=True)]
    return {**asdict(cell), "trivial": {name: 0.25}, "curve": curve}


def results_of(study: Study, values: dict[str, list[float]], spread: float = 0.0) -> dict:
    """Results in which a start's runs have given values, moved by the seed."""
    return {cell: result(cell, np.array(values[cell.start]) + spread * (cell.seed - 1)) for cell in study.cells({})}


RANDOM, ZOO = [0.1, 0.2, 0.3, 0.5, 0.7, 0.8], [0.2, 0.4, 0.6, 0.8, 0.82, 0.84]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A labelled folder in three splits, and weights of a start."""
    root = tmp_path_factory.mktemp("transfer")
    names = {"train": ["0.png", "1.png"], "validation": ["2.png"], "test": ["3.png"]}
    for index in range(4):
        for part, image in zip(("images", "masks"), disc_image(48, index), strict=True):
            write_image(root / "data" / "discs" / part / f"{index}.png", image)
    (root / "data" / "discs" / "labels.json").write_text('{"0": "background", "255": "disc"}')
    (root / "data" / "discs" / "splits.json").write_text(json.dumps(names))
    EMFoundation(EMFoundationConfig.from_name("unet2-rf44")).save_pretrained(root / "starts" / "mine" / "unet2-rf44")
    return Places(root / "data", root / "starts")


@pytest.mark.parametrize(
    ("protocol", "start", "part", "task", "degrade"),
    [
        ("strong", "random", "all", "segmentation", None),
        ("paper", "mine", "all", "segmentation", None),
        ("strong", "mine", "LoRA of rank 8", "segmentation", None),
        ("strong", "mine", "last 3 blocks", "denoising", "dose"),
    ],
)
def test_a_run_is_measured_at_every_mark(protocol, start, part, task, degrade, places):
    fields = {"protocol": protocol, "start": start, "part": part, "task": task, "degrade": degrade}
    cell = replace(CELL, **fields, num_images=1, steps=20, batch_size=1, crop=32)
    found = run_cell(cell, places)
    assert [entry["step"] for entry in found["curve"]] == [0, 1, 2, 5, 10, 20]
    assert {name: found[name] for name in asdict(cell)} == asdict(cell)
    assert (found["weights"] is None) == (start == "random") and found["n"] == 1
    name = "dice" if task == "segmentation" else "l1"
    assert found["trivial"][name] > 0 and all(np.isfinite(entry[name]) for entry in found["curve"])
    assert found["curve"][-1] == run_cell(cell, places)["curve"][-1], "the cell decides the run"


def test_runs_are_written_as_they_end_and_not_repeated(places, tmp_path, monkeypatch):
    path = tmp_path / "results.jsonl"
    cells = [replace(CELL, num_images=1, steps=20, batch_size=1, crop=32, seed=seed) for seed in (0, 1)]
    context = quick_context()
    monkeypatch.setattr("benchmarks.transfer.multiprocessing.get_context", lambda _: context)
    run_cells(cells[:1], places, path, 1)
    run_cells(cells, places, path, 1)
    assert [json.loads(line)["seed"] for line in path.read_text().splitlines()] == [0, 1]
    assert list(read_results(path)) == cells
    with pytest.raises(EMError, match="has no weights"):
        run_cells([replace(cells[0], start="nothing")], places, path, 1)
    assert len(path.read_text().splitlines()) == 2


def test_large_micrographs_are_measured_at_their_centre():
    image = np.arange(900 * 800).reshape(900, 800)
    part = centred(LabelledMicrographs([image] * 30, [str(i) for i in range(30)], [None] * 30, [image % 2] * 30, {}))
    assert part.names[0] == "0" and part.names[-1] == "29" and len(part) == 12
    assert part.images[0].shape == (SIDE, SIDE) and part.images[0][0, 0] == image[66, 16]
    assert np.array_equal(part.masks[3], part.images[3] % 2)
    finer = np.kron(image, np.ones((2, 2), dtype=int))
    pairs = centred(PairedMicrographs([image], ["a"], [None], [finer], 2))
    assert np.array_equal(pairs.targets[0][::2, ::2], pairs.images[0])


def test_a_curve_reaches_a_value_between_two_marks():
    curve = Curve("segmentation", np.array([ZOO]), 0.25)
    assert curve.reaches(0.2) == 0 and curve.reaches(0.5) == pytest.approx(0.075) and curve.reaches(0.9) is None
    assert Curve("denoising", np.array([RANDOM[::-1]]), 0.25).reaches(0.6) == pytest.approx(0.075)
    assert reached(curve, Curve("segmentation", np.array([RANDOM]), 0.25)) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (ZOO, []),
        ([0.1, 0.2, 0.2, 0.8, 0.8, 0.79], ["not above at 10 %"]),  # within the spread of 0.02
        ([0.1, 0.2, 0.4, 0.5, 0.6, 0.75], ["below at the end"]),
    ],
)
def test_a_start_is_judged_early_and_at_the_end(values, expected):
    found = curves(STUDY.cells({}), results_of(STUDY, {"random": RANDOM, "zoo": values}, spread=0.02))
    random, other = (found[kind] for kind in found)
    assert verdict(next(kind for kind in found if kind.start == "zoo"), other, random) == expected


def test_lower_is_better_for_restoration():
    study = replace(STUDY, problems=(Problem("denoising", "discs", "dose"),))
    found = results_of(study, {"random": [0.4, 0.3, 0.2, 0.1, 0.1, 0.1], "zoo": [0.3, 0.2, 0.1, 0.1, 0.1, 0.12]})
    assert "below at the end" in comparison(study, found) and "0.2000 ± 0.0000 | 0.1000 ± 0.0000" in comparison(
        study, found
    )


def test_the_tables_hold_means_and_spreads():
    found = results_of(STUDY, {"random": RANDOM, "zoo": ZOO}, spread=0.02)
    row = comparison(STUDY, found).splitlines()[-1]
    assert row == (
        "| discs | unet2-rf44 | 0.250 | 0.300 ± 0.020 | 0.600 ± 0.020 | 0.800 ± 0.020 | 0.840 ± 0.020 | 25% | yes |"
    )
    assert "above random weights at 10 % of the steps in 1 of 1 problems" in summary(STUDY, found)
    assert "after 25% of the steps" in summary(STUDY, found)
    assert averages(STUDY, found).splitlines()[-1].startswith("| pretrained | 0.200 ± 0.020 | 0.400 ± 0.020 |")
    timed = {cell: run | {"seconds": 900.0, "precision": "fp32"} for cell, run in found.items()}
    next(iter(timed.values()))["precision"] = "bf16"
    assert cost(timed) == "6 runs, 1 in bf16 and 5 in fp32: 1.5 hours of one processor core in all."


def test_the_rate_is_chosen_by_validation_runs_that_are_not_reported():
    study = replace(STUDY, rate=None, problems=TUNING["segmentation"])
    tuning = study.tuning()
    assert {cell.split for cell in tuning} == {"validation"} and not {cell.seed for cell in tuning} & set(SEEDS)
    found = {c: result(c, [0, 0, 0, 0, 0, {3e-4: 0.5, 1e-3: 0.7, 3e-3: 0.6}[c.learning_rate]]) for c in tuning}
    assert chosen_rate("segmentation", "unet2-rf44", "zoo", found) == 1e-3
    cells = study.cells(found)
    assert {cell.learning_rate for cell in cells} == {1e-3} and {cell.split for cell in cells} == {"test"}
    assert len(cells) == len(study.problems) * 2 * len(SEEDS) and len(tuning) == len(TUNING["segmentation"]) * 2 * len(
        RATES
    )


def test_a_network_takes_the_rate_of_its_representative():
    assert representative("unet2-rf44") == "unet4-rf200" and representative("unet3-rf96-w16") == "unet4-rf200-w16"
    assert representative("hrnet-w18-small") == "hrnet-w18-small"


def test_pages_are_rendered_between_their_marks_and_every_study_parses():
    study = STUDIES["pretexts"]
    values = dict.fromkeys(study.starts, RANDOM)
    text = "before\n<!-- pretexts -->\nold\n<!-- /pretexts -->\nafter\n"
    page = rendered(text, results_of(study, values))
    assert page.startswith("before\n<!-- pretexts -->\n| start |") and page.endswith("|\n<!-- /pretexts -->\nafter\n")
    assert rendered(page, results_of(study, values)) == page
    assert parse(["--data", "x", *STUDIES]).studies == list(STUDIES)


@pytest.mark.parametrize(
    ("name", "panel", "line"),
    [
        ("segmentation", "vnc_mitochondria\nunet4-rf200-w16", "random"),
        ("labels", "alumina_pt\n1 image", "random"),
        ("widths", "vnc_mitochondria", "random, unet4-rf200"),
        ("parts", "vnc_mitochondria", "random, all"),
    ],
)
def test_a_picture_has_a_panel_and_a_line_for_what_its_study_varies(name, panel, line):
    study = replace(STUDIES[name], rate=1e-3)
    first = study.cells({})[0]
    assert (panel_of(study, first), line_of(study, first)) == (panel, line)


def test_curves_are_drawn_with_a_panel_a_problem(tmp_path):
    from PIL import Image

    found = curves(STUDY.cells({}), results_of(STUDY, {"random": RANDOM, "zoo": ZOO}, spread=0.05))
    plot(found, describe, lambda cell: cell.start, tmp_path / "curves.png")
    picture = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB")).reshape(-1, 3)
    assert (picture == (0, 0x72, 0xB2)).all(axis=1).sum() > 100  # the zoo's line
    assert (picture == (0x7F, 0x7F, 0x7F)).all(axis=1).sum() > 100  # random weights
    assert Path(tmp_path / "curves.png").stat().st_size < 100_000
