"""Denoising without clean targets: what the noise is like, what is hidden, and what is learnt."""

import json

import numpy as np
import pytest
import tifffile
import torch
from scipy import ndimage
from test_cli import emfm  # noqa: F401  (a fixture)

from benchmarks.denoising import counted
from emfm import EMError, EMForDenoising, EMFoundationConfig, EMImageProcessor, predict
from emfm.data.augmentation import Augmentation
from emfm.data.examples import PairedMicrographs
from emfm.data.noise import noise_correlation, same_place
from emfm.data.noisy import CORNER, BlindSpotCropper, NoisyMicrographs, Repeats, load_noisy
from emfm.finetuning.finetune import FinetuneArguments, finetune
from emfm.finetuning.start import learning_rate
from emfm.io.reading import FileChoice


def waves(shape=(128, 128), seed=0):
    return 100 + 40 * ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 6) / 0.047


def noise(shape=(128, 128), lines=None, seed=1):
    found = np.random.default_rng(seed).normal(0, 30, shape)
    if lines is None:
        return found
    return ndimage.uniform_filter1d(found, 5, axis=lines) * np.sqrt(5)


@pytest.mark.parametrize(("lines", "kind", "reach"), [(None, "pixels", 1), (1, "rows", 5), (0, "columns", 5)])
def test_the_kind_of_noise_is_read_from_its_autocorrelation(lines, kind, reach):
    found = noise_correlation(waves() + noise(lines=lines))
    assert found.kind == kind and abs(found.reach - reach) <= (0 if lines is None else 1)
    if lines is not None:  # a mean over five pixels: 0.8, 0.6, 0.4, 0.2, 0
        values = found.rows if kind == "rows" else found.columns
        np.testing.assert_allclose(values[:5], [0.8, 0.6, 0.4, 0.2, 0.0], atol=0.15)


def test_noise_without_structure_or_on_a_constant_image_is_that_of_pixels():
    assert noise_correlation(np.zeros((64, 64))).kind == "pixels"
    assert noise_correlation(noise()).rows[0] == pytest.approx(0, abs=0.05)
    assert noise_correlation(np.zeros((2, 5))).kind == "pixels"


def test_frames_of_one_place_are_told_from_slices_and_from_copies():
    place = waves()
    assert same_place(place + noise(seed=1), place + noise(seed=2))
    assert not same_place(place + noise(seed=1), waves(seed=9) + noise(seed=2))
    assert not same_place(place + noise(seed=1), place + noise(seed=1))
    assert not same_place(np.zeros((64, 64)), np.zeros((64, 64)))


def cropped(kind, length=0, count=20):
    cropper = BlindSpotCropper(EMImageProcessor(clip=30), 64, Augmentation(0.0), kind, length)
    image = (waves() + noise()).astype(np.float32)
    prepared = cropper.prepare(image, image)
    crops = [cropper.crop(prepared, (0, 0, number)) for number in range(count)]
    return [crop["pixel_values"][0].numpy() for crop in crops], [crop["labels"][0].numpy() for crop in crops]


def test_a_hidden_pixel_shows_its_neighbours_median_and_is_the_truth():
    values, labels = cropped("pixels")
    share = np.mean([(~np.isnan(one)).mean() for one in labels])
    assert share == pytest.approx(0.02, abs=0.003)
    differences = [(v - t)[~np.isnan(t)] for v, t in zip(values, labels, strict=True)]
    assert np.mean([np.abs(one).mean() for one in differences]) > 0.2  # the noise is gone from the input
    around = np.ones((5, 5), bool)
    around[2, 2] = False
    rows, columns = np.nonzero(~np.isnan(labels[0][4:-4, 4:-4]))
    alone = 0
    for row, column in zip(rows + 4, columns + 4, strict=True):
        window = slice(row - 2, row + 3), slice(column - 2, column + 3)
        if (~np.isnan(labels[0][window])).sum() == 1:
            alone += 1
            assert values[0][row, column] in values[0][window][around]
    assert alone > 10


def test_along_lines_the_neighbours_that_share_the_noise_are_hidden_too():
    values, labels = cropped("rows", 3)
    share = np.mean([(~np.isnan(one)).mean() for one in labels])
    assert share == pytest.approx(0.02 / 7, abs=0.001)
    assert all(np.isfinite(one).all() for one in values)


@pytest.fixture
def noisy_folder(tmp_path):
    """Plain folder of noisy micrographs, and the clean one of the last."""
    folder = tmp_path / "noisy"
    folder.mkdir()
    for number in range(4):
        tifffile.imwrite(folder / f"{number}.tif", (waves(seed=number) + noise(seed=10 + number)).astype(np.float32))
    return folder, waves(seed=3)


def test_a_generator_learns_to_denoise_from_noisy_micrographs_alone(noisy_folder, tmp_path, emfm, caplog):  # noqa: F811
    folder, clean = noisy_folder
    output = tmp_path / "model"
    given = ("--self-supervised", "--data", folder, "--model", "unet2-rf44", "--output", output, "--steps", 120)
    code, stdout, err = emfm("finetune", "denoising", *given, "--crop", 64, "--batch-size", 4, "--json")
    assert code == 0, err
    assert json.loads(stdout)["best"]["l1"] is None  # nobody knows how clean it is
    assert "single pixels are hidden" in caplog.text + err
    noisy = tifffile.imread(folder / "3.tif")
    restored = predict(output, noisy).output
    assert np.abs(restored - clean).mean() < 0.55 * np.abs(noisy - clean).mean()


