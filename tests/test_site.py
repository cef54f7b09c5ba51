"""The pages lead to each other, name only what is there, and become a site without a warning."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_layering import arrows, between_rooms

import emfm
from docs.site import links

ROOT = Path(__file__).parent.parent
GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = ("", "emfm", "benchmarks", "docs", "hub_scripts", "model_cards", "tests")
FILES = [path for folder in FOLDERS for path in (ROOT / folder).glob("**/*" if folder else "*") if path.is_file()]
REFERENCE = "\n".join(path.read_text("utf-8") for path in sorted((ROOT / "docs" / "reference").glob("*.md")))


@pytest.mark.parametrize("page", links.pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_somewhere(page):
    targets = links.links(page.read_text("utf-8"))
    assert [wrong for wrong in (links.mistake(page, target) for target in targets) if wrong] == []


def test_a_broken_link_would_be_found(tmp_path, monkeypatch):
    monkeypatch.setattr(links, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "# First `part`\n\n## Part\n\n## Part\n\n[a](page.md#first-part) [b](#part-1) "
        "![c](none.png)\n[d](#part-2) [e](../x.md) `[f](none.md)` [g](https://example.org/x) "
        "<https://example.org>\n```\n[h](none.md)\n# Not a heading\n```\n[i](#not-a-heading)\n"
    )
    (tmp_path.parent / "x.md").touch()
    found = links.links(page.read_text())
    assert found == [
        "page.md#first-part",
        "#part-1",
        "none.png",
        "#part-2",
        "../x.md",
        "https://example.org/x",
        "https://example.org",
        "#not-a-heading",
    ]
    wrong = [target for target in found if links.mistake(page, target)]
    assert wrong == ["none.png", "#part-2", "../x.md", "#not-a-heading"]


def named_objects(text: str) -> set[str]:
    """Return what a page imports from emfm or names with its module."""
    names = set(re.findall(r"\bemfm(?:\.[A-Za-z_]\w*)+", text))
    for module, imported in re.findall(r"from (emfm[\w.]*) import ([\w, ]+)", text):
        names |= {f"{module}.{name.strip()}" for name in imported.split(",")}
    return names


def resolved(name: str) -> object:
    """Return a module, or what a module holds, by its full name."""
    module, _, attribute = name.rpartition(".")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_name_of_the_package_on_a_page_exists(page):
    text = re.sub(r"https?://\S+", "", page.read_text("utf-8"))
    for name in sorted(named_objects(text)):
        assert resolved(name) is not None


def test_the_reference_has_every_public_name():
    shown = set(re.findall(r"auto\w+:: (\S+)", REFERENCE))
    assert {f"emfm.{name}" for name in emfm.__all__} - {"emfm.__version__"} <= shown


def test_what_the_guides_import_stands_in_the_reference():
    shown = set(re.findall(r"auto\w+:: (\S+)", REFERENCE))
    for page in GUIDES:
        for module, names in re.findall(r"^from (emfm[\w.]*) import ([\w, ]+)", page.read_text("utf-8"), re.MULTILINE):
            for name in names.split(","):
                assert {module, f"{module}.{name.strip()}"} & shown - {"emfm"}, f"{page.name}: {module}.{name}"


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_asks_no_other_site(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-E", "-c", "docs/site", ".", tmp_path]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "README.html" in (tmp_path / "index.html").read_text("utf-8")
    for page in tmp_path.rglob("*.html"):
        # pictures, styles and scripts come along; other sites are only linked to
        text = page.read_text("utf-8")
        assert not re.findall(r"<(?:script|img|iframe)[^>]* src=\"(?:https?:)?//", text), page
        assert not re.findall(r"<link [^>]*href=\"(?:https?:)?//", text), page
    for style in tmp_path.rglob("*.css"):
        assert not re.findall(r"url\([\"']?(?:https?:)?//", style.read_text("utf-8")), style
    shown = (tmp_path / "docs" / "reference" / "prediction.html").read_text("utf-8")
    assert 'id="emfm.predict"' in shown
    assert 'id="emfm.inference.files.predict_files"' in shown


def paths_named(text: str) -> set[str]:
    """Return the files that a page names within its lines; NAME stands for one that is to be written."""
    names = re.findall(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|md|toml|yml|json|cff))`", text)
    return {name for name in names if "NAME" not in name}


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md", "docs/architecture.md"])
def test_every_file_that_a_page_names_exists(name):
    known = [path.relative_to(ROOT).as_posix() for path in FILES] + ["config.json", "preprocessor_config.json"]
    for path in sorted(paths_named((ROOT / name).read_text("utf-8"))):
        assert any(f"/{file}".endswith(f"/{path}") for file in known), path


def test_every_test_that_contributing_names_exists():
    tests = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", (ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    assert len(named) >= 3
    for name in named:
        assert f"def {name}(" in tests, name


def test_the_floors_on_the_page_are_those_of_the_imports():
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8").split("## Three journeys")[0]
    lines = re.findall(r"^\d+\. (`.*)$", text, re.MULTILINE)
    floors = [name for line in lines for name in re.findall(r"`(\w+)`", line)]
    rooms = between_rooms(arrows())
    assert set(rooms) == set(floors)
    for room, targets in rooms.items():
        assert targets <= set(floors[: floors.index(room)]), room


def test_every_room_stands_in_the_tree_of_the_page():
    tree = (ROOT / "docs" / "architecture.md").read_text("utf-8").split("```")[1]
    for room in between_rooms(arrows()):
        assert re.search(rf"\b{room}(\.py|/)", tree), room
