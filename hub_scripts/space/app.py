"""A Gradio Space that serves one model.

Set the Space's variable EMFM_MODEL to a zoo name or a Hub id, or change MODEL here; a private model needs the secret
HF_TOKEN. On your own machine: `EMFM_MODEL=owner/name python app.py`, or `emfm app --model owner/name`.
"""

import os

from emfm.app.page import build_page, named, serve

MODEL = os.environ.get("EMFM_MODEL", "unet4-rf200-w16")
UPLOAD_MB = int(os.environ.get("EMFM_UPLOAD_MB", "100"))

if __name__ == "__main__":
    models = named([MODEL])
    in_a_space = "SPACE_ID" in os.environ  # there the page must be seen from outside its container
    serve(
        build_page(models, title=next(iter(models))),
        host=os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0" if in_a_space else "127.0.0.1"),
        port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
        upload_mb=UPLOAD_MB,
    )
