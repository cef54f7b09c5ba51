import hashlib

import numpy as np
import pytest

from emfm.simulate.nanoparticles import (
    GOLD_111_SPACING,
    NanoparticleParameters,
    SimulatedMicrograph,
    simulate_nanoparticles,
)

CALM = {"illumination": 0.0, "debris": (0.0, 0.0), "granularity": (0.0, 0.0), "fresnel": (0.0, 0.0)}


def digest(micrograph: SimulatedMicrograph) -> str:
    return hashlib.sha256(
        micrograph.image.tobytes() + micrograph.mask.tobytes() + micrograph.clean.tobytes()
    ).hexdigest()


def inside(micrograph: SimulatedMicrograph, gap: float = 2.0) -> np.ndarray:
    """Indices of particles that touch neither the border nor another particle."""
    drawn = micrograph.particles
    radii = 0.6 * drawn.diameters / micrograph.pixel_size
    distances = np.linalg.norm(drawn.centers[:, None] - drawn.centers, axis=2)
    np.fill_diagonal(distances, np.inf)
    alone = (distances > radii[:, None] + radii + gap).all(axis=1)
    whole = (drawn.centers > radii[:, None]).all(1) & (drawn.centers < micrograph.mask.shape - radii[:, None] - 1).all(
        1
    )
    return np.flatnonzero(alone & whole)


def disc(micrograph: SimulatedMicrograph, index: int, scale: float) -> np.ndarray:
    """Pixels within `scale` times a particle's radius from its centre."""
    offsets = np.indices(micrograph.mask.shape) - micrograph.particles.centers[index][:, None, None]
    return np.hypot(*offsets) < scale * micrograph.particles.diameters[index] / micrograph.pixel_size / 2


