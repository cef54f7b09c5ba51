"""Imports point one way."""

import ast
from pathlib import Path

import emfm

PACKAGE = Path(emfm.__file__).parent

# A module may import from its own layer and from those above it in this list.
LAYERS = [
    {"errors", "privacy", "large_images", "retries"},
    {"migrations"},
    {"config", "processing", "inference.tiling", "training.losses", "training.metrics"},
    {
        "data.io",
        "data.lazy_image",
        "data.formats",
        "data.formats.planes",
        "data.formats.colour",
        "data.formats.pictures",
        "data.formats.npy",
        "data.formats.tiff",
        "data.formats.tiff_segments",
        "data.formats.tiff_structure",
        "data.formats.tiff_pixel_size",
        "data.formats.mrc",
        "data.formats.hdf5",
        "data.formats.zarr_store",
        "data.formats.vendor",
        "data.formats.vendor_structure",
        "data.datasets",
        "data.examples",
        "data.restoration_pairs",
        "data.classes",
        "data.labelled_folder",
        "data.labelled_hub",
        "data.streamed_examples",
        "data.croppers",
        "data.training_crops",
        "data.patches",
        "data.encoded_image",
        "data.dataset_card",
        "data.image_header",
        "data.truths",
        "data.published_folder",
        "data.prepared_folder",
        "data.parquet_folder",
        "data.keyed_random",
        "data.degradations",
        "data.unlabelled",
        "data.pretraining_crops",
        "data.simulate",
        "data.simulate_stem",
        "data.simulate_structures",
        "data.structure_crops",
        "data.filters",
        "data.simulated_folder",
    },
    {"backbones", "backbones.trunk", "backbones.unet", "backbones.hrnet", "backbones.restoring_heads"},
    {"weights", "hub.model_files", "hub.download"},
    {"modeling", "loading"},
    {
        "tasks",
        "tasks.task",
        "tasks.segmentation",
        "tasks.restoration",
        "tasks.denoising",
        "tasks.super_resolution",
        "tasks.background_removal",
    },
    {
        "hub",
        "hub.zoo",
        "hub.card",
        "hub.pretraining_card",
        "hub.finetuned_card",
        "hub.verify",
        "hub.commit",
        "hub.push",
        "hub.push_dataset",
    },
    {
        "inference",
        "inference.plan",
        "inference.frozen",
        "inference.blocks",
        "inference.resampling",
        "inference.pixel_size",
        "inference.predict",
        "inference.measurements",
        "inference.profiles",
        "inference.pictures",
        "inference.results",
        "inference.result_files",
        "inference.records",
        "inference.processes",
        "inference.one_file",
        "inference.files",
        "inference.pipelines",
    },
    {"auto"},
    {
        "training",
        "training.batch_norm",
        "training.discriminator",
        "training.checkpoint",
        "training.publish",
        "training.pretrain_arguments",
        "training.batches",
        "training.pretext",
        "training.pix2pix",
        "training.run_log",
        "training.stop",
        "training.pretrain",
        "training.optimizer_state",
        "training.precision",
        "training.trainer_arguments",
        "training.trainer_state",
        "training.facts",
        "training.freezing",
        "training.head",
        "training.lora",
        "training.training_data",
        "training.trainer",
        "training.curves",
        "training.finetune",
        "training.evaluate",
    },
    {"demo", "demo.run", "demo.report"},
    {"app", "app.reading", "app.runs", "app.page"},
    {"export", "export.graph", "export.onnx_file", "export.bioimageio_package"},
    {"cli.application"},
    {"cli", "cli.__main__", "cli.models", "cli.training", "cli.use", "cli.sharing", "cli.data"},
]
# A method that transformers gives to models, and which needs all that lies above them when it is called.
WHEN_CALLED = {("modeling", "hub.push")}
LEVEL = {module: level for level, modules in enumerate(LAYERS) for module in modules}


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "emfm":
            base = node.module.removeprefix("emfm").lstrip(".")
            inside = {f"{base}.{alias.name}".lstrip(".") for alias in node.names}
            names |= {name for name in inside if name in LEVEL} or {base}
        elif isinstance(node, ast.Import):
            names |= {alias.name.removeprefix("emfm.") for alias in node.names if alias.name.startswith("emfm.")}
    return names


def test_every_module_has_its_layer():
    assert set(modules()) - {"", "data"} == set(LEVEL) - {"data"}


def test_no_module_imports_from_a_layer_below_its_own():
    wrong = []
    for name, path in modules().items():
        if name in ("", "data"):  # the lazy public names; a docstring
            continue
        wrong += [
            f"{name} imports {target}"
            for target in imported(path)
            if LEVEL[target] > LEVEL[name] and (name, target) not in WHEN_CALLED
        ]
    assert wrong == []


def test_data_imports_no_model():
    models = {"modeling", "tasks", "tasks.segmentation", "backbones", "weights"}
    for name, path in modules().items():
        if name.startswith("data"):
            assert not imported(path) & models, name


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
