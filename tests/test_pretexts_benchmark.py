"""The starts that `benchmarks.pretexts` makes of others: a part forgotten, checkpoints averaged."""

import pytest
import torch

from benchmarks.pretexts import AVERAGED, PARTIAL, STARTS, average, forget, recipe
from emfm import EMFoundation, EMFoundationConfig

GENERATOR = "unet2-rf44"


def generator(seed: int) -> EMFoundation:
    torch.manual_seed(seed)
    return EMFoundation(EMFoundationConfig.from_name(GENERATOR))


def test_an_averaged_start_is_the_mean_of_the_checkpoints_of_a_run(tmp_path):
    models = [generator(seed) for seed in range(3)]
    (name, origin), *_ = AVERAGED.items()
    for step, model in enumerate(models):
        model.save_pretrained(tmp_path / "pretexts" / f"{origin}-{GENERATOR}" / f"step_{step}" / "pretrained_model")
    found = EMFoundation.from_pretrained(average(name, GENERATOR, tmp_path)).state_dict()
    for key, value in found.items():
        expected = torch.stack([model.state_dict()[key] for model in models]).mean(0)
        torch.testing.assert_close(value, expected, msg=key)


@pytest.mark.parametrize("name", PARTIAL)
def test_a_partial_start_keeps_one_half_of_the_trunk_and_forgets_the_other(name, tmp_path):
    whole, forgotten = PARTIAL[name]
    model = generator(3)
    model.save_pretrained(tmp_path / "starts" / whole / GENERATOR)
    found = EMFoundation.from_pretrained(forget(name, GENERATOR, tmp_path))
    for part, before, after in zip(("encoder", "decoder"), model.trunk.blocks(), found.trunk.blocks(), strict=True):
        same = [
            torch.equal(a, b)
            for old, new in zip(before, after, strict=True)
            for key, a in old.state_dict().items()
            if key.endswith("weight") and "norm" not in key
            for b in [new.state_dict()[key]]
        ]
        assert same and all(same) == (part != forgotten) and any(same) == (part != forgotten)


def test_every_start_that_is_trained_has_settings_that_a_run_takes(tmp_path):
    for name in (name for name in STARTS if name not in AVERAGED | PARTIAL):
        arguments = recipe(name, GENERATOR, tmp_path, tmp_path / "runs")
        assert arguments.generator == GENERATOR and arguments.output == str(
            tmp_path / f"runs/pretexts/{name}-{GENERATOR}"
        )
