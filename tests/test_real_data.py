"""Checks on real micrographs, where they lie beside the checkout; skipped elsewhere."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from emfm import EMFoundation, load_em_dataset, read_micrograph
from emfm.data.degradations import Corruption, CorruptionStrength
from emfm.hub.zoo import model_info
from emfm.io.reading import list_micrographs
from emfm.loading.names import bundled_names

DATA = Path(__file__).parents[2] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no real micrographs beside the checkout")

LABELLED = {
    "vnc_mitochondria": 2, "isbi_membrane": 2, "axon_myelin": 3, "superalloy_precipitates": 3, "alumina_pt": 3,
    "emps_particles": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", LABELLED)
def test_every_labelled_set_loads_with_its_classes_in_every_split(name):
    for split in ("train", "validation", "test"):
        data = load_em_dataset(DATA / "downstream" / name, split)
        assert len(data.id2label) == LABELLED[name]
        found = set().union(*(np.unique(mask).tolist() for mask in data.masks))
        assert found == set(range(LABELLED[name])), f"{split} of {name}"


def test_every_micrograph_for_pretraining_is_readable():
    files = list_micrographs(DATA / "pretrain")
    assert len(files) >= 614  # the folder grows
    for path in files[::20]:
        image = read_micrograph(path).image
        assert image.ndim == 2 and image.dtype.kind == "u" and np.ptp(image) > 0, path


@pytest.mark.parametrize("model_name", [n for n in bundled_names() if model_info(n).task != "super-resolution"])
def test_a_bundled_model_restores_micrographs_that_it_never_saw_where_its_card_says_so(model_name):
    model = EMFoundation.from_pretrained(model_name).eval()
    strength = CorruptionStrength(noise=(0.3, 0.3), blur=(1.0, 1.0))
    left = {}
    for set_name in ("vnc_mitochondria", "superalloy_precipitates", "emps_particles", "alumina_pt"):
        image = load_em_dataset(DATA / "downstream" / set_name, "validation").images[0][:256, :256]
        clean = model.processor(image)["pixel_values"]
        damaged, clean = Corruption("paper", strength, seed=0)(clean, torch.tensor([[0, 0]]))
        before, after = ((clean - other).abs().mean().item() for other in (damaged, model.maps(damaged)))
        left[set_name] = after / before
    claimed = any(use.startswith("As it is") for use in model_info(model_name).intended_use)
    assert (max(left.values()) < 0.95) == claimed, left


@pytest.mark.slow
@pytest.mark.parametrize("model_name", [name for name in bundled_names() if model_info(name).task is None])
def test_the_restoration_figures_of_a_card_are_measured_again_from_the_weights(model_name):
    benchmark = pytest.importorskip("benchmarks.restoration")
    results = (Path(__file__).parents[1] / "benchmarks" / "results" / "restoration.jsonl").read_text().splitlines()
    stored = next(line for line in map(json.loads, results) if (line["model"], line["draw"]) == (model_name, 0))
    measured = benchmark.measure({"model": model_name, "draw": 0}, DATA / "pretrain")
    assert measured.pop("model") == stored.pop("model") == model_name
    assert measured == pytest.approx(stored, rel=1e-3)
