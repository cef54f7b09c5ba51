"""Scale bars: found by their look, left out of objects, and a pixel size where their length is known."""

import csv
import io
import json

import numpy as np
import pytest
import roifile
import tifffile
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from test_cli import emfm  # noqa: F401  (a fixture)

from emfm import EMError, EMFoundationConfig, predict
from emfm.inference.drawn import Blanked
from emfm.io.scale_bar import find_scale_bars, length_in_nm
from emfm.tasks.instances import EMForInstanceSegmentation


def micrograph(seed=0, shape=(300, 400), discs=20):
    """Grey discs on noise, no value extreme."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(shape)
    image = np.full(shape, 90.0)
    for _ in range(discs):
        y, x, radius = rng.integers(0, shape[0]), rng.integers(0, shape[1]), rng.integers(6, 24)
        image[np.hypot(rows - y, columns - x) < radius] = 165
    return (image + rng.normal(0, 12, shape)).clip(5, 250).astype(np.uint8)


def with_bar(image, length=120, thick=6, ink=255, text="500 nm", place=(270, 250)):
    """Draw a bar and its text above into an image."""
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    row, column = place
    draw.rectangle((column, row, column + length - 1, row + thick - 1), fill=ink)
    if text:
        draw.text((column + length / 2, row - 4), text, fill=ink, font=ImageFont.load_default(16), anchor="mb")
    return np.asarray(picture)


@pytest.mark.parametrize("ink", [255, 0])
@pytest.mark.parametrize(("length", "thick"), [(120, 6), (60, 2), (37, 5)])
def test_a_plain_bar_is_found_with_its_length_to_the_pixel(ink, length, thick):
    (bar,) = find_scale_bars(with_bar(micrograph(), length, thick, ink))
    assert bar.pixels == length
    assert bar.box == (270, 250, 270 + thick, 250 + length)


def test_the_letters_beside_a_bar_belong_to_it():
    image = with_bar(micrograph())
    (bar,) = find_scale_bars(image)
    top, left, bottom, right = bar.around
    letters = (image == 255) & (micrograph() != 255)
    outside = letters.copy()
    outside[top:bottom, left:right] = False
    assert letters.any() and not outside.any() and top < 262


def test_bars_survive_jpeg_and_other_depths():
    stored = io.BytesIO()
    Image.fromarray(with_bar(micrograph())).save(stored, "JPEG", quality=85)
    (bar,) = find_scale_bars(np.asarray(Image.open(stored)))
    assert abs(bar.pixels - 120) <= 2
    for dtype, factor in ((np.uint16, 257), (np.float32, 0.01)):
        (bar,) = find_scale_bars((with_bar(micrograph()).astype(np.float64) * factor).astype(dtype))
        assert bar.pixels == 120


@pytest.mark.parametrize("above", [True, False])
def test_a_bar_with_ticks_is_found_with_its_length(above):
    image = with_bar(micrograph(), 120, 3).copy()
    rows = slice(260, 270) if above else slice(273, 283)
    for column in (250, 309, 367):
        image[rows, column : column + 3] = 255
    (bar,) = find_scale_bars(image)
    assert bar.pixels == 120 and bar.box[0] == 270


def test_a_blurred_bar_ends_where_it_is_half_as_bright():
    image = with_bar(micrograph(discs=0), 120, 8, text="")
    blurred = ndimage.gaussian_filter(image.astype(float), 1.5).clip(0, 255).astype(np.uint8)
    (bar,) = find_scale_bars(blurred)
    assert abs(bar.pixels - 120) <= 2


def test_micrographs_without_a_bar_have_none():
    for seed in range(5):
        assert find_scale_bars(micrograph(seed)) == []
    assert find_scale_bars(np.zeros((50, 50), np.uint8)) == []
    assert find_scale_bars(np.full((50, 50), np.nan, np.float32)) == []
    edges = micrograph()
    edges[:10], edges[-12:] = 255, 0  # frames are no bars
    assert find_scale_bars(edges) == []
    rods = np.full((200, 200), 80, np.uint8)
    rods[50:60, 40:160] = np.linspace(150, 250, 120).astype(np.uint8)  # a rod of many greys
    assert find_scale_bars(rods) == []


def test_several_bars_are_all_found_the_lowest_first():
    image = with_bar(with_bar(micrograph(), place=(100, 20)), place=(280, 250), text="")
    assert [bar.box[0] for bar in find_scale_bars(image)] == [280, 100]


@pytest.mark.parametrize(
    ("text", "nm"), [("500 nm", 500), ("0.2 um", 200), ("2µm", 2000), ("1,5 μm", 1500), ("20 Å", 2), ("50 A", 5)]
)
def test_lengths_are_understood(text, nm):
    assert length_in_nm(text) == pytest.approx(nm)


@pytest.mark.parametrize("text", ["500", "nm", "-5 nm", "0 nm", "5 miles", "", "5 nm 3"])
def test_what_is_no_length_is_refused(text):
    with pytest.raises(EMError, match="expected a length with its unit, such as '500 nm'"):
        length_in_nm(text)


class Brightness(EMForInstanceSegmentation):
    """Takes what is bright for an object."""

    @torch.no_grad()
    def maps(self, pixel_values):
        bright = (pixel_values > 0.3).float()
        return torch.cat([bright, torch.zeros_like(bright), bright], dim=1)


def bright_discs(shape=(300, 400)):
    rows, columns = np.indices(shape)
    image = np.random.default_rng(0).normal(80, 9, shape)
    for y, x in ((60, 60), (60, 200), (150, 120), (150, 300)):
        image[np.hypot(rows - y, columns - x) < 20] = 180
    return image.clip(5, 250).astype(np.uint8)


def test_parts_of_maps_are_blank_where_something_was_drawn():
    maps = np.ones((50, 60), np.uint32)
    blank = Blanked(maps, [(10, 20, 15, 40), (48, 0, 50, 60)])
    expected = maps.copy()
    expected[10:15, 20:40] = expected[48:50] = 0
    np.testing.assert_array_equal(blank[0:50], expected)
    np.testing.assert_array_equal(blank[12:49, 30:50], expected[12:49, 30:50])
    np.testing.assert_array_equal(blank[20:30], expected[20:30])
    assert maps.all()


def test_bar_and_letters_are_no_objects_and_the_bar_at_the_bottom_neither(caplog):
    model = Brightness(EMFoundationConfig.from_name("unet2-rf44")).eval()
    plain = predict(model, bright_discs()).output
    assert len(np.unique(plain)) == 5
    drawn = predict(model, with_bar(bright_discs()))
    np.testing.assert_array_equal(drawn.output, plain)
    assert "a scale bar of 120 px is left out of the objects" in caplog.text
    bar = np.zeros((30, 400), np.uint8)
    bar[8:22:2, 20:200:3] = 255
    seen = predict(model, np.vstack([bright_discs(), bar]))
    assert (seen.output[300:] == 0).all() and abs(seen.data_bar - 30) <= 3
    np.testing.assert_array_equal(seen.output[:290], plain[:290])


def test_predict_offers_the_bar_and_takes_its_length(tmp_path, emfm, caplog):  # noqa: F811
    torch.manual_seed(0)
    model = EMForInstanceSegmentation(EMFoundationConfig.from_name("unet2-rf44")).eval()
    model.save_pretrained(tmp_path / "model")
    Image.fromarray(with_bar(bright_discs())).save(tmp_path / "a.png")
    given = "predict", tmp_path / "a.png", "--model", tmp_path / "model", "--output", tmp_path / "out"
    code, _, err = emfm(*given)
    assert code == 0
    assert "scale bar of 120 px found; give its length with --scale-bar '500 nm', or --pixel-size" in err + caplog.text
    caplog.clear()
    code, _, err = emfm(*given, "--scale-bar", "600 nm", "--outlines")
    assert code == 0 and "give its length" not in err + caplog.text
    record = json.loads((tmp_path / "out" / "a.tif.json").read_text())
    assert record["pixel_size"] == 5.0 and record["shown"]["outlines"] == "a_outlines.zip"
    assert (tmp_path / "out" / "a_outlines.zip").is_file()
    code, _, err = emfm(*given, "--scale-bar", "6 miles")
    assert code == 2 and "expected a length with its unit" in err
    code, _, err = emfm(*given, "--scale-bar", "6 nm", "--pixel-size", 2)
    assert code == 2 and "scale_bar and pixel_size both say the pixel size" in err
    Image.fromarray(bright_discs()).save(tmp_path / "b.png")
    code, _, err = emfm("predict", tmp_path / "b.png", *given[2:], "--scale-bar", "600 nm")
    assert code == 2 and "no plain scale bar found" in err


def test_measure_leaves_the_bar_out_and_takes_its_length(tmp_path, emfm, caplog):  # noqa: F811
    image = with_bar(bright_discs())
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    Image.fromarray(image).save(tmp_path / "images" / "a.png")
    Image.fromarray((image > 130).astype(np.uint8) * 255).save(tmp_path / "masks" / "a.png")
    given = "measure", tmp_path / "masks", "--images", tmp_path / "images"
    code, _, err = emfm(*given, "--output", tmp_path / "one")
    assert code == 0 and "a.png: scale bar of 120 px found; give its length" in err + caplog.text
    assert "a.png: the scale bar of 120 px and its letters are left out" in err + caplog.text
    with (tmp_path / "one" / "objects.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4
    code, _, err = emfm(*given, "--output", tmp_path / "two", "--scale-bar", "240 nm", "--outlines")
    assert code == 0, err
    with (tmp_path / "two" / "objects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(float(row["area_nm2"]) == 4 * float(row["area_px2"]) for row in rows)
    assert len(roifile.roiread(tmp_path / "two" / "a_outlines.zip")) == 4
    code, _, err = emfm("measure", tmp_path / "masks", "--output", tmp_path / "three", "--scale-bar", "5 nm")
    assert code == 2 and "scale_bar needs the micrographs in which the bars are: give --images" in err


def test_outlines_of_what_has_no_objects_are_refused(tmp_path, emfm):  # noqa: F811
    tifffile.imwrite(tmp_path / "a.tif", bright_discs())
    given = "predict", tmp_path / "a.tif", "--model", "unet2-rf44", "--output", tmp_path / "out", "--outlines"
    code, _, err = emfm(*given)
    assert code == 2 and "--outlines are of numbered objects; EMFoundation finds none: leave it out" in err
