"""Folders as people have them: files of other systems in them, links, names that only look equal."""

import numpy as np
import pytest
import tifffile

from emfm.errors import EMError
from emfm.io.listing import is_foreign, plain
from emfm.io.reading import list_micrographs, read_micrograph

FOREIGN = [".DS_Store", "._a.tif", ".hidden.tif", "Thumbs.db", "desktop.ini", "@eaDir", "__MACOSX", "~$x.tif"]


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.zeros((4, 5), np.uint8))
    return path


@pytest.mark.parametrize("name", FOREIGN)
def test_files_and_folders_of_other_systems_are_no_images(tmp_path, name):
    assert is_foreign(name)
    kept = write(tmp_path / "a.tif")
    write((tmp_path / name / "b.tif") if "." not in name else tmp_path / name)
    assert list_micrographs(tmp_path) == [kept]


def test_names_that_only_resemble_those_of_systems_are_the_users():
    assert not any(map(is_foreign, ["a.tif", "~a.tif", "MACOSX", "thumbs.tif", "_a.tif", "eaDir"]))


def test_a_folder_may_lie_below_a_hidden_one(tmp_path):
    kept = write(tmp_path / ".cache" / "data" / "a.tif")
    assert list_micrographs(kept.parent) == [kept]


def test_links_to_files_and_folders_are_followed_and_circles_end(tmp_path):
    write(tmp_path / "elsewhere" / "b.tif")
    write(tmp_path / "data" / "sub" / "a.tif")
    for link, target in (("linked", "elsewhere"), ("sub/again", "data"), ("c.tif", "elsewhere/b.tif")):
        try:
            (tmp_path / "data" / link).symlink_to(tmp_path / target)
        except OSError:
            pytest.skip("this system makes no links")
    found = list_micrographs(tmp_path / "data")
    assert [path.relative_to(tmp_path / "data").as_posix() for path in found] == ["c.tif", "linked/b.tif", "sub/a.tif"]


def test_a_link_that_leads_nowhere_is_named_when_it_is_read(tmp_path):
    write(tmp_path / "a.tif")
    try:
        (tmp_path / "b.tif").symlink_to(tmp_path / "gone.tif")
    except OSError:
        pytest.skip("this system makes no links")
    with pytest.raises(EMError, match=r"there is no file .*b\.tif"):
        read_micrograph(list_micrographs(tmp_path)[1])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Gr\u00f6\u00dfe.tif", "Gro\u0308\u00dfe.tif"),
        ("a.TIF", "A.tif"),
        ("sub\\a.tif", "sub/a.tif"),
        ("./sub//a.tif", "sub/a.tif"),
        (" a\u00a0b .tif", "a b .tif"),
        ("\ufeffa.tif", "a.tif"),
        ("a\u200b.tif", "a.tif"),
    ],
)
def test_names_that_look_equal_are_equal(one, other):
    assert plain(one) == plain(other)


def test_names_that_look_different_are_different():
    assert len({plain(name) for name in ("a.tif", "b.tif", "a1.tif", "sub/a.tif", "\u00e4.tif")}) == 5
