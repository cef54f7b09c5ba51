"""Masks as programs write them: palettes, single bits, colours, floats, smoothed edges, ids of objects."""

import json
import logging

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from emfm.data.classes import GreyValues, values_as_classes
from emfm.data.datasets import load_em_dataset
from emfm.data.mask_looks import doubt, listed, look_at
from emfm.errors import EMError
from emfm.io.masks import Mask, decode_mask, read_masks

DISC = (np.hypot(*(np.indices((40, 50)) - 20)) < 9).astype(np.uint8)
TWO = '{"0": "background", "1": "particle"}'
SEEN = '{"0": "background", "255": "particle"}'
COLOURED = [0, 0, 0, 128, 0, 0]
# Beginning and end of the palette of Pascal VOC and labelme.
VOC = [*COLOURED, *[7] * 3 * 253, 224, 224, 192]


def picture(array, mode=None, palette=None):
    image = Image.fromarray(array, mode)
    if palette:
        image.putpalette(palette)
    return image


def one_bit():
    return picture(DISC * 255).convert("1")


def stacked(*channels):
    return np.stack(channels, axis=-1)


WRITERS = {
    "palette.png": lambda path: picture(DISC, "P", COLOURED).save(path),
    "palette.gif": lambda path: picture(DISC, "P", COLOURED).save(path),
    "palette.bmp": lambda path: picture(DISC, "P", COLOURED).save(path),
    "palette.tif": lambda path: picture(DISC, "P", COLOURED).save(path),
    "two colours.png": lambda path: picture(DISC, "P", COLOURED).save(path, bits=1),
    "palette16.tif": lambda path: tifffile.imwrite(
        path,
        DISC.astype("u2"),
        photometric="palette",
        colormap=np.arange(3 * 65536, dtype="u2").reshape(3, 65536)[::-1],
    ),
    "bit.png": lambda path: one_bit().save(path),
    "bit.bmp": lambda path: one_bit().save(path),
    "bit.tif": lambda path: one_bit().save(path),
    "white is zero.tif": lambda path: one_bit().save(path, compression="group4"),
    "bool.tif": lambda path: tifffile.imwrite(path, DISC == 1),
    "bool.npy": lambda path: np.save(path, DISC == 1),
    "equal channels.png": lambda path: picture(stacked(DISC, DISC, DISC)).save(path),
    "equal channels.tif": lambda path: tifffile.imwrite(path, stacked(DISC, DISC, DISC), photometric="rgb"),
    "opaque.png": lambda path: picture(stacked(DISC, DISC, DISC, np.full_like(DISC, 255))).save(path),
    "grey and opaque.png": lambda path: picture(stacked(DISC, np.full_like(DISC, 255)), "LA").save(path),
    "float.tif": lambda path: tifffile.imwrite(path, DISC.astype("f4")),
    "float64.npy": lambda path: np.save(path, DISC.astype("f8")),
    "signed.tif": lambda path: tifffile.imwrite(path, DISC.astype("i2")),
    "deep.png": lambda path: picture(DISC.astype("u2")).save(path),
    "lossless.webp": lambda path: picture(stacked(DISC, DISC, DISC)).save(path, lossless=True),
}


def folder_with(tmp_path, name, write, labels=None):
    """Write a folder of one image and its mask."""
    for part in ("images", "masks"):
        (tmp_path / part).mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(tmp_path / "images" / f"{name.rpartition('.')[0]}.tif", np.random.rand(*DISC.shape).astype("f4"))
    write(tmp_path / "masks" / name)
    if labels is not None:
        (tmp_path / "labels.json").write_text(labels)
    return tmp_path


@pytest.mark.parametrize("labels", [TWO, None])
@pytest.mark.parametrize("name", WRITERS)
def test_a_mask_of_0_and_1_is_read_in_whatever_way_it_was_saved(tmp_path, name, labels):
    data = load_em_dataset(folder_with(tmp_path, name, WRITERS[name], labels))
    np.testing.assert_array_equal(data.masks[0], DISC)
    assert data.masks[0].dtype == np.int16 and len(data.id2label) == 2


