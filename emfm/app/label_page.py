"""The tab "Label" of the page: one component, which asks a `Labelling` for everything."""

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emfm.app.labelling import Labelling

if TYPE_CHECKING:
    from gradio import HTML

PARTS = files("emfm.app") / "label"
SCRIPTS = ("state.js", "view.js", "tools.js")  # of one scope, in this order


def label_tab(gr: Any, session: str | Path, local: bool) -> "HTML":
    """Return the component that paints, segments and trains, inside the page that is being built.

    Args:
        gr: Gradio.
        session: folder of the session; made with the first micrograph.
        local: whether whoever sees the page may name folders of this machine.

    Raises:
        EMError: the folder is no session.
    """
    from gradio.utils import get_upload_folder

    labelling = Labelling(session, Path(get_upload_folder()), local)

    def ask(question: dict[str, Any]) -> dict[str, Any]:
        return labelling.ask(question)

    html, css, *scripts = ((PARTS / name).read_text(encoding="utf-8") for name in ("label.html", "label.css", *SCRIPTS))
    return gr.HTML(
        html_template=html,
        css_template=css,
        js_on_load="\n".join(scripts),
        server_functions=[ask],
        elem_id="label",
        padding=False,
    )
