"""Files and folders that are whole or not there: written beside their place, then renamed.

What the system says of a file becomes an EMError with its name and a reason in plain words.
"""

import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from emfm.errors import EMError

REASONS = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the system allows no file that large here",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.ENOENT: "there is no such file or folder",
    errno.ENOTDIR: "something on its way is a file, not a folder",
    errno.EISDIR: "it is a folder",
    errno.EEXIST: "something has that name already",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EINVAL: "the system takes no such name",
    errno.ELOOP: "links lead in a circle",
    errno.EIO: "the disk reports an error",
    errno.EBUSY: "another program uses it",
    errno.EPIPE: "the other side has closed the connection",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open",
}
# How libraries that are not written in Python quote the system's number, and NumPy a short write.
QUOTED = re.compile(r"\(os error (\d+)\)|\[[Ee]rrno (\d+)\]")
CUT_SHORT = re.compile(r"\d+ requested and \d+ written")
SHARING_VIOLATION = 32  # Windows has no number of Python's for it
# Leaves room for what a temporary name adds, in the 255 bytes of most systems.
STEM_IN_TEMPORARY = 40


def reason_of(error: BaseException) -> str | None:
    """Return in plain words why the system refused a file; None for an error of another kind."""
    if getattr(error, "winerror", None) == SHARING_VIOLATION:
        return REASONS[errno.EBUSY]
    quoted = QUOTED.search(str(error))
    number = getattr(error, "errno", None) or (int(quoted[1] or quoted[2]) if quoted else None)
    if number is None and CUT_SHORT.search(str(error)):
        number = errno.ENOSPC
    if number in REASONS:
        return REASONS[number]
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return os.strerror(number) if number else None


@contextmanager
def writing(path: str | Path, temporary: Path | None = None) -> Iterator[None]:
    """Turn what the system says while a file or folder is written into an EMError that names it.

    Args:
        path: its name.
        temporary: what it is called until it is whole; no error shows that.
    """
    try:
        yield
    except EMError as error:
        if temporary is None or str(temporary) not in str(error):
            raise
        raise type(error)(str(error).replace(str(temporary), str(path))) from error
    except Exception as error:  # the libraries that write have classes of their own
        reason = reason_of(error)
        if reason is None:
            raise
        raise EMError(f"cannot write {path}: {reason}") from error


def writable_folder(path: str | Path, option: str = "--output") -> Path:
    """Check that a folder can be made and written to; to be called before the work begins.

    Nothing is left behind: the folder itself is not made.

    Args:
        path: the folder, which may be there.
        option: what the user gives another folder with.

    Returns:
        The path.

    Raises:
        EMError: it is a file, or below one, or the system does not let us write there.
    """
    text, path = str(path), Path(path)
    if not text.strip():
        raise EMError(f"{option} is empty; expected a folder")
    if text == "-":
        raise EMError(f"{option} is -; results are files, which standard output cannot take: give a folder")
    another = f"choose another {option}"
    try:
        if not text.isascii():
            text.encode()  # libraries open no others; what is no text holds surrogates
        if path.parts[:1] == ("~",):
            raise EMError(f"nothing but a shell knows '~': give {path.expanduser()} in place of {path}")
        there = next(part for part in (path, *path.parents) if os.path.lexists(part))
        if there.is_symlink() and not there.exists():
            raise EMError(f"{there} is a link to {there.readlink()}, which is not there: {another}")
        if not there.is_dir():
            below = f"cannot make {path}: " if there != path else ""
            raise EMError(f"{below}{there} is a file: {another}")
        _try_to_write(there, path.relative_to(there))
    except UnicodeEncodeError as error:
        raise EMError(f"{path}: the name is no text in UTF-8: {another}") from error
    except (OSError, ValueError, RuntimeError, StopIteration) as error:
        if isinstance(error, EMError):
            raise
        raise EMError(f"cannot write to {path}: {reason_of(error) or error}: {another}") from error
    return path


def writable_file(path: str | Path, option: str = "--output") -> Path:
    """Check that a file can be written, or replaced; like `writable_folder`."""
    path = Path(path)
    if os.path.isdir(path):  # noqa: PTH112  (Path's own fails for a name that is too long)
        raise EMError(f"{path} is a folder; expected the name of a file: choose another {option}")
    writable_folder(path.parent, option)
    return path


def _try_to_write(there: Path, missing: Path) -> None:
    """Make missing folders and a file below a folder, under another name, and remove them again.

    Other processes of the same run may do so at the same time.
    """
    trial = Path(tempfile.mkdtemp(dir=there, prefix=".emfm-"))
    try:
        (trial / missing).mkdir(parents=True, exist_ok=True)
        with (trial / missing / "file").open("wb") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    finally:
        shutil.rmtree(trial, ignore_errors=True)


def check_space(path: Path, needed: int, what: str) -> None:
    """Raise an EMError if the disk of a folder, which may be missing, has less free space.

    Args:
        path: the folder.
        needed: in bytes.
        what: needs it, for the message: "a checkpoint".
    """
    there = next(part for part in (path.absolute(), *path.absolute().parents) if part.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise EMError(
            f"{what} needs {needed / 1e6:,.0f} MB, and {there} has {free / 1e6:,.0f} MB of free space: "
            "make room, or choose another --output"
        )


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file, then rename it to `path`: it is whole or not there.

    Raises:
        EMError: the system does not let us write it.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{path.stem[:STEM_IN_TEMPORARY]}-"
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=path.suffix)
        temporary = Path(name)
        try:
            os.close(handle)
            write(temporary)
            with suppress(OSError):  # USB sticks and shares know no permissions
                temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically, UTF-8; what a name holds that is no text is spelled out."""
    content = text.encode("utf-8", "backslashreplace")
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; it then replaces `path`, safe from a power cut.

    If that fails, what was there before stays, and nothing else.

    Raises:
        EMError: the system does not let us write it.
    """
    temporary, old = (path.with_name(f".{path.name}.{end}") for end in ("tmp", "old"))
    with writing(path, temporary):
        for left in (temporary, old):  # by a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        try:
            temporary.mkdir(parents=True)
            yield temporary
            for inside in [*temporary.rglob("*"), temporary]:
                to_disk(inside)
            _exchange(path, temporary, old)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        to_disk(path.parent)


@contextmanager
def whole_files(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill with files, which then go into `folder`, each one whole.

    If that fails, none of them does.

    Raises:
        EMError: the system does not let us write them.
    """
    temporary = folder / ".files.tmp"
    with writing(folder, temporary):
        shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
        try:
            temporary.mkdir(parents=True)
            yield temporary
            for file in sorted(temporary.iterdir()):
                with suppress(OSError):  # USB sticks and shares know no permissions
                    file.chmod(0o644)
                file.replace(folder / file.name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _exchange(path: Path, new: Path, old: Path) -> None:
    """Move what stands at `path` to `old` and `new` to `path`; or leave `path` as it was."""
    there = path.exists()
    if there:
        path.rename(old)
    try:
        new.rename(path)
    except OSError:
        if there:
            old.rename(path)
        raise


def to_disk(path: Path) -> None:
    """Wait until a file, or the list of a folder's names, is on the disk."""
    if path.is_dir():
        with suppress(OSError):  # Windows opens no folders, some shares do not wait for them
            _wait_for(os.open(path, os.O_RDONLY))
    else:
        _wait_for(os.open(path, os.O_RDWR))


def _wait_for(handle: int) -> None:
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