@pytest.mark.parametrize("name", ["bit.png", "bit.bmp", "bit.tif", "white is zero.tif", "bool.tif", "bool.npy"])
def test_of_one_bit_white_may_be_called_255(tmp_path, name):
    data = load_em_dataset(folder_with(tmp_path, name, WRITERS[name], SEEN))
    np.testing.assert_array_equal(data.masks[0], DISC)


def test_greys_of_a_palette_may_be_named_as_they_are_seen(tmp_path):
    def write(path):
        picture(DISC, "P", [0, 0, 0, 255, 255, 255]).save(path)

    for number, labels in enumerate((TWO, SEEN)):
        data = load_em_dataset(folder_with(tmp_path / str(number), "a.png", write, labels))
        np.testing.assert_array_equal(data.masks[0], DISC)


@pytest.mark.parametrize("labels", [TWO, None])
def test_the_border_of_a_voc_mask_belongs_to_no_class(tmp_path, labels):
    ring = ndimage.binary_dilation(DISC) & (DISC == 0)
    values = np.where(ring, 255, DISC).astype(np.uint8)
    data = load_em_dataset(folder_with(tmp_path, "a.png", lambda path: picture(values, "P", VOC).save(path), labels))
    np.testing.assert_array_equal(data.masks[0], np.where(ring, -100, DISC.astype(int)))
    assert list(data.id2label) == [0, 1]


def test_a_border_that_labels_json_names_is_a_class_and_255_of_other_masks_is_no_border(tmp_path):
    values = np.where(DISC, 255, 0).astype(np.uint8)
    named = folder_with(tmp_path / "a", "a.png", lambda path: picture(values, "P", VOC).save(path), SEEN)
    np.testing.assert_array_equal(load_em_dataset(named).masks[0], DISC)
    grey = folder_with(tmp_path / "b", "a.png", lambda path: picture(values).save(path), TWO)
    with pytest.raises(EMError, match=r"holds the grey values 255, which labels\.json does not name; it has 0, 1$"):
        load_em_dataset(grey)


def test_nan_in_a_float_mask_means_unlabelled(tmp_path):
    values = DISC.astype("f4") * 255
    values[:5] = np.nan
    data = load_em_dataset(folder_with(tmp_path, "a.tif", lambda path: tifffile.imwrite(path, values), SEEN))
    np.testing.assert_array_equal(data.masks[0][:5], -100)
    np.testing.assert_array_equal(data.masks[0][5:], DISC[5:])


@pytest.mark.parametrize("value", [0.5, np.inf, -np.inf])
def test_a_float_that_is_no_class_is_named_with_its_file(tmp_path, value):
    values = DISC.astype("f4")
    values[0, 0] = value
    with pytest.raises(EMError, match=rf"a\.tif holds the grey values {value:g}, which labels.json does not name"):
        load_em_dataset(folder_with(tmp_path, "a.tif", lambda path: tifffile.imwrite(path, values), TWO))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            stacked(DISC * 128, DISC * 0, DISC * 0),
            r"in 2 colours: \(0, 0, 0\) 87\.\d%, \(128, 0, 0\) 12\.\d%; .* indices",
        ),
        (np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8), r"a picture of [\d,]+ colours, not a mask"),
        (stacked(DISC, DISC, DISC, DISC * 255), r"87\.\d% of the pixels of this mask are transparent"),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_colours_and_transparent_pixels_are_refused_as_such(tmp_path, array, message, suffix):
    def write(path):
        picture(array).save(path) if suffix == "png" else tifffile.imwrite(path, array, photometric="rgb")

    with pytest.raises(EMError, match=message) as raised:
        load_em_dataset(folder_with(tmp_path, f"a.{suffix}", write, TWO))
    assert "luminance" not in str(raised.value) and "masks" in str(raised.value)


def smooth(array):
    return np.asarray(picture(array).resize((50, 40), Image.Resampling.BICUBIC))


def through_jpeg(array, path):
    picture(array).save(path.with_suffix(".jpg"), quality=80)
    return np.asarray(Image.open(path.with_suffix(".jpg")))


