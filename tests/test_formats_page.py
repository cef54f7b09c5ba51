"""The page on formats says what the code does."""

import re
from pathlib import Path

from emfm.io.formats import planes, tiff_calibration, vendor
from emfm.io.formats.planes import RULES
from emfm.io.large_images import CACHE_BYTES
from emfm.io.reading import SUFFIXES

TEXT = (Path(__file__).parent.parent / "docs" / "formats.md").read_text()


def test_the_table_names_every_suffix_once():
    rows = [line.split("|")[2] for line in TEXT.splitlines() if line.startswith("| ")]
    named = [suffix for row in rows for suffix in re.findall(r"`(\.\w+)`", row)]
    assert sorted(named) == sorted(SUFFIXES)


def test_every_rule_for_colour_is_named():
    assert all(f"`{rule}`" in TEXT.replace("--colour ", "") for rule in RULES)


def test_the_limits_are_those_of_the_code():
    assert planes.WHOLE_BYTES == 64 << 20 and "| above 64 MiB |" in TEXT and "may hold 64 MiB" in TEXT
    assert f"or {planes.LARGEST_RATIO} times its bytes" in TEXT.replace("\n", " ")
    assert f"at most {planes.LARGEST_SIDE:,}" in TEXT
    assert f"newest {CACHE_BYTES >> 20} MiB" in TEXT
    assert f"{vendor.MEMORY >> 30} GiB of memory and {vendor.MEMORY_PER_BYTE} times the file's bytes" in TEXT
    assert f"{vendor.SECONDS} s and a second for every {vendor.BYTES_PER_SECOND // 10**6} MB" in TEXT
    assert planes.ISOTROPIC == 0.01 and "more than 1 %" in TEXT
    assert tiff_calibration.LARGEST_OF_TAGS == 10e3 and "more than 10 µm" in TEXT
