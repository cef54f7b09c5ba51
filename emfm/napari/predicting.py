"""The widget that predicts an image layer: classes and objects as labels, else images."""

from typing import Any

import numpy as np
from napari.layers import Image, Layer
from qtpy.QtWidgets import QCheckBox, QFormLayout, QPushButton, QWidget

from emfm.defaults import DEFAULT_GENERATOR
from emfm.errors import EMError
from emfm.napari.layers import Source, result_layer
from emfm.napari.parts import Background, ModelBox, layer_box, place_shown, tell


class PredictWidget(QWidget):
    """Runs a model on the chosen image layer; the result is a layer that lies on it.

    Args:
        napari_viewer: the viewer; napari hands it over to an argument of this name.
    """

    def __init__(self, napari_viewer: Any):
        super().__init__()
        self._viewer = napari_viewer
        self._loaded: tuple[str, Any] | None = None
        self.image = layer_box(napari_viewer, Image)
        self.model = ModelBox(DEFAULT_GENERATOR)
        self.every_slice = QCheckBox("every slice of a stack")
        self.match = QCheckBox("match the pixel size of the training")
        self.button = QPushButton("Predict")
        self.button.clicked.connect(self.predict)
        self.background = Background(self.button)
        layout = QFormLayout(self)
        layout.addRow("image", self.image.native)
        layout.addRow("model", self.model)
        for widget in (self.every_slice, self.match, self.button, self.background):
            layout.addRow(widget)

    def predict(self) -> None:
        """Predict in a thread; the layer is added when it is done."""
        layer, name, match = self.image.value, self.model.name, self.match.isChecked()
        try:
            place = None if self.every_slice.isChecked() or layer is None else place_shown(self._viewer, layer)
            source = Source.of(layer, place)
        except EMError as error:
            tell(error)
            return
        self.background.say(f"{name} on {layer.name}")
        self.background.start(lambda: self._results(source, name, match), self._add)

    def _results(self, source: Source, name: str, match: bool) -> tuple[Any, ...]:
        """Return data, settings and kind of the result's layer; called in the work's thread."""
        from emfm.inference.ensemble import ready_model
        from emfm.inference.predict import predict
        from emfm.tasks import task_of

        if self._loaded is None or self._loaded[0] != name:
            self._loaded = name, ready_model(name)
        model, outputs = self._loaded[1], []
        micrographs, count = source.micrographs(), len(source.places)
        for micrograph in micrographs if count == 1 else self.background.through(micrographs, count):
            progress = self.background.through if count == 1 else False
            outputs.append(predict(model, micrograph, progress=progress, match_pixel_size=match).output)
        return result_layer(outputs, source, model, task_of(model).separates)

    def _add(self, result: tuple[Any, ...]) -> None:
        layer = self._viewer.add_layer(Layer.create(*result))
        size = " x ".join(map(str, np.shape(layer.data)))
        self.background.say(f"{layer.name}: {size}")