@pytest.mark.parametrize("labels", [SEEN, None])
@pytest.mark.parametrize("kind", ["resized", "blurred", "jpeg"])
def test_smoothed_edges_are_recognised_and_explained(tmp_path, kind, labels):
    small, sharp = DISC[::2, ::2] * np.uint8(255), DISC * np.uint8(255)
    values = {
        "resized": lambda: smooth(small),
        "blurred": lambda: np.rint(ndimage.gaussian_filter(sharp.astype(float), 0.8)).astype(np.uint8),
        "jpeg": lambda: through_jpeg(sharp, tmp_path / "a"),
    }[kind]()
    with pytest.raises(EMError, match=r"a\.png has values in between along its edges .*JPEG.*mask > 127"):
        load_em_dataset(folder_with(tmp_path, "a.png", lambda path: picture(values).save(path), labels))


def discs(count: int, first: int = 1) -> np.ndarray:
    """Return a mask with so many objects, each of its own value."""
    mask = np.zeros((60, 60), np.uint16)
    for number in range(count):
        row, column = divmod(number, 7)
        mask[8 * row + 1 : 8 * row + 7, 8 * column + 1 : 8 * column + 7] = first + number
    return mask


def masks(*arrays):
    return [Mask(array, None, f"{number}.tif") for number, array in enumerate(arrays)]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ([discs(38)], r"0, 1, 2, …, 38 \(39 values\): they look like instance ids, .*38 objects in 0\.tif"),
        ([discs(3), discs(5)], r"0, 1, 2, 3, 4, 5: they look like instance ids, .*3 to 5 objects a mask"),
        ([discs(12), discs(9, first=13)], r"instance ids, .*9 to 12 objects a mask"),
        ([discs(40) * 3], r"0, 3, 6, …, 120 \(41 values\): they look like instance ids"),
    ],
)
def test_ids_of_objects_are_asked_about_with_both_ways_out(arrays, said):
    with pytest.raises(EMError, match=said) as raised:
        values_as_classes(masks(*arrays), "here", "labels.json")
    assert "masks of 0 and 1 (mask > 0)" in str(raised.value) and "name them all in labels.json" in str(raised.value)


def test_layers_and_scattered_classes_are_no_ids_of_objects():
    layers = np.repeat(np.arange(4), 15)[:, None] * np.ones((1, 60), int)
    scattered = np.random.default_rng(0).integers(0, 12, (60, 60))
    for arrays in ([layers, layers], [scattered, scattered % 5], [discs(1), discs(2)]):
        found = values_as_classes(masks(*arrays), "here", "labels.json")
        assert len(found.id2label) == int(max(array.max() for array in arrays)) + 1


def test_ids_of_objects_that_labels_json_names_are_classes():
    names = {0: "background"} | {number: f"grain {number}" for number in range(1, 39)}
    mask = masks(discs(38))[0]
    np.testing.assert_array_equal(GreyValues(names).indices(mask, "a"), discs(38))


def test_ids_of_objects_beside_a_short_labels_json_are_explained():
    names = GreyValues({0: "background", 1: "particle"})
    with pytest.raises(
        EMError, match=r"2, 3, 4, …, 38 \(37 values\), which .* it has 0, 1; they look like instance ids"
    ):
        names.indices(masks(discs(38))[0], "masks/a.tif")


def test_smooth_images_and_noise_are_looked_at_without_a_guess():
    noise = np.random.default_rng(0).integers(0, 256, (60, 60)).astype(np.uint8)
    assert doubt([look_at(noise, "a")]) == "" and doubt([look_at(DISC, "a")]) == ""


def test_values_are_listed_as_a_person_would():
    assert listed({1, 0, 255}) == "0, 1, 255" and listed(range(39)) == "0, 1, 2, …, 38 (39 values)"
    assert listed({0.5, 2.0, True}) == "0.5, 1, 2" and listed(range(8)) == "0, 1, 2, 3, 4, 5, 6, 7"


@pytest.mark.parametrize("name", ["palette.png", "bit.png", "palette.gif", "palette.bmp", "lossless.webp", "bit.tif"])
def test_a_mask_in_the_bytes_of_a_row_is_read_as_from_its_file(tmp_path, name):
    WRITERS[name](tmp_path / name)
    in_row, in_file = decode_mask((tmp_path / name).read_bytes(), "row 0"), read_masks(tmp_path / name)[0]
    np.testing.assert_array_equal(in_row.array, in_file.array)
    assert in_row.name == "row 0" and in_file.name == name


