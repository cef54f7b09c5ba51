"""What both widgets are made of: a box with models, and work in a thread with a bar."""

import logging
from collections.abc import Callable, Iterable, Iterator
from threading import Event
from typing import Any

import numpy as np
from magicgui.widgets import ComboBox
from napari.qt.threading import create_worker
from napari.utils.notifications import show_error, show_warning
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from emfm.errors import EMError
from emfm.loading.names import bundled_names


def layer_box(viewer: Any, kind: type) -> Any:
    """Return a box that chooses one of the viewer's layers of a kind; `value` is the layer."""
    box = ComboBox(choices=lambda _: [layer for layer in viewer.layers if isinstance(layer, kind)])

    def renew(event: Any = None) -> None:
        box.reset_choices()

    for event in (viewer.layers.events.inserted, viewer.layers.events.removed, viewer.layers.events.reordered):
        event.connect(renew)
    return box


def place_shown(viewer: Any, layer: Any) -> tuple[int, ...]:
    """Return the position that is shown along a layer's axes before rows and columns."""
    point = layer.world_to_data(np.asarray(viewer.dims.point)[-layer.ndim :])
    return tuple(int(at) for at in np.rint(point)[:-2])


def tell(error: EMError) -> None:
    """Show an error as a notification of one line."""
    show_error(" ".join(str(error).split()))


class StoppedError(Exception):
    """The user has stopped the work."""


class ModelBox(QWidget):
    """Chooses a model: one of the package, a folder, or what is typed, such as a Hub id.

    Args:
        chosen: the one that is chosen at first.
    """

    def __init__(self, chosen: str):
        super().__init__()
        self._names = QComboBox()
        self._names.setEditable(True)
        self._names.addItems(bundled_names())
        self._names.setCurrentText(chosen)
        self._names.setMinimumContentsLength(16)
        self._names.setToolTip("A model of the package, a folder, or owner/name on the Hub")
        folder = QPushButton("Folder…")
        folder.clicked.connect(self._ask)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._names, 1)
        layout.addWidget(folder)

    @property
    def name(self) -> str:
        """The model that is chosen."""
        return self._names.currentText().strip()

    @name.setter
    def name(self, name: str) -> None:
        self._names.setCurrentText(name)

    def _ask(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of a model", self.name)
        if folder:
            self.name = folder


class Background(QWidget):
    """Does one thing at a time in a thread: a bar, a stop button, and a line that says how it went.

    Errors that users can mend, and warnings, become notifications of one line.

    Args:
        starters: buttons that wait until it is done.
    """

    def __init__(self, *starters: QPushButton):
        super().__init__()
        self._starters, self._asked = starters, Event()
        self._worker: Any = None
        self._bar, self._stop, self._line = QProgressBar(), QPushButton("Stop"), QLabel()
        self._stop.clicked.connect(self.stop)
        self._line.setWordWrap(True)
        self._told = _Told()
        self._told.moved.connect(self._move)
        self._told.said.connect(self._line.setText)
        self._told.warned.connect(show_warning)
        row = QHBoxLayout()
        row.addWidget(self._bar, 1)
        row.addWidget(self._stop)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        layout.addWidget(self._line)
        self._show(running=False)

    @property
    def running(self) -> bool:
        """Whether something is being done."""
        return self._worker is not None

    @property
    def stopped(self) -> bool:
        """Whether the work is to end: the user has asked for it, or napari is being closed."""
        return self._asked.is_set() or bool(self._worker is not None and self._worker.abort_requested)

    @property
    def text(self) -> str:
        """What was said last."""
        return self._line.text()

    def start(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Do the work in a thread, then hand what it returns to `done`, in napari's own."""
        self._asked.clear()
        self._show(running=True)
        self.advance(0, 0)
        self._worker = create_worker(self._guarded, work)
        self._worker.returned.connect(lambda outcome: self._end(done, *outcome))
        self._worker.errored.connect(lambda error: self._end(done, None, error))
        self._worker.start()

    def stop(self) -> None:
        """Ask the work to end; it does when it next looks."""
        self._asked.set()
        self.say("stopping")

    def advance(self, done: int, total: int) -> None:
        """Show how much is done; a total of 0 is not known. From any thread."""
        self._told.moved.emit(done, total)

    def say(self, text: str) -> None:
        """Show a line of text. From any thread."""
        self._told.said.emit(text)

    def through(self, items: Iterable[Any], total: int) -> Iterator[Any]:
        """Go through items, in the work's thread, with the bar.

        Raises:
            StoppedError: the user has asked for the end.
        """
        for number, item in enumerate(items):
            if self.stopped:
                raise StoppedError("stopped")
            self.advance(number, total)
            yield item

    def _guarded(self, work: Callable[[], Any]) -> tuple[Any, Exception | None]:
        """Return what the work returns, and the error that users can mend."""
        logger, handler = logging.getLogger("emfm"), _Warnings(self._told)
        logger.addHandler(handler)
        try:
            return work(), None
        except (EMError, StoppedError) as error:
            return None, error
        finally:
            logger.removeHandler(handler)

    def _end(self, done: Callable[[Any], None], outcome: Any, error: Exception | None) -> None:
        self._worker = None
        self._show(running=False)
        if error is None:
            done(outcome)
            return
        self.say("stopped" if isinstance(error, StoppedError) else "this did not work")
        if isinstance(error, EMError):
            tell(error)  # others are shown by napari itself, with their traceback

    def _show(self, running: bool) -> None:
        self._bar.setVisible(running)
        self._stop.setVisible(running)
        for button in self._starters:
            button.setEnabled(not running)

    def _move(self, done: int, total: int) -> None:
        self._bar.setRange(0, total)
        self._bar.setValue(done)


class _Told(QObject):
    """Signals that reach napari's own thread from any other."""

    moved = Signal(int, int)
    said = Signal(str)
    warned = Signal(str)


class _Warnings(logging.Handler):
    """Hands warnings of emfm on as they come."""

    def __init__(self, told: _Told):
        super().__init__(logging.WARNING)
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        """Hand one on."""
        self._told.warned.emit(record.getMessage())
