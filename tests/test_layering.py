"""Imports point one way: between the rooms of the package, and between the files of a room."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import emfm

PACKAGE = Path(emfm.__file__).parent


def modules() -> dict[str, Path]:
    """Return each module's name below `emfm`, and its file."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return {name: path for name, path in found.items() if name}  # without the lazy public names


def imported(path: Path, known: set[str]) -> set[str]:
    """Return the modules of the package that a file imports, at its top or when it is called."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "emfm":
            base = node.module.removeprefix("emfm").lstrip(".")
            for alias in node.names:
                inside = f"{base}.{alias.name}".lstrip(".")
                names.add(inside if inside in known else base)
        elif isinstance(node, ast.Import):
            names |= {alias.name.removeprefix("emfm.") for alias in node.names if alias.name.startswith("emfm.")}
    return names & known


def arrows() -> dict[str, set[str]]:
    """Return for each module those that it imports."""
    found = modules()
    return {name: imported(path, set(found)) - {name} for name, path in found.items()}


def between_rooms(arrows_of: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return for each room, a folder or a file beside `__init__.py`, the rooms that it imports from."""
    rooms: dict[str, set[str]] = {}
    for name, targets in arrows_of.items():
        room = name.partition(".")[0]
        rooms.setdefault(room, set()).update(target.partition(".")[0] for target in targets)
    return {room: targets - {room} for room, targets in rooms.items()}


def circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_import_runs_back_up_between_rooms():
    rooms = between_rooms(arrows())
    assert circle(rooms) == []
    assert {"io", "data", "tasks", "finetuning", "cli"} <= set(rooms)  # it looked at something


def test_no_files_import_each_other_in_a_circle():
    # a package's __init__.py offers what its files hold; a file that imports from its own package
    # would be a circle
    assert circle(arrows()) == []


def test_a_circle_would_be_found():
    assert circle(between_rooms({"io.a": {"data.b"}, "data.c": {"io.d"}})) != []


def test_models_are_imported_without_the_engines():
    arrows_of = arrows()
    seen, waiting = set(), ["modeling"]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += arrows_of[name]
    assert not {name.partition(".")[0] for name in seen} & {"pretraining", "finetuning", "inference", "reports", "cli"}


def test_files_and_functions_stay_short():
    too_long = []
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        if len(text.splitlines()) > 350:
            too_long.append(f"{path.name}: {len(text.splitlines())} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                docstring = sum(
                    bool(line.strip()) for line in (ast.get_docstring(node, clean=False) or "").splitlines()
                )
                lines = text.splitlines()[node.body[0].lineno - 1 : node.end_lineno]
                written = sum(bool(line.strip()) for line in lines) - docstring
                if written > 40:
                    too_long.append(f"{path.name}:{node.name}: {written} lines")
    assert too_long == []


# Beside the backbones themselves, these may name one: the default generator, and the model that the
# demo fine-tunes.
NAMES_A_BACKBONE = {"defaults.py", "demo/run.py"}


def named(path: Path) -> set[str]:
    """Return the identifiers and texts in a file's code; comments and docstrings are not code."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    documented = [node.body[0] for node in ast.walk(tree) if isinstance(node, kinds) and ast.get_docstring(node)]
    docstrings = {id(expression.value) for expression in documented}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            found.add(node.value)
        for field in ("id", "attr", "name", "module", "arg"):
            value = getattr(node, field, None)
            found |= {value} if isinstance(value, str) else set()
    return found


def test_no_file_but_the_backbones_names_one():
    paths = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
    outside = {name: path for name, path in paths.items() if not name.startswith("backbones/")}
    backbone = re.compile("u-?net|hrnet", re.IGNORECASE)
    naming = {name for name, path in outside.items() if any(map(backbone.search, named(path)))}
    assert naming == NAMES_A_BACKBONE
