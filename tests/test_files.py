"""Files and folders are whole or not there, and what the system refuses is told in one line."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from emfm import EMError
from emfm.files import (
    check_space,
    reason_of,
    whole_folder,
    writable_file,
    writable_folder,
    write_atomically,
    write_text,
)
from emfm.files import writing as writing_of


def tree(folder: Path) -> dict[str, str]:
    """Return the files below a folder with their text."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


@pytest.mark.parametrize("place", ["new", "new/deeper still/µ", "."])
def test_a_folder_that_can_be_written_is_only_tried_and_not_made(place, tmp_path):
    assert writable_folder(tmp_path / place) == tmp_path / place
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("file", r"^\S*file is a file: choose another --output$"),
        ("file/a/b", r"^cannot make \S*file/a/b: \S*file is a file: choose another --output$"),
        ("link", r"link is a link to nowhere, which is not there: choose"),
        ("link/a", r"link is a link to nowhere, which is not there: choose"),
        ("circle/a", r"circle is a link to circle, which is not there"),
        ("x" * 300, r"cannot write to \S*xxx: the name is too long: choose another --output$"),
        ("a\0b", r"null"),
        ("gr\udcf6n/a", r"the name is no text in UTF-8: choose another --output$"),
    ],
)
def test_what_cannot_be_a_folder_is_refused_in_one_line(place, message, tmp_path):
    (tmp_path / "file").touch()
    try:
        (tmp_path / "link").symlink_to("nowhere")
        (tmp_path / "circle").symlink_to("circle")
    except OSError:
        pytest.skip("this system makes no links")
    with pytest.raises(EMError, match=message):
        writable_folder(tmp_path / place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["circle", "file", "link"]


@pytest.mark.parametrize(
    ("text", "message"), [("", "--output is empty"), (" ", "is empty"), ("-", "is -"), ("~/a", "nothing but a shell")]
)
def test_a_text_that_is_no_folder_is_refused(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EMError, match=message):
        writable_folder(text)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left on the disk"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the disk is read-only"),
        (errno.EACCES, "no permission"),
    ],
)
@pytest.mark.parametrize("call", ["mkdir", "fsync"])
def test_what_the_system_refuses_is_said_in_words_and_leaves_nothing(number, words, call, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number), "somewhere")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(EMError, match=rf"^cannot write to \S*out: {words}: choose another --model-output$"):
        writable_folder(tmp_path / "out", "--model-output")
    assert list(tmp_path.iterdir()) == []


def test_a_file_for_the_output_is_no_folder_and_not_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    assert writable_file(tmp_path / "file") == tmp_path / "file"
    with pytest.raises(EMError, match="folder is a folder; expected the name of a file"):
        writable_file(tmp_path / "folder")
    with pytest.raises(EMError, match="file is a file: choose another --output"):
        writable_file(tmp_path / "file" / "a.onnx")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError("90000 requested and 2966 written"), "no space left on the disk"),
        (RuntimeError("Error while serializing: I/O error: File too large (os error 27)"), "allows no file that large"),
        (RuntimeError("[Errno 28] Error writing bytes to file"), "no space left on the disk"),
        (OSError(errno.ESPIPE, "Illegal seek"), "Illegal seek"),
        (RuntimeError("something else"), None),
    ],
)
def test_a_reason_is_found_in_what_libraries_raise(error, words):
    found = reason_of(error)
    assert found is None if words is None else words in found


def test_an_error_of_another_kind_passes_through():
    with pytest.raises(ZeroDivisionError), writing_of("file"):
        raise ZeroDivisionError


def test_missing_space_is_told_with_both_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 0, 3_000_000))
    check_space(tmp_path / "a" / "b", 3_000_000, "a checkpoint")
    with pytest.raises(EMError, match=r"a checkpoint needs 5 MB, and \S+ has 3 MB of free space"):
        check_space(tmp_path / "a" / "b", 5_000_000, "a checkpoint")


class FailingAt:
    """Lets the n-th call of the system's functions fail; counts the calls."""

    def __init__(self, monkeypatch, turn: int):
        self.calls, self.turn = 0, turn
        for name in ("open", "mkdir", "fsync", "replace", "rename"):
            monkeypatch.setattr(os, name, self.wrap(getattr(os, name)))

    def wrap(self, function):
        def called(*args, **kwargs):
            if function.__name__ == "open" and not args[1] & os.O_CREAT:  # a full disk can be read
                return function(*args, **kwargs)
            self.calls += 1
            if self.calls == self.turn:
                raise OSError(errno.ENOSPC, "No space left on device", str(args[0]))
            return function(*args, **kwargs)

        return called


def every_failure(monkeypatch, tmp_path, work, old: dict[str, str], new: dict[str, str]) -> int:
    """Let each of the system's calls fail in turn, each in a new folder; return how often that was told.

    What is left is the old or the new, and nothing else.
    """
    told = 0
    for turn in range(1, 200):
        place = tmp_path / str(turn)
        for name, text in old.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(text)
        with monkeypatch.context() as patch:
            system = FailingAt(patch, turn)
            try:
                work(place)
            except EMError as error:
                assert "no space left on the disk" in str(error), error
                told += 1
                assert tree(place) in (old, new), f"after call {turn}"
            else:
                assert tree(place) == new
        if system.calls < turn:
            return told
    raise AssertionError("it never ended")


@pytest.mark.parametrize("old", [{}, {"file": "old"}])
def test_at_whatever_call_the_disk_is_full_a_file_is_the_old_or_the_new(old, tmp_path, monkeypatch):
    def work(place):
        write_text(place / "file", "new")

    assert every_failure(monkeypatch, tmp_path, work, old, {"file": "new"}) >= 2


@pytest.mark.parametrize("old", [{}, {"folder/a": "old", "folder/c": "old"}])
def test_at_whatever_call_the_disk_is_full_a_folder_is_the_old_or_the_new(old, tmp_path, monkeypatch):
    def work(place):
        with whole_folder(place / "folder") as folder:
            (folder / "a").write_text("new")
            (folder / "b").write_text("new")

    new = {"folder/a": "new", "folder/b": "new"}
    assert every_failure(monkeypatch, tmp_path, work, old, new) >= 4


def test_a_name_that_is_long_but_allowed_is_written(tmp_path):
    path = tmp_path / ("x" * 251 + ".txt")
    write_text(path, "text")
    assert path.read_text() == "text"


def test_a_disk_without_permissions_takes_files(tmp_path, monkeypatch):
    def refuse(self, mode):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    write_atomically(tmp_path / "a", lambda temporary: temporary.write_text("text"))
    assert tree(tmp_path) == {"a": "text"}


def test_a_name_that_is_no_text_can_be_written_about(tmp_path):
    write_text(tmp_path / "card.md", "data: gr\udcf6n")
    assert tree(tmp_path) == {"card.md": "data: gr\\udcf6n"}