def best_threshold_dice(image: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Dice of Otsu's threshold, and of the best threshold that the mask itself could choose."""
    counts, edges = np.histogram(image, 256)
    below, total = np.cumsum(counts), image.size
    moment = np.cumsum(counts * edges[:-1])
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (moment[-1] * below / total - moment) ** 2 / (below * (total - below))
    true_below = np.cumsum(np.histogram(image[mask == 1], edges)[0])
    dice = 2 * true_below / (below + mask.sum())
    return float(dice[np.nanargmax(between[:-1])]), float(dice.max())


def test_the_same_seed_and_shape_give_the_same_bytes():
    assert digest(simulate_nanoparticles((96, 130), 7)) == digest(simulate_nanoparticles((96, 130), 7))


def test_the_global_random_state_is_neither_read_nor_changed():
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    first = digest(simulate_nanoparticles((64, 64), 3))
    assert (np.random.get_state()[1] == before).all()
    np.random.seed(2)
    assert digest(simulate_nanoparticles((64, 64), 3)) == first


def test_different_seeds_give_uncorrelated_noise():
    first, second = (simulate_nanoparticles((128, 128), seed) for seed in (0, 1))
    noise = [(m.image - m.clean).ravel() for m in (first, second)]
    assert abs(np.corrcoef(*noise)[0, 1]) < 5 / 128


def test_a_particles_area_in_the_mask_is_that_of_its_diameter_in_nm():
    ratios = []
    for seed in range(6):
        micrograph = simulate_nanoparticles((256, 256), seed, NanoparticleParameters(pixels_across=(30.0, 60.0)))
        for i in inside(micrograph):
            area = (micrograph.mask.astype(bool) & disc(micrograph, i, 1.2)).sum() * micrograph.pixel_size**2
            ratios.append(np.sqrt(4 * area / np.pi) / micrograph.particles.diameters[i])
    assert len(ratios) > 10
    np.testing.assert_allclose(ratios, 1, atol=0.01)


def test_the_mask_is_empty_away_from_every_drawn_particle_and_filled_at_the_centres():
    micrograph = simulate_nanoparticles((200, 150), 5)
    indices = range(len(micrograph.particles.diameters))
    near = np.any([disc(micrograph, i, 1.4) for i in indices], axis=0)
    core = np.any([disc(micrograph, i, 0.7) for i in indices], axis=0)
    assert set(np.unique(micrograph.mask)) == {0, 1}
    assert not micrograph.mask[~near].any()
    assert micrograph.mask[core].all()


def test_diameters_spread_lognormally_around_the_nominal_size_and_span_the_promised_pixels():
    parameters = NanoparticleParameters(nominal_diameters=(5.0,), pixels_across=(15.0, 15.0))
    diameters = simulate_nanoparticles((600, 600), 0, parameters).particles.diameters
    assert np.log(diameters / 5).mean() == pytest.approx(0, abs=0.03)
    assert np.log(diameters).std() == pytest.approx(0.12, abs=0.02)
    sizes = [simulate_nanoparticles((320, 320), seed) for seed in range(25)]
    across = [np.median(m.particles.diameters) / m.pixel_size for m in sizes]
    assert 12 < min(across) < 30
    assert 80 < max(across) < 150


def test_counting_noise_has_the_variance_of_the_stated_dose():
    parameters = NanoparticleParameters(dose=(200.0, 200.0))
    micrograph = simulate_nanoparticles((400, 400), 11, parameters)
    noise = micrograph.image - micrograph.clean
    signal = micrograph.clean - parameters.offset
    expected = parameters.gain * signal + parameters.read_noise**2 + 1 / 12  # the last for rounding
    for low, high in ((0, 50), (50, 100)):
        level = (signal >= np.percentile(signal, low)) & (signal <= np.percentile(signal, high))
        assert noise[level].mean() == pytest.approx(0, abs=1)
        assert noise[level].var() == pytest.approx(expected[level].mean(), rel=0.03)


def test_without_particles_contrast_the_support_brings_the_stated_dose_to_the_camera():
    parameters = NanoparticleParameters(**CALM, dose=(100.0, 100.0), coverage=(0.01, 0.01))
    micrograph = simulate_nanoparticles((128, 128), 0, parameters)
    support = np.median(micrograph.clean[micrograph.mask == 0])
    assert support == pytest.approx(parameters.offset + parameters.gain * micrograph.dose, rel=1e-3)


def test_carbon_granularity_has_the_stated_rms():
    calm = {**CALM, "granularity": (0.04, 0.04)}
    micrograph = simulate_nanoparticles((400, 400), 0, NanoparticleParameters(**calm, coverage=(0.001, 0.001)))
    signal = (micrograph.clean - 100)[micrograph.mask == 0]
    assert signal.std() / signal.mean() == pytest.approx(0.04, rel=0.15)


def test_transmission_at_a_particles_centre_is_the_exponential_of_its_depth():
    parameters = NanoparticleParameters(**CALM, fringe_fraction=0.0, pixels_across=(60.0, 60.0))
    micrograph = simulate_nanoparticles((600, 600), 2, parameters)
    indices = inside(micrograph)
    rows, columns = np.rint(micrograph.particles.centers[indices]).astype(int).T
    transmitted = (micrograph.clean[rows, columns] - parameters.offset) / (parameters.gain * micrograph.dose)
    assert len(indices) > 3
    np.testing.assert_allclose(transmitted, np.exp(-micrograph.particles.depths[indices]), atol=0.01)


def test_every_particle_is_darker_than_the_support_around_it():
    for seed in range(8):
        micrograph = simulate_nanoparticles((256, 256), seed)
        for i in inside(micrograph):
            ring = disc(micrograph, i, 1.5) & (micrograph.mask == 0)
            assert micrograph.clean[disc(micrograph, i, 0.8)].mean() < micrograph.clean[ring].mean()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fringes_have_the_spacing_and_the_direction_of_gold_111(seed):
    parameters = NanoparticleParameters(
        **CALM, nominal_diameters=(2.2,), pixels_across=(60.0, 80.0), fringe_fraction=1.0, diffraction_spread=0.0
    )
    micrograph = simulate_nanoparticles((256, 256), seed, parameters)
    i = int(np.argmin(np.abs(micrograph.particles.centers - 128).max(axis=1)))
    windowed = np.where(disc(micrograph, i, 0.9), micrograph.clean, 0)
    windowed[windowed > 0] -= windowed[windowed > 0].mean()
    power = np.abs(np.fft.fft2(windowed))
    frequencies = np.fft.fftfreq(256)
    radius = np.hypot(frequencies[:, None], frequencies)
    power[(radius < 0.05)] = 0  # the particle's own shape
    row, column = np.unravel_index(power.argmax(), power.shape)
    assert abs(radius[row, column] - micrograph.pixel_size / GOLD_111_SPACING) < 1 / 256
    measured = np.arctan2(frequencies[row], frequencies[column])
    assert abs(np.sin(measured - micrograph.particles.fringe_angles[i])) < 0.08


def test_pixels_too_coarse_for_the_lattice_show_no_fringes():
    fine, coarse = (
        simulate_nanoparticles((128, 128), 0, NanoparticleParameters(nominal_diameters=(2.2,), pixels_across=(px, px)))
        for px in (24.0, 23.0)
    )
    assert np.isfinite(fine.particles.fringe_angles).any()
    assert not np.isfinite(coarse.particles.fringe_angles).any()


def test_global_thresholds_do_not_solve_the_task():
    micrographs = [simulate_nanoparticles((256, 256), 500 + seed) for seed in range(40)]
    otsu, oracle = np.transpose([best_threshold_dice(m.image, m.mask) for m in micrographs])
    assert otsu.mean() < 0.72
    assert oracle.mean() < 0.78


def test_every_labelled_particle_stands_out_of_the_noise():
    for seed in range(12):
        micrograph = simulate_nanoparticles((256, 256), seed)
        for i in inside(micrograph):
            core = disc(micrograph, i, 0.8)
            ring = disc(micrograph, i, 1.6) & ~disc(micrograph, i, 1.15) & (micrograph.mask == 0)
            step = micrograph.image[ring].mean() - micrograph.image[core].mean()
            assert step > 3 * micrograph.image[core].std() / np.sqrt(core.sum())


@pytest.mark.parametrize("shape", [(16, 16), (17, 301), (33, 47), (128, 64)])
def test_any_shape_from_16_px_gives_an_image_with_a_particle_and_some_support(shape):
    micrograph = simulate_nanoparticles(shape, 4)
    assert micrograph.image.shape == micrograph.mask.shape == micrograph.clean.shape == shape
    assert (micrograph.image.dtype, micrograph.mask.dtype, micrograph.clean.dtype) == (np.uint16, np.uint8, np.float32)
    assert 0 < micrograph.mask.mean() < 0.8


def test_a_dose_beyond_the_cameras_range_saturates_instead_of_wrapping_around():
    micrograph = simulate_nanoparticles((32, 32), 0, NanoparticleParameters(dose=(1e5, 1e5)))
    assert micrograph.image[micrograph.mask == 0].min() == 65535


@pytest.mark.parametrize("shape", [(15, 64), (64,), 64, (64, 64, 1), (64.0, 64), (-64, 64)])
def test_a_bad_shape_is_refused_with_the_size_that_works(shape):
    with pytest.raises(ValueError, match=r"shape is .* at least 16 px"):
        simulate_nanoparticles(shape, 0)


@pytest.mark.parametrize("seed", [-1, 1.5, None, True])
def test_a_bad_seed_is_refused_with_an_example(seed):
    with pytest.raises(ValueError, match=r"seed is .* seed=0"):
        simulate_nanoparticles((64, 64), seed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dose": (100.0, 10.0)}, r"dose is \(100.0, 10.0\), expected \(low, high\)"),
        ({"blur": (0.5,)}, r"blur is \(0.5,\), expected \(low, high\)"),
        ({"gain": 0.0}, "gain is 0.0, expected finite and at least"),
        ({"nominal_diameters": ()}, r"nominal_diameters is \(\), expected"),
        ({"read_noise": float("nan")}, "read_noise is nan, expected finite"),
        ({"fringe_fraction": 50.0}, "fringe_fraction is 50.0, expected a fraction from 0 to 1"),
    ],
)
def test_bad_parameters_are_refused_by_name_with_what_was_expected(changes, message):
    with pytest.raises(ValueError, match=message):
        NanoparticleParameters(**changes)
