"""The widget that segments from strokes in seconds, and trains on them in the background."""

from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer
from qtpy.QtWidgets import QFileDialog, QFormLayout, QHBoxLayout, QLineEdit, QPushButton, QSpinBox, QWidget

from emfm.errors import EMError
from emfm.hub.zoo import list_models
from emfm.napari.layers import Source, class_settings, pixels_of
from emfm.napari.parts import Background, ModelBox, layer_box, place_shown, tell
from emfm.napari.strokes import Painted, class_names, painted

CLASSES = "background, particle"
STEPS = 300
OPACITY = 0.4  # of a segmentation over its micrograph


class LabelWidget(QWidget):
    """Learns from a partly painted layer of labels: a head at once, or the whole network.

    What was painted on other images that were segmented before is learnt from, too.

    Args:
        napari_viewer: the viewer; napari hands it over to an argument of this name.
    """

    def __init__(self, napari_viewer: Any):
        super().__init__()
        self._viewer = napari_viewer
        self._segmenter: Any = None
        self._asked: tuple[str, list[str]] | None = None  # what the segmenter was made for
        self._pairs: dict[Labels, Image] = {}
        self.image = layer_box(napari_viewer, Image)
        self.strokes = layer_box(napari_viewer, Labels)
        self.classes = QLineEdit(CLASSES)
        self.classes.setToolTip("Names of the labels 1, 2, 3, …, with commas between them; 0 is not labelled")
        self.model = ModelBox(next(info.name for info in list_models() if "segmentation" in info.recommended_for))
        self.folder, self.steps = QLineEdit(), QSpinBox()
        self.folder.setPlaceholderText("folder for labels and models")
        self.steps.setRange(1, 1_000_000)
        self.steps.setValue(STEPS)
        self.segment_button, self.train_button = QPushButton("Segment"), QPushButton("Train")
        self.segment_button.clicked.connect(self.segment)
        self.train_button.clicked.connect(self.train)
        self.segmenting, self.training = Background(self.segment_button), Background(self.train_button)
        self._lay_out()

    def _lay_out(self) -> None:
        new, choose = QPushButton("New"), QPushButton("…")
        new.setToolTip("A layer to paint on, of the image's shape")
        new.clicked.connect(self.new_strokes)
        choose.clicked.connect(self._choose_folder)
        layout = QFormLayout(self)
        layout.addRow("image", self.image.native)
        layout.addRow("strokes", _beside(self.strokes.native, new))
        layout.addRow("classes", self.classes)
        layout.addRow("model", self.model)
        layout.addRow(self.segment_button)
        layout.addRow(self.segmenting)
        layout.addRow("save in", _beside(self.folder, choose))
        layout.addRow("steps", self.steps)
        layout.addRow(self.train_button)
        layout.addRow(self.training)

    def new_strokes(self) -> None:
        """Add a layer to paint on, of the shape of the image layer."""
        try:
            source, classes = Source.of(self.image.value, None), class_names(self.classes.text())
        except EMError as error:
            tell(error)
            return
        look = class_settings(dict(enumerate(classes)), first=1, background=True)
        empty = np.zeros(pixels_of(source.layer).shape, dtype=np.uint8)
        layer = self._viewer.add_labels(empty, **source.settings(f"{source.layer.name} strokes"), **look)
        layer.brush_size, layer.mode = 8, "paint"
        self.strokes.value = layer

    def segment(self) -> None:
        """Fit a head to all strokes, and segment what is shown of the image, in a thread."""
        image = self.image.value
        try:
            classes, slices = self._painted()
            source = Source.of(image, place_shown(self._viewer, image))
        except EMError as error:
            tell(error)
            return
        name = self.model.name
        self.segmenting.say("segmenting")
        work = lambda: self._segmented(name, classes, slices, source)  # noqa: E731
        self.segmenting.start(work, lambda found: self._show(source, classes, *found))

    def train(self) -> None:
        """Fine-tune the whole network on all strokes, in a thread; leaves a model folder."""
        from emfm.napari.training import Training

        try:
            classes, slices = self._painted()
            if not self.folder.text().strip():
                raise EMError("nothing says where the model is saved: choose a folder")
        except EMError as error:
            tell(error)
            return
        folder = Path(self.folder.text().strip()).expanduser()
        training = Training(folder, self.model.name, classes, self.steps.value())
        self.training.say(f"training on {len(slices)} painted images")
        self.training.start(lambda: training.run(slices, self.training), self._trained)

    def _painted(self) -> tuple[list[str], list[Painted]]:
        """Return the classes, and what is painted on all images.

        Raises:
            EMError: a layer is missing, or does not fit.
        """
        image, strokes, classes = self.image.value, self.strokes.value, class_names(self.classes.text())
        Source.of(image, None)  # which checks it
        if strokes is None:
            raise EMError("there is no layer of labels: make one with New, and paint two classes")
        self._pairs[strokes] = image
        there = set(self._viewer.layers)
        self._pairs = {one: other for one, other in self._pairs.items() if {one, other} <= there}
        return classes, [one for pair in self._pairs.items() for one in painted(pair[1], pair[0], classes)]

    def _segmented(self, name: str, classes: list[str], slices: list[Painted], source: Source) -> tuple[Any, ...]:
        """Return labels and the likeliest one's probability of the slice; in the work's thread."""
        from emfm.finetuning.strokes import StrokeSegmenter

        if self._asked != (name, classes):
            self._segmenter, self._asked = StrokeSegmenter(name, classes), (name, classes)
        segmenter, named = self._segmenter, {one.micrograph.name: one for one in slices}
        segmenter.fit(
            {key: one.micrograph.image for key, one in named.items()}, {key: one.labels for key, one in named.items()}
        )
        micrograph = next(source.micrographs())
        above = micrograph.without_data_bar()
        segmenter.look(above.name, above.image)
        found, probability = segmenter.segment(above.name)
        rows = [(0, micrograph.data_bar), (0, 0)]
        return np.pad(found + 1, rows), np.pad(probability.max(axis=0), rows)

    def _show(self, source: Source, classes: list[str], found: np.ndarray, sure: np.ndarray) -> None:
        """Show labels as they are painted, and beside them how sure each is."""
        name = source.layer.name
        look = class_settings(dict(enumerate(classes)), first=1)
        labels = source.settings(f"{name} segmentation") | look | {"opacity": OPACITY}
        self._replace(source.joined([found]), labels, "labels")
        sureness = source.settings(f"{name} sureness") | {"colormap": "viridis", "contrast_limits": (0.0, 1.0)}
        self._replace(source.joined([sure]), sureness | {"visible": False}, "image")
        shares = [f"{label} {np.mean(found == index):.0%}" for index, label in enumerate(classes, start=1)]
        self.segmenting.say(", ".join(shares))

    def _replace(self, data: np.ndarray, settings: dict[str, Any], kind: str) -> None:
        """Put data into the layer that an earlier segmentation left, or add it below them."""
        layers, strokes = self._viewer.layers, self.strokes.value
        if settings["name"] in layers:
            layers.remove(settings["name"])
        layers.insert(layers.index(strokes) if strokes in layers else len(layers), Layer.create(data, settings, kind))
        if strokes in layers:
            self.strokes.value, layers.selection.active = strokes, strokes

    def _trained(self, outcome: tuple[Path, str]) -> None:
        model, figures = outcome
        self.model.name = str(model)
        self.training.say(f"{figures}; saved as {model}")

    def _choose_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder for labels and models", self.folder.text())
        if folder:
            self.folder.setText(folder)


def _beside(left: QWidget, right: QWidget) -> QWidget:
    both = QWidget()
    row = QHBoxLayout(both)
    row.setContentsMargins(0, 0, 0, 0)
    row.addWidget(left, 1)
    row.addWidget(right)
    return both
