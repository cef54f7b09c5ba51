"""How labels come from other programs and go to them."""

from dataclasses import dataclass

from emfm.errors import EMError
from emfm.settings import OneOf, Settings, setting

# Format: what pixels are that nobody drew on, where the user does not say. Outlines are drawn of
# everything there is; strokes are not.
UNLABELLED_OF = {
    "labelme": "background",
    "coco": "background",
    "via": "background",
    "qupath": "background",
    "imagej": "background",
    "napari": "background",
    "ilastik": "ignore",
}
EXPORTED = ("labelme", "coco", "qupath", "imagej", "napari")
# Which of two shapes keeps the pixels that both cover.
OVERLAPS = ("last", "first", "smallest")
NO_OBJECTS = ("ilastik",)


@dataclass(frozen=True)
class ImportArguments(Settings):
    """How `emfm labels import` reads labels of other programs."""

    format: str = setting(
        "auto", "Program that made the labels; auto looks at the files.", OneOf(("auto", *UNLABELLED_OF))
    )
    images: str | None = setting(None, "Folder of the micrographs; by default that of the labels.")
    unlabelled: str | None = setting(
        None,
        "Pixels that nobody drew on: background, or ignore (nobody knows); by default ignore for ilastik alone.",
        OneOf(("background", "ignore")),
    )
    classes: tuple[str, ...] | None = setting(
        None,
        "Class, in the order of the masks' values; repeat it for each. Of labels that are numbers, 1 is the first.",
    )
    overlap: str = setting(
        "last",
        "Where shapes overlap: last (drawn on top, as the programs do), first or smallest keeps the pixels.",
        OneOf(OVERLAPS),
    )
    attribute: str | None = setting(None, "VIA: which attribute of the regions names the class.")
    instances: bool = setting(False, "Write a number for each object, too, for emfm finetune instances.")

    def __post_init__(self):
        super().__post_init__()
        if self.attribute is not None and self.format not in ("auto", "via"):
            raise EMError(f"--attribute is for VIA; {self.format} has no attributes: leave it out")
        if self.instances and self.format in NO_OBJECTS:
            raise EMError(f"the labels of {self.format} are classes, without objects: leave --instances out")
        if self.classes is not None and len(set(map(str.casefold, self.classes))) < len(self.classes):
            raise EMError(f"classes are {', '.join(self.classes)}: name each once")


@dataclass(frozen=True)
class ExportArguments(Settings):
    """How `emfm labels export` writes labels for other programs."""

    format: str = setting("labelme", "Program that is to open them.", OneOf(EXPORTED))
    drafts: bool = setting(False, "Take drafts/ in the place of masks/, to correct them there.")
    instances: bool = setting(False, "Take the objects of instances/; by default the connected parts of each class.")

    def __post_init__(self):
        super().__post_init__()
        if self.drafts and self.instances:
            raise EMError("drafts hold classes, no objects: leave --drafts or --instances out")


@dataclass(frozen=True)
class ReviewArguments(Settings):
    """Which regions of drafts are right."""

    box: tuple[str, ...] | None = setting(
        None, "Region X,Y,WIDTH,HEIGHT in pixels that is right; may be repeated. By default the whole image."
    )
    overwrite: bool = setting(False, "Replace other labels that the region holds.")
