"""Where the page is served."""

from dataclasses import dataclass

from emfm.settings import Range, check_settings, setting

UPLOAD_MB = 500


@dataclass(frozen=True)
class ServeArguments:
    """Where and how the page is served.

    Raises:
        EMError: a setting has a value that it cannot have.
    """

    host: str = setting("127.0.0.1", "Address to listen at; 0.0.0.0 opens the page to the network.")
    port: int = setting(7860, "TCP port.", Range(least=1, most=65535))
    share: bool = setting(
        False, "Tunnel the page through Gradio's servers to a public address.", flag="--share/--no-share"
    )
    upload_mb: int = setting(UPLOAD_MB, "Largest file that is accepted, in MB.", Range(least=1))

    def __post_init__(self):
        check_settings(self)