def test_rows_of_a_dataset_hold_palettes_and_single_bits(tmp_path):
    import datasets

    names = ["palette.png", "bit.png", "two colours.png"]
    for name in names:
        WRITERS[name](tmp_path / name)
    picture(DISC).save(tmp_path / "image.png")
    (tmp_path / "set").mkdir()
    cells = [{"bytes": (tmp_path / name).read_bytes(), "path": name} for name in names]
    images = [{"bytes": (tmp_path / "image.png").read_bytes(), "path": "image.png"}] * 3
    features = datasets.Features({"image": datasets.Image(), "mask": datasets.Image()})
    rows = datasets.Dataset.from_dict({"image": images, "mask": cells}, features=features)
    rows.to_parquet(str(tmp_path / "set" / "train-00000-of-00001.parquet"))
    (tmp_path / "set" / "labels.json").write_text(TWO)
    for mask in load_em_dataset(tmp_path / "set").masks:
        np.testing.assert_array_equal(mask, DISC)


@pytest.mark.parametrize(
    "labels", [{"0": "background", "128": "particle", "255": "particle"}, {"0": "a", "1": "b", "128": "a"}]
)
def test_values_of_one_name_are_one_class(tmp_path, labels):
    values = np.array([0, 0, 1 if "1" in labels else 255, 128], np.uint8)[
        np.random.default_rng(0).integers(0, 4, DISC.shape)
    ]
    folder = folder_with(tmp_path, "a.png", lambda path: picture(values).save(path), json.dumps(labels))
    data = load_em_dataset(folder)
    assert list(data.id2label.values()) == list(dict.fromkeys(labels.values()))
    expected = [list(data.id2label.values()).index(labels[str(value)]) for value in values.ravel()]
    np.testing.assert_array_equal(data.masks[0].ravel(), expected)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ('["background", "particle"]', "holds no JSON object"),
        ('{"0": {"name": "background"}, "1": "b"}', r'gives 0 the name \{"name": "background"\}; expected text'),
        ('{"0": ["background"], "1": "b"}', "gives 0 the name .*; expected text"),
        ('{"0": 1.5, "1": "b"}', "gives 0 the name 1.5; expected text"),
        ('{"0": "a", "1": null}', "gives 1 the name null; expected text"),
        ('{"background": 0, "particle": 255}', r'the other way round: \{"0": "background", "255": "particle"\}'),
        ('{"0": "a", "0": "b"}', "has the key '0' 2 times"),
        ('{"0": "a", "00": "b"}', "names the grey value 0 twice"),
        ('{"0": "a", "0.5": "b"}', r"has a key that is not a grey value \('0.5'\)"),
        ('{"0": "a", "1_0": "b"}', "has a key that is not a grey value"),
        ('{"0": "a", "65536": "b"}', "names the grey value 65536; expected -32768 to 65535"),
        ('{"0": "a", "-40000": "b"}', "names the grey value -40000; expected -32768 to 65535"),
        ('{"0": "a"}', "names one class, 'a'; expected two or more"),
        ('{"0": "Ignore", "1": "particle"}', "names one class, 'particle'; expected two or more"),
        ('{"0": "ignore", "1": " IGNORE"}', "names no class but 'ignore'"),
        ('{"0": "a", "1": " \\u00a0\\u200b"}', "the class of grey value 1 is called .* expected a printable name"),
        ('{"0": "a", "1": "' + "x" * 201 + '"}', "the class of grey value 1 is called .* up to 200 letters"),
        ('{"0": "a", "1": "b\\u0007"}', "the class of grey value 1 is called .* expected a printable name"),
        ('{"0": "Particle", "1": "particle"}', "has the classes 'Particle' and 'particle': write them alike"),
    ],
)
def test_what_loading_a_model_would_refuse_is_refused_in_labels_json(tmp_path, labels, message):
    folder = folder_with(tmp_path, "a.png", lambda path: picture(DISC).save(path), labels)
    with pytest.raises(EMError, match=message) as raised:
        load_em_dataset(folder)
    assert str(folder / "labels.json") in str(raised.value)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("Pt\u00a0particle", "Pt particle"),
        (" \u200bPt \t particle\ufeff", "Pt particle"),
        ("Gro\u0308\u00dfe", "Gr\u00f6\u00dfe"),
    ],
)
def test_class_names_are_those_that_people_see_in_files_and_in_python(tmp_path, given, name):
    from emfm import EMForSemanticSegmentation
    from emfm.config import EMFoundationConfig

    labels = json.dumps({"0": "background", "1": given})
    data = load_em_dataset(folder_with(tmp_path, "a.png", lambda path: picture(DISC).save(path), labels))
    assert data.id2label[1] == name
    config = EMFoundationConfig.from_name("unet2-rf44", id2label={0: "background", 1: given})
    assert config.id2label[1] == name and config.label2id[name] == 1
    EMForSemanticSegmentation(config).save_pretrained(tmp_path / "model")
    assert EMForSemanticSegmentation.from_pretrained(tmp_path / "model").config.id2label[1] == name


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_json_files_are_read_in_every_encoding_that_editors_write(tmp_path, encoding, caplog):
    folder = folder_with(tmp_path, "a.png", lambda path: picture(DISC).save(path))
    (folder / "labels.json").write_bytes('{"0": "Grund", "1": "Größe"}'.encode(encoding))
    (folder / "splits.json").write_bytes('{"train": ["a.tif"]}'.encode(encoding))
    with caplog.at_level(logging.WARNING):
        assert load_em_dataset(folder).id2label == {0: "Grund", 1: "Größe"}
    assert not caplog.records


