"""The benchmark of what users would take instead: what rivals learn, how they are measured, what is said of them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import rival_cell, rivals
from benchmarks.rival_cell import FOREST, REGIMES, Regime, Rival, RivalCell, run_rival
from benchmarks.rival_forest import TIMED_PIXELS, Forest, _draw, _fitting
from benchmarks.rival_networks import DnCNNTrunk, NAFNetTrunk, register
from benchmarks.rival_report import cost_table, gathered, quality_tables, read_rivals
from benchmarks.studies import Problem
from benchmarks.transfer_cell import TUNING_SEED, Places
from emfm import EMError, EMForSemanticSegmentation, EMFoundationConfig
from emfm.data.datasets import load_em_dataset

CELL = RivalCell("segmentation", "discs", None, "unet", "steps", 0.0, 1, 1e-3, 0, "test")
UNET = Rival("U-Net", "unet2-rf44", "random")


@pytest.fixture
def small(monkeypatch, labelled_folder):
    """A benchmark of one small set: places of its data, few steps, two rivals."""
    pytest.importorskip("sklearn")
    monkeypatch.setitem(REGIMES, "steps", Regime("2 steps of 1 crop of 32 px", 1, 32, steps=2))
    monkeypatch.setattr(rivals, "PROBLEMS", {"discs": Problem("segmentation", "discs")})
    monkeypatch.setattr(rivals, "RIVALS", {"unet": UNET, FOREST: Rival("forest", FOREST, "random")})
    monkeypatch.setattr(rivals, "OWN", ("unet",))
    return Places(labelled_folder.parent, labelled_folder)


def words(places: Places, results: Path, *more: str) -> list[str]:
    fixed = "--regimes steps --sets discs --images 1 --augment 0 --seeds 0 1 --tuning-sets discs --rivals unet"
    return ["--data", str(places.data), "--results", str(results), *fixed.split(), FOREST, *more]


def dice(found: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    hit = sum(int(((f == 1) & (w == 1)).sum()) for f, w in zip(found, wanted, strict=True))
    return 2 * hit / sum(int((f == 1).sum() + (w == 1).sum()) for f, w in zip(found, wanted, strict=True))


def test_a_forest_learns_discs_and_its_dice_is_that_of_its_class_maps(small):
    pytest.importorskip("sklearn")
    cell = replace(CELL, rival=FOREST, tuned=1)
    found = run_rival(cell, rivals.RIVALS[FOREST], small)
    training = load_em_dataset(small.data / "discs", "train").take(1, 0)
    test = load_em_dataset(small.data / "discs", "test")
    forest = Forest(1, 0)
    forest.fit(training, None)
    expected = dice([forest.predict(image) for image in test.images], test.masks)
    assert found["dice"] == pytest.approx(expected, abs=1e-5) and expected > 0.9
    assert found["pixels"] == 64 * 64 and found["n"] == 2 and found["images"] == 1
    assert found["trivial"] == pytest.approx(dice([np.ones((64, 64))] * 2, test.masks), abs=1e-5)


def test_a_network_is_measured_as_it_predicts(small, monkeypatch):
    kept = []
    measure = rival_cell.measure
    monkeypatch.setattr(rival_cell, "measure", lambda *parts: kept.append(parts) or measure(*parts))
    found = run_rival(CELL, UNET, small)
    answer, _, examples = kept[0]
    assert found["dice"] == pytest.approx(dice([answer(i) for i in examples.images], examples.masks), abs=1e-5)
    assert found["steps"] == 2 and found["step"] > 0 and found["predict"] > 0 and found["weights"] is None
    assert run_rival(CELL, UNET, small)["dice"] == found["dice"], "the cell decides the run"


def test_a_network_that_converged_is_the_best_by_validation(small, monkeypatch):
    monkeypatch.setitem(REGIMES, "converged", Regime("long", 1, 32, steps=40, patience=2))
    found = run_rival(replace(CELL, regime="converged"), UNET, small)
    assert 4 <= found["steps"] <= 40 and found["steps"] % 2 == 0


def test_a_restoring_rival_learns_from_pairs_that_are_made(small):
    cell = replace(CELL, task="denoising", degrade="dose", rival="dncnn")
    found = run_rival(cell, Rival("DnCNN", "dncnn", "random"), small)
    test = load_em_dataset(small.data / "discs", "test", "dose").to_measure()
    contrasts = [np.subtract(*np.percentile(target, (99, 1))) for target in test.targets]
    noise = [np.abs(a - b).mean() / c for a, b, c in zip(test.images, test.targets, contrasts, strict=True)]
    assert found["trivial"] == pytest.approx(np.mean(noise), rel=1e-3)
    assert found["l1"] > 0 and "dice" not in found and found["size"] == 555_650


def test_minutes_decide_the_steps_and_a_forests_pixels(small, monkeypatch):
    monkeypatch.setitem(REGIMES, "minute", Regime("short", 1, 32, minutes=0.02))
    monkeypatch.setattr(rival_cell, "steps_within", lambda minutes, *rest: round(minutes * 150))
    assert run_rival(replace(CELL, regime="minute"), UNET, small)["steps"] == 3
    one = TIMED_PIXELS * np.log(TIMED_PIXELS)
    count = _fitting(8.0, 1.0, 10**6)
    assert 0.95 < count * np.log(count) / one / 8 <= 1 and _fitting(0.0, 1.0, 10**6) == TIMED_PIXELS
    assert _fitting(1e9, 1.0, 7000) == 7000 and _fitting(0.0, 1.0, 100) == 100


def test_a_rare_class_gives_a_quarter_of_a_forests_pixels():
    mask = np.zeros((100, 100), np.int16)
    mask[:5, :10], mask[50:] = 1, -100
    owners, places, classes = _draw([mask * 0, mask], 60, 0)
    assert 9 <= (classes == 1).sum() <= 21 and len({*zip(owners, places, strict=True)}) == 60
    assert places[owners == 1].max() < 5000 <= places[owners == 0].max()
    assert np.array_equal(classes, np.stack([mask * 0, mask]).reshape(2, -1)[owners, places])


def test_runs_are_written_as_they_end_and_not_repeated(small, tmp_path, monkeypatch):
    ran = []

    def instant(cell, rival, places):
        ran.append(cell)
        if cell.seed == 1 and len(ran) < 10:
            raise EMError("stopped")
        return {**vars(cell), "dice": 0.5 + cell.tuned / 1e4, "trivial": 0.2, "seconds": 1.0, "predict": 1.0, **FACTS}

    monkeypatch.setattr(rivals, "run_rival", instant)
    arguments = rivals.parse(words(small, tmp_path / "results.jsonl"))
    with pytest.raises(EMError, match="stopped"):
        rivals.benchmark(arguments)
    # three rates or leaves of each rival, then one seed of each
    assert len(ran) == 6 + 2 + 1 and {cell.split for cell in ran[:6]} == {"validation"}
    results = rivals.benchmark(arguments)
    assert len(ran) == 9 + 2 and results == read_rivals(tmp_path / "results.jsonl")
    assert {cell.tuned for cell in results if cell.split == "test"} == {3e-3, 100}
    assert rivals.benchmark(arguments) == results and len(ran) == 11
    untuned = rivals.parse(words(small, tmp_path / "untuned.jsonl", "--untuned"))
    found = rivals.benchmark(untuned)
    assert {cell.tuned for cell in found} == {1e-3, 10} and {cell.split for cell in found} == {"test"}


FACTS = {"precision": "bf16"}


def test_a_rival_that_cannot_be_had_is_left_out_and_said(small, tmp_path, monkeypatch, capsys):
    def nothing(encoder, variant):
        raise EMError("the ImageNet weights cannot be had")

    monkeypatch.setattr("emfm.backbones.hrnet.load_imagenet", nothing)
    rival = Rival("HRNet", "hrnet-w18-small", "imagenet")
    monkeypatch.setattr(rivals, "RIVALS", {"unet": UNET, "hrnet": rival})
    arguments = rivals.parse([*words(small, tmp_path / "x")[:-1], "hrnet"])
    assert rivals.available(arguments) == ["unet"]
    assert capsys.readouterr().err == "hrnet is left out: the ImageNet weights cannot be had\n"


def test_the_smp_unet_takes_imagenet_weights_and_learns_as_every_trunk():
    pytest.importorskip("segmentation_models_pytorch")
    register()
    model = EMForSemanticSegmentation(EMFoundationConfig.from_name("smp-unet-lite0", id2label={0: "a", 1: "b"})).eval()
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        trunk = model.trunk.decoder(model.trunk.encoder(image))
        torch.testing.assert_close(model(image).logits, model.class_head(trunk))


def test_what_a_dncnn_sees_is_as_wide_as_it_says():
    trunk = DnCNNTrunk(None).eval()
    image = torch.rand(1, 1, 41, 41, requires_grad=True)
    trunk(image)[0, :, 20, 20].sum().backward()
    seen = image.grad[0, 0].abs() > 0
    assert trunk.reach == 16 and seen[4, 20] and seen[20, 36] and not seen[3].any() and not seen[:, 37].any()


def test_a_nafnet_begins_without_its_blocks_and_is_as_large_as_the_unet():
    trunk = NAFNetTrunk(None).eval()
    image = torch.rand(1, 1, 32, 32)
    block = trunk.encoder[0]
    torch.testing.assert_close(block(trunk.opening(image)), trunk.opening(image))
    assert sum(parameter.numel() for parameter in trunk.parameters()) == pytest.approx(2.07e6, rel=0.01)
    assert trunk(image).shape == (1, 16, 32, 32)


def lines(values: dict[tuple[str, str], list[float]]) -> list[dict]:
    """Lines of a results file: figures of (rival, set) by seed."""
    return [
        {**vars(replace(CELL, rival=rival, data=data, seed=seed)), "dice": value, "trivial": 0.2, "seconds": 30.0}
        | {"predict": 1.25, "step": 0.125, "size": 1000, **FACTS}
        for (rival, data), figures in values.items()
        for seed, value in enumerate(figures)
    ]


def test_tables_hold_means_spreads_and_who_is_ahead(tmp_path):
    found = {
        ("ours", "a"): [0.8, 0.9],
        ("ours", "b"): [0.5, 0.5],
        ("theirs", "a"): [0.7, 0.7],
        ("theirs", "b"): [0.6, 0.6],
    }
    path = tmp_path / "results.jsonl"
    tuning = [
        {**lines({(rival, "a"): [0.1]})[0], "seed": TUNING_SEED, "tuned": rate}
        for rival, rate in (("ours", 1e-3), ("ours", 3e-3), ("half", 3e-4))
    ]
    written = [*tuning, *lines(found), *lines({("half", "a"): [0.3]})]
    path.write_text("".join(json.dumps(line) + "\n" for line in written))
    results = read_rivals(path)
    assert {tuple(runs.values) for runs in gathered(results).values()} == {
        (0.8, 0.9),
        (0.5, 0.5),
        (0.7, 0.7),
        (0.6, 0.6),
        (0.3,),
    }
    labels = {"ours": "Ours", "theirs": "Theirs", "half": "Half", "nobody": "Nobody"}
    text = quality_tables(results, labels, ("ours",))
    assert "**150 steps of 4 crops of 128 px, 1 image**: test Dice." in text
    assert "| Ours | 0.850 ± 0.071 | 0.500 ± 0.000 | 0.675 | 30 | 0.001 |" in text
    assert "| Half | 0.300 (one seed) | - | - | 30 | 0.001, not chosen |" in text and "Nobody" not in text
    assert text.endswith(
        "`ours` minus the best rival on average, `theirs`: +0.025. Below a rival by more than the spread: b."
    )
    assert "| Theirs | 1,000 | bf16 | 0.125 | - | 1.25 |" in cost_table(results, labels)
