"""The benchmarks of the fine-tuning's recipe and of going on with pretraining: what they run and say."""

import json

import pytest

from benchmarks import adaptation, recipe
from benchmarks.adaptation import adaptation_table
from benchmarks.recipe import LAST, Variant, recipe_table
from benchmarks.transfer_cell import Cell, Places
from benchmarks.transfer_tables import rates

GENERATOR = "unet2-rf44"


@pytest.fixture
def small(monkeypatch):
    """A recipe of two steps of one small crop."""
    for name, value in {"IMAGES": 1, "STEPS": 2, "CROPS": 1, "SIDE": 32}.items():
        monkeypatch.setattr(recipe, name, value)


def run(labelled_folder, variant: str) -> dict:
    cell = recipe.Cell(variant, labelled_folder.name, GENERATOR, 0, num_images=1)
    return recipe.run(cell, Places(labelled_folder.parent, labelled_folder))


def test_a_variant_that_changes_nothing_gives_the_same_dice_and_a_rate_another(small, monkeypatch, labelled_folder):
    variants = {"slow encoder": Variant(encoder_rate=0.5), "nothing": Variant(encoder_rate=1.0)}
    monkeypatch.setattr(recipe, "VARIANTS", recipe.VARIANTS | variants)
    usual = run(labelled_folder, recipe.AS_IT_IS)
    assert set(usual["dice"]) == set(recipe.KINDS)
    nothing, slow = (run(labelled_folder, name)["dice"] for name in ("nothing", "slow encoder"))
    assert nothing == {kind: dice for kind, dice in usual["dice"].items() if kind in nothing}
    assert LAST in nothing and recipe.SYMMETRIES not in nothing and slow != nothing


def row(variant: str, data: str, dice: float, **more: float) -> dict:
    known = {"variant": variant, "data": data, "generator": GENERATOR, "seed": 0}
    return known | {"dice": {LAST: dice, **more}}


def test_the_recipes_table_holds_gains_over_the_recipe_as_it_is():
    results = [
        row(recipe.AS_IT_IS, "vnc_mitochondria", 0.8, moving=0.79),
        row(recipe.AS_IT_IS, "alumina_pt", 0.6),
        row("head on all scales", "vnc_mitochondria", 0.83),
        row("head on all scales", "alumina_pt", 0.64),
        row("head on all scales", "emps_particles", 0.1),  # beside nothing: left out
    ]
    found = recipe_table(results).splitlines()
    assert found[2] == f"| {GENERATOR} | as it is (Dice) | 1 | 0.700 | 0.800 | 0.600 | - | - | - | - |"
    assert found[3].startswith(f"| {GENERATOR} | as it is, moving average of the weights, 0.9 | 1 | -0.010 | -0.010 |")
    assert found[4] == f"| {GENERATOR} | head on all scales | 1 | +0.035 | +0.030 | +0.040 | - | - | - | - |"


def test_adapting_is_done_once_and_measured_beside_the_zoo(monkeypatch, labelled_folder, tmp_path):
    monkeypatch.setattr(adaptation, "GENERATOR", GENERATOR)
    monkeypatch.setattr(adaptation, "ADAPTING", {"crop": 32, "batch_size": 1, "structures": 1})
    for name, value in {"STEPS": 2, "CROPS": 1, "SIDE": 32}.items():
        monkeypatch.setattr(adaptation, name, value)
    results = tmp_path / "adaptation.jsonl"
    words = ["--data", str(labelled_folder.parent), "--sets", labelled_folder.name, "--images", "1", "--steps", "1"]
    words += ["--seeds", "0", "--weights", str(tmp_path / "adapted"), "--results", str(results)]
    assert adaptation.main(words) == 0
    zoo, adapted = map(json.loads, results.read_text().splitlines())
    assert (zoo["start"], zoo["adapting"]) == ("zoo", {}) and adapted["adapting"]["steps"] == 1
    assert zoo["weights"] != adapted["weights"] and adapted["adapting"]["seconds"] > 0
    assert len(list((tmp_path / "adapted").glob("*/pretrained_model"))) == 1


def test_the_adaptations_table_has_the_gain_of_each_seed():
    known = {"data": "discs", "num_images": 3, "split": "test"}
    results = [
        {**known, "start": "zoo", "seed": 0, "dice": 0.5, "adapting": {}},
        {**known, "start": "adapted", "seed": 0, "dice": 0.6, "adapting": {"seconds": 299.6}},
        {**known, "start": "zoo", "seed": 1, "dice": 0.7, "adapting": {}},
        {**known, "start": "adapted", "seed": 1, "dice": 0.65, "adapting": {"seconds": 299.6}},
        {**known, "start": "zoo", "seed": 2, "dice": 0.9, "adapting": {}},  # no partner: left out
    ]
    assert adaptation_table(results).splitlines()[-1] == "| discs | 3 | 300 | 0.600 | 0.625 | +0.100, -0.050 |"
    assert adaptation_table([]) == "No run is committed yet."


def test_the_table_of_rates_is_the_mean_over_the_sets_that_chose_them():
    def tuning(data: str, rate: float) -> Cell:
        known = ("strong", "segmentation", data, None, GENERATOR, "zoo", 3, "all", 150, 4, 128, rate)
        return Cell(*known, seed=100, split="validation")

    results = {
        tuning("a", 1e-3): {"curve": [{"dice": 0.5}]},
        tuning("b", 1e-3): {"curve": [{"dice": 0.7}]},
        tuning("a", 3e-3): {"curve": [{"dice": 0.8}]},
    }
    assert rates(results).splitlines()[-1] == f"| segmentation (Dice) | {GENERATOR} | zoo | 0.600 | 0.800 |"