def test_probabilities_are_recognised(tmp_path):
    values = ndimage.gaussian_filter(DISC.astype("f4"), 3)
    with pytest.raises(EMError, match=r"a\.tif has fractions, as probabilities are: put a threshold to it"):
        load_em_dataset(folder_with(tmp_path, "a.tif", lambda path: tifffile.imwrite(path, values)))


def test_small_specks_among_objects_are_no_smoothed_edges():
    mask = discs(30)
    mask[:, -3:] = 0
    mask[1::8, -1] = np.arange(100, 108)  # eight objects of a pixel
    look = look_at(mask, "a")
    assert look.edges == 0 and look.whole == 38


@pytest.mark.parametrize(
    "name", ["voc.png", "bit.bmp", "palette.gif", "bool.tif", "nan.tif", "nan.npy", "negative.tif"]
)
def test_a_pushed_mask_comes_back_with_the_same_classes(tmp_path, name):
    from emfm.hub.datasets.image_folder import open_image_folder
    from emfm.hub.datasets.parquet_folder import DatasetCard, write_parquet_folder

    unknown = np.where(np.indices(DISC.shape)[0] < 4, np.nan, DISC)
    values = np.where(np.isnan(unknown), 255, DISC).astype(np.uint8)
    write, labels = {
        "voc.png": (lambda path: picture(values, "P", VOC).save(path), TWO),
        "nan.tif": (lambda path: tifffile.imwrite(path, unknown.astype("f4")), TWO),
        "nan.npy": (lambda path: np.save(path, unknown), '{"0": "a", "1": "b", "9": "ignore"}'),
        "negative.tif": (lambda path: tifffile.imwrite(path, DISC.astype("i2") - 1), '{"-1": "a", "0": "b"}'),
    }.get(name) or (WRITERS[name], TWO if name == "palette.gif" else SEEN)
    folder = folder_with(tmp_path / "folder", name, write, labels)
    opened = open_image_folder(folder)
    card = DatasetCard("t", "s", "image-segmentation", "mit", "here", "Ada", "hand", "none")
    pushed = write_parquet_folder(tmp_path / "set", opened.splits, opened.row, card, opened.labels)
    before, after = load_em_dataset(folder), load_em_dataset(pushed)
    np.testing.assert_array_equal(after.masks, before.masks)
    assert after.id2label == before.id2label
    assert (before.masks[0][:4] == -100).all() == name.startswith(("voc", "nan"))


def test_pixels_of_no_class_that_no_value_stands_for_are_not_pushed(tmp_path):
    from emfm.hub.datasets.image_folder import open_image_folder

    unknown = np.where(np.indices(DISC.shape)[0] < 4, np.nan, DISC)
    opened = open_image_folder(folder_with(tmp_path, "a.npy", lambda path: np.save(path, unknown), TWO))
    with pytest.raises(EMError, match=r'masks/a\.npy has 200 pixels of no class .* as "255": "ignore"$'):
        opened.row("a.tif")