def test_a_stack_of_frames_gives_pairs_of_them(tmp_path):
    path = tmp_path / "frames.tif"
    tifffile.imwrite(path, np.stack([waves() + noise(seed=s) for s in range(5)]).astype(np.float32))
    found = load_noisy(path, "train", "auto", FileChoice())
    assert isinstance(found, PairedMicrographs) and len(found) == 8
    np.testing.assert_array_equal(found.images[0], found.targets[4])
    forced = load_noisy(path, "train", "pixels", FileChoice())
    assert isinstance(forced, NoisyMicrographs) and len(forced) == 5
    assert np.isnan(forced.truth(0)).all()
    corner = forced.corner()  # nothing is measured there
    np.testing.assert_array_equal(corner.images, [forced.images[0][:CORNER, :CORNER]])
    assert np.isnan(corner.truth(0)).all() and corner.truth(0).shape == (CORNER, CORNER)


def test_frames_of_hardly_any_signal_keep_their_units():
    place, shape = waves() / 20, (128, 128)
    frames = [(place + noise(shape, seed=number)).astype(np.float32) for number in range(2)]
    columns = frames, ["a", "b"], [None, None]
    model = EMForDenoising(EMFoundationConfig.from_name("unet2-rf44"))
    with pytest.raises(EMError, match="hardly resemble each other"):  # of targets that should be clean
        model.learn_units(PairedMicrographs(*columns, frames[::-1], 1))
    model.learn_units(Repeats(*columns, frames[::-1], 1))
    assert model.config.target_units is None and model.noisy_targets


def test_noisy_targets_are_learnt_by_their_mean_and_clean_ones_by_l1_too():
    model = EMForDenoising(EMFoundationConfig.from_name("unet2-rf44"))
    counts = torch.tensor([0.0, 0.0, 0.0, 4.0, torch.nan]).reshape(1, 1, 1, 5)  # of few electrons: mean 1, median 0
    known = counts[..., :4]
    guess = torch.full_like(counts, 1.0)
    assert model.image_loss(guess, counts) == (known - 1).abs().mean() + ((known - 1) ** 2).mean()
    model.noisy_targets = True
    losses = [float(model.image_loss(torch.full_like(counts, value), counts)) for value in (0.0, 0.5, 1.0, 1.5)]
    assert losses[2] == min(losses) == 3.0


def test_frames_that_are_none_are_refused(noisy_folder):
    with pytest.raises(EMError, match="holds no stack whose neighbouring slices show the same place"):
        load_noisy(noisy_folder[0], "train", "frames", FileChoice())


@pytest.mark.parametrize("noise_kind", ["5", "20", "80", "lines"])
def test_counted_electrons_are_noise_of_pixels_and_unsteady_lines_leave_them_so(noise_kind):
    clean = (waves((256, 256)) - 20) / 200
    assert noise_correlation(counted(clean.clip(0, 1), noise_kind, "key")).kind == "pixels"


def test_a_denoiser_goes_on_learning_at_a_gentle_rate_and_is_the_start_where_none_is_given():
    asked = dict(task="denoising", data="noisy", output="out", self_supervised=True)
    usual = learning_rate(FinetuneArguments("denoising", "pairs", "out", model="denoiser"))
    assert usual == 3e-3
    given = FinetuneArguments(**asked)
    assert given.model == "denoiser" and learning_rate(given) == 1e-4
    assert learning_rate(FinetuneArguments(**asked, model="unet2-rf44")) == usual
    assert learning_rate(FinetuneArguments(**asked, scratch="unet2-rf44")) == usual
    assert learning_rate(FinetuneArguments(**asked, learning_rate=0.5)) == 0.5


def test_lines_are_hidden_where_the_noise_has_them(tmp_path):
    for number in range(2):
        tifffile.imwrite(tmp_path / f"{number}.tif", (waves() + noise(lines=1, seed=number)).astype(np.float32))
    found = load_noisy(tmp_path, "train", "auto", FileChoice())
    assert (found.noise, found.length) == ("rows", pytest.approx(5, abs=1))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"noise": "rows"}, "is for --self-supervised"),
        ({"self_supervised": True, "degrade": "dose"}, "leave --degrade and --streaming out"),
        ({"self_supervised": True, "noise": "grains"}, "noise is 'grains'; expected one of auto"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(given, message):
    with pytest.raises(EMError, match=message):
        FinetuneArguments("denoising", "data", "out", scratch="unet2-rf44", **given)


def test_other_tasks_have_no_use_for_it(noisy_folder, tmp_path):
    run = dict(task="segmentation", data=str(noisy_folder[0]), output=str(tmp_path / "out"), scratch="unet2-rf44")
    with pytest.raises(EMError, match="--self-supervised is for denoising"):
        finetune(FinetuneArguments(**run, self_supervised=True))
