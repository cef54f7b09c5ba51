"""The page: a file, a model, a slider between input and output, and the files to download."""

import os
import socket
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emfm.app import ServeArguments
from emfm.app.doubts import add_doubts
from emfm.app.label_page import label_tab
from emfm.app.runs import Answer, Runner, as_it_is
from emfm.errors import EMError
from emfm.loading.names import locate

if TYPE_CHECKING:
    from gradio import Blocks

TITLE = "# emfm: {title}"
INTRODUCTION = """\
Drop an electron micrograph, choose a model, press **Run**. Any bit depth; the pixel size is
read from the file where it has one. Files stay on the page's machine, an hour at most.
"""


def build_page(
    models: dict[str, str],
    title: str = "models for electron microscopy",
    label: str | Path | None = None,
    local: bool = True,
) -> "Blocks":
    """Return the Gradio page that offers some models.

    Args:
        models: zoo names, folders or Hub ids, by what the page calls them; the first is chosen.
        title: of the page.
        label: folder of the labelling session; without one there is no tab to label in.
        local: whether whoever sees the page may name folders of this machine to open.

    Raises:
        EMError: Gradio is not installed, or the folder is no session.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
    try:
        gr: Any = import_module("gradio")
    except ImportError as error:
        raise EMError(f"the app needs Gradio ({error}): pip install 'emfm[app]'") from error
    runner = Runner(models)

    with gr.Blocks(title="emfm", analytics_enabled=False, delete_cache=(600, 3600), fill_width=True) as page:
        gr.Markdown(TITLE.format(title=title))
        with gr.Tabs():
            with gr.Tab("Predict", id="predict"):
                _predict_tab(gr, runner, models)
            if label is not None:
                with gr.Tab("Label", id="label-tab", elem_id="label-tab"):
                    label_tab(gr, label, local)
    return page


def _predict_tab(gr: Any, runner: Runner, models: dict[str, str]) -> None:
    """Add a file, a model, a slider between input and output, and the files to download."""

    def run(
        path: str | None,
        model: str,
        pixel_size: float | None,
        progress: Any = gr.Progress(track_tqdm=True),  # noqa: B008  (where Gradio looks for it)
    ) -> Answer:
        try:
            return runner(model, path, pixel_size or None)
        except EMError as error:
            return None, [], f"### This did not work\n\n{as_it_is(str(error))}"

    gr.Markdown(INTRODUCTION)
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            upload = gr.File(label="Micrograph", type="filepath", height=150)
            simulated = gr.Button("Use a simulated micrograph", size="sm", elem_id="simulated")
            model = gr.Dropdown(list(models), value=next(iter(models)), label="Model")
            size = gr.Number(label="Pixel size in nm, if the file has none (0: unknown)", value=None)
            start = gr.Button("Run", variant="primary", elem_id="run")
        with gr.Column(scale=3, min_width=420):
            slider = gr.ImageSlider(label="Input | output", format="png", interactive=False, elem_id="slider")
            message = gr.Markdown(elem_id="message")
            files = gr.Files(label="Download", interactive=False, elem_id="files")
            add_doubts(gr, runner, [upload, model, size])
    # one network at a time: two would only share the same cores
    handler = {"api_name": "predict", "concurrency_limit": 1, "show_progress_on": slider}
    start.click(run, [upload, model, size], [slider, files, message], **handler)
    simulated.click(runner.example, None, upload, api_name=False)


def named(models: list[str]) -> dict[str, str]:
    """Return what a page calls its models: zoo name, Hub id, or a folder's name without its place.

    Raises:
        EMError: two folders have one name.
    """
    names: dict[str, str] = {}
    for model in dict.fromkeys(models):
        name = Path(model).resolve().name if Path(model).is_dir() else model
        if name in names:
            raise EMError(f"{names[name]} and {model} would both be called '{name}' on the page: rename a folder")
        names[name] = locate(model)
    return names


def serve(page: "Blocks", **settings: Any) -> None:
    """Serve a page until Ctrl-C.

    Args:
        page: what `build_page` returned.
        **settings: `host`, `port`, `share` and `upload_mb` of `emfm.app.ServeArguments`.

    Raises:
        EMError: a setting has a value that it cannot have, or the port is taken.
    """
    where = ServeArguments(**settings)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((where.host, where.port))
        except OSError as error:
            address = f"{where.host}:{where.port}"
            raise EMError(f"cannot listen at {address} ({error.strerror}): choose another --port") from error
    from gradio.themes import Base

    page.queue(max_size=32)
    page.launch(
        server_name=where.host,
        server_port=where.port,
        share=where.share,
        max_file_size=f"{where.upload_mb}mb",
        theme=Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        ssr_mode=False,
        quiet=True,
        pwa=False,
        footer_links=[],
        enable_monitoring=False,
        strict_cors=True,
    )
