"""The part of the page that shows where a result is unsure."""

from typing import Any

from emfm.app.runs import Runner
from emfm.errors import EMError


def add_doubts(gr: Any, runner: Runner, inputs: list[Any]) -> None:
    """Add a button and a picture, which appears with the answer, where the page is being built.

    Args:
        gr: the module `gradio`.
        runner: runs the models.
        inputs: upload, model and pixel size on the page.
    """
    button = gr.Button("Where is it unsure? (8 times the work)", size="sm", elem_id="doubt")
    picture = gr.Image(label="Where it is unsure", visible=False, interactive=False, elem_id="doubts")

    def unsure(
        path: str | None,
        model: str,
        pixel_size: float | None,
        progress: Any = gr.Progress(track_tqdm=True),  # noqa: B008  (where Gradio looks for it)
    ) -> Any:
        try:
            return gr.Image(runner.unsure(model, path, pixel_size or None), visible=True)
        except EMError as error:
            raise gr.Error(str(error)) from error

    button.click(unsure, inputs, picture, api_name="unsure", concurrency_limit=1)
