"""Every `emfm` command of the documentation is one that the command line takes."""

import importlib
import json
import re
import shlex
from pathlib import Path

import pytest
import typer

from emfm.cli import app

DOCS = sorted((Path(__file__).parent.parent / "docs").glob("*.md"))
COMMANDS = typer.main.get_command(app).commands


def command_lines(text: str) -> list[list[str]]:
    lines = "\n".join(re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)).splitlines()
    words = [shlex.split(line) for line in lines if "emfm" in line]
    return [line[next(i for i, word in enumerate(line) if word in ("emfm", "emfm.cli")) + 1 :] for line in words]


WITH_COMMANDS = [path for path in DOCS if path.name != "transformers.md"]  # it is on Python alone


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=lambda path: path.name)
def test_commands_parse(path):
    found = command_lines(path.read_text())
    assert found
    for verb, *arguments in found:
        command = COMMANDS[verb]
        if hasattr(command, "commands"):  # a group of verbs
            command = command.commands[arguments.pop(0)]
        command.make_context(verb, arguments)  # raises a usage error on an option that does not exist


def test_the_papers_steps_follow_from_epochs_images_and_batch():
    text = (Path(__file__).parent.parent / "docs" / "pretraining.md").read_text()
    runs = re.findall(r"--nproc_per_node (\d+) .*--num-images (\d+) .*--batch-size (\d+) --steps (\d+)", text)
    assert len(runs) == 3
    for processes, images, batch, steps in (map(int, run) for run in runs):
        assert processes * batch == 128
        assert steps == -(-60 * images // 128)


def test_every_damage_and_every_file_named_in_the_docs_exists():
    from emfm.data.degradations import CORRUPTIONS

    text = (Path(__file__).parent.parent / "docs" / "pretraining.md").read_text()
    assert all(f"`{name}`" in text for name in CORRUPTIONS)


def test_the_estimated_cost_is_what_the_benchmark_prints():
    from benchmarks.pretrain_cost import table

    assert table(10.0) in (Path(__file__).parent.parent / "docs" / "pretraining.md").read_text()


RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"


@pytest.mark.parametrize(
    ("file", "benchmark"),
    [
        ("tasks", "tasks"),
        ("finetune_settings", "finetune_settings"),
    ],
)
def test_measured_tables_are_what_the_benchmarks_print_of_their_results(file, benchmark):
    table = importlib.import_module(f"benchmarks.{benchmark}").table
    results = [json.loads(line) for line in (RESULTS / f"{file}.jsonl").read_text().splitlines()]
    assert table(results) in (Path(__file__).parent.parent / "docs" / "finetuning.md").read_text()


def test_the_export_page_states_the_limits_that_hold():
    from emfm.app import UPLOAD_MB
    from emfm.app.reading import MAX_PIXELS, MEMORY, SECONDS
    from emfm.export.onnx_file import CHECKED_SIZES, TOLERANCE
    from emfm.reports.pictures import LARGEST_SIDE

    text = (Path(__file__).parent.parent / "docs" / "export.md").read_text().replace("\n", " ")
    *sizes, last = (" x ".join(map(str, size)) for size in CHECKED_SIZES)
    assert f"{', '.join(sizes)} and {last}: a difference above {TOLERANCE:f}".rstrip("0") in text
    assert f"at most {MEMORY // 2**30} GiB, {SECONDS} s and {MAX_PIXELS // 10**6} million pixels" in text
    assert f"limits the upload ({UPLOAD_MB})" in text
    assert f"more than {LARGEST_SIDE} pixels" in text
