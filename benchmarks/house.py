"""What the package's code is like: its size, its circles, and how densely it is written.

    python -m benchmarks.house [--against REVISION] [--json]

With `--against` the same is measured on another revision of the repository, beside today's.
"""

import argparse
import ast
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LONG_FUNCTION = 40
# Places that ask which task it is, or which kind of data belongs to it. Comments and docstrings do
# not count.
CLASSES = "EMFor[A-Z]\\w+|(?:Labelled|Paired|Clean)Micrographs|(?:Segmentation|Restoration)Metrics"
SWITCHES = re.compile(
    rf"isinstance\([^()]*\b(?:{CLASSES})\b|issubclass\([^()]*\b(?:{CLASSES})\b"
    r"|[=!]= \"(?:segmentation|denoising|super-resolution|background-removal|masks|targets|downsample)\""
    r"|\"(?:segmentation|denoising|super-resolution|background-removal|masks|targets)\":"
    r"|\"EMFor\w+\":|\b(?:classes|id2label|labels) is (?:not )?None|\bsegments\b(?! =)"
)


@dataclass(frozen=True)
class House:
    """Figures of a package.

    Attributes:
        lines: of all files, blank ones, docstrings and comments among them.
        code_lines: without those.
        files: Python files.
        long_functions: functions of more than 40 lines, the docstring among them.
        longest_file: its lines.
        longest_line: its characters.
        circles: groups of files that import each other in a circle.
        back_edges: imports between folders that have to go for the folders to import one way.
        task_switches: places outside `tasks/` that ask which task it is.
        switching_files: files with such places.
        any_per_1000: uses of `Any` in 1,000 lines.
        ternaries_per_1000: `a if b else c` in 1,000 lines of code.
        comprehensions_per_1000: comprehensions and generator expressions in 1,000 lines of code.
    """

    lines: int
    code_lines: int
    files: int
    long_functions: int
    longest_file: int
    longest_line: int
    circles: int
    back_edges: int
    task_switches: int
    switching_files: int
    any_per_1000: float
    ternaries_per_1000: float
    comprehensions_per_1000: float


def measure(package: Path) -> House:
    """Return the figures of a package's folder."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))}
    trees = {path: ast.parse(text) for path, text in texts.items()}
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    lines = sum(len(text.splitlines()) for text in texts.values())
    code = {path: code_lines(text, trees[path]) for path, text in texts.items()}
    code_count = sum(len(numbers) for numbers in code.values())
    arrows = imports(package, trees)
    switches = {path: task_switches(texts[path], code[path]) for path in texts if "tasks" not in path.parts}
    return House(
        lines=lines,
        code_lines=code_count,
        files=len(texts),
        long_functions=sum(is_long(node) for node in nodes),
        longest_file=max(len(text.splitlines()) for text in texts.values()),
        longest_line=max(len(line) for text in texts.values() for line in text.splitlines()),
        circles=len(circles(arrows)),
        back_edges=back_edges(arrows),
        task_switches=sum(switches.values()),
        switching_files=sum(count > 0 for count in switches.values()),
        any_per_1000=per_thousand(sum(is_any(node) for node in nodes), lines),
        ternaries_per_1000=per_thousand(count_of(nodes, ast.IfExp), code_count),
        comprehensions_per_1000=per_thousand(
            count_of(nodes, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp), code_count
        ),
    )


def per_thousand(count: int, lines: int) -> float:
    """Return a count in 1,000 lines."""
    return round(1000 * count / lines, 1)


def count_of(nodes: list[ast.AST], *kinds: type[ast.AST]) -> int:
    """Return how many nodes are of some kinds."""
    return sum(isinstance(node, kinds) for node in nodes)


def is_any(node: ast.AST) -> bool:
    """Tell whether a node names `Any`."""
    return isinstance(node, ast.Name) and node.id == "Any"


def is_long(node: ast.AST) -> bool:
    """Tell whether a node is a function of more than 40 lines."""
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or node.end_lineno is None:
        return False
    return node.end_lineno - node.lineno + 1 > LONG_FUNCTION


def code_lines(text: str, tree: ast.Module) -> list[int]:
    """Return the numbers of the lines that are code: not blank, no comment, no docstring."""
    docstrings: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(
            node
        ):
            first = node.body[0]
            docstrings |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.strip().startswith("#") and number not in docstrings:
            found.append(number)
    return found


def task_switches(text: str, numbers: list[int]) -> int:
    """Return in how many lines of code a file asks which task it is."""
    lines = text.splitlines()
    return sum(bool(SWITCHES.search(lines[number - 1])) for number in numbers)


def imports(package: Path, trees: dict[Path, ast.Module]) -> dict[str, set[str]]:
    """Return for each module those of the package that it imports, at its top or when it is called."""
    names = {}
    for path in trees:
        parts = [part for part in path.relative_to(package).with_suffix("").parts if part != "__init__"]
        names[path] = ".".join(parts)
    known = set(names.values()) - {""}
    arrows: dict[str, set[str]] = {name: set() for name in known}
    for path, tree in trees.items():
        if names[path]:  # without the lazy public names
            arrows[names[path]] = imported(tree, package.name, known) - {names[path]}
    return arrows


def imported(tree: ast.Module, package: str, known: set[str]) -> set[str]:
    """Return the modules of a package that a file imports."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
            base = (node.module or "").removeprefix(package).lstrip(".")
            for alias in node.names:
                inside = f"{base}.{alias.name}".lstrip(".")
                found.add(inside if inside in known else base)
    return found & known


def circles(arrows: dict[str, set[str]]) -> list[set[str]]:
    """Return the groups of modules of which each reaches each other."""
    reach = {name: reached(arrows, name) for name in arrows}
    groups = []
    left = set(arrows)
    while left:
        name = left.pop()
        group = {other for other in reach[name] if name in reach[other]}
        if group:
            groups.append(group | {name})
            left -= group
    return groups


def reached(arrows: dict[str, set[str]], start: str) -> set[str]:
    """Return what a module imports, and what that imports in turn."""
    seen: set[str] = set()
    waiting = list(arrows[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += arrows[name]
    return seen


def back_edges(arrows: dict[str, set[str]]) -> int:
    """Return how many pairs of folders import from each other, directly or through others, in both directions."""
    rooms: dict[str, set[str]] = {}
    for name, targets in arrows.items():
        room = name.partition(".")[0]
        rooms.setdefault(room, set()).update(target.partition(".")[0] for target in targets)
    for room in rooms:
        rooms[room] -= {room}
    tied = circles(rooms)
    return sum(len(group) - 1 for group in tied)


def at_revision(revision: str) -> House:
    """Measure the package as it was at a revision of the repository."""
    archive = subprocess.run(["git", "archive", revision, "emfm"], cwd=ROOT, capture_output=True, check=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")
        return measure(Path(folder) / "emfm")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="REVISION", help="measure this revision, too")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = {"today": measure(ROOT / "emfm")}
    if arguments.against:
        found = {arguments.against: at_revision(arguments.against), **found}
    figures = {name: asdict(house) for name, house in found.items()}
    if arguments.json:
        sys.stdout.write(json.dumps(figures, indent=1) + "\n")
        return
    sys.stdout.write(f"{'':<26}" + "".join(f"{name:>14}" for name in figures) + "\n")
    for field in House.__dataclass_fields__:
        sys.stdout.write(f"{field:<26}" + "".join(f"{house[field]:>14}" for house in figures.values()) + "\n")


if __name__ == "__main__":
    main()
