"""A page in the browser that runs a model on a micrograph. Needs the extra `emfm[app]`."""

from dataclasses import dataclass

from emfm.settings import COUNT, Range, Settings, setting

UPLOAD_MB = 500
LOOPBACK = ("127.0.0.1", "localhost", "::1")  # nobody but this machine sees a page there


@dataclass(frozen=True)
class ServeArguments(Settings):
    """Where and how the page is served."""

    host: str = setting("127.0.0.1", "Address to listen at; 0.0.0.0 opens the page to the network.")
    port: int = setting(7860, "TCP port.", Range(least=1, most=65535))
    share: bool = setting(
        False, "Tunnel the page through Gradio's servers to a public address.", flag="--share/--no-share"
    )
    upload_mb: int = setting(UPLOAD_MB, "Largest file that is accepted, in MB.", COUNT)
    session: str = setting("emfm-labels", "Folder of the tab Label: micrographs and what is painted; made when needed.")
