"""Every command and every Python block of the README runs, in the order in which it stands there.

Training steps and crops are cut down; nothing else is changed.
"""

import re
import shlex
import sys
from pathlib import Path

import pytest

from emfm.cli import main

README = (Path(__file__).parent.parent / "README.md").read_text()


def shortened(text: str) -> str:
    text = re.sub(r"--steps \d+", "--steps 2", text)
    text = text.replace("max_steps=300", "max_steps=2, crop=64, per_device_train_batch_size=2")
    text = re.sub(r"emfm finetune ([a-z-]+)", r"emfm finetune \1 --crop 64 --batch-size 2", text)
    return text.replace("--crop 128", "--crop 32 --batch-size 2 --discriminator-width 4")


def blocks() -> list[tuple[str, str]]:
    return re.findall(r"```(bash|python)\n(.*?)```", README, flags=re.DOTALL)


def test_the_commands_and_python_blocks_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for language, text in blocks():
        if language == "python":
            exec(compile(shortened(text), "README.md", "exec"), {})
            continue
        for line in filter(None, text.splitlines()):
            monkeypatch.setattr(sys, "argv", shlex.split(shortened(line)))
            with pytest.raises(SystemExit) as stop:
                main()
            assert not stop.value.code, f"{line}: {capsys.readouterr().err}"
    printed = capsys.readouterr().out
    assert '"dice"' in printed and "verified" in printed
    assert (tmp_path / "pred" / "nanoparticles_0011_overlay.png").is_file()
    assert (tmp_path / "runs" / "mine" / "pretrained_model" / "README.md").is_file()


def test_the_readme_is_short_and_names_no_verb_that_does_not_exist():
    assert len(README.splitlines()) <= 150
    from emfm.cli import app

    verbs = {command.name or command.callback.__name__ for command in app.registered_commands}
    verbs |= {group.typer_instance.info.name for group in app.registered_groups}
    assert set(re.findall(r"(?:^|`)emfm ([a-z]+)", README, flags=re.MULTILINE)) <= verbs


def test_make_and_ci_call_what_the_readme_says():
    root = Path(__file__).parent.parent
    makefile = (root / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    assert "make test" in (root / ".ci" / "run").read_text()
