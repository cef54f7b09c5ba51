"""Where and how something is pushed to the Hub."""

import re
from dataclasses import dataclass

from emfm.errors import EMError
from emfm.settings import REQUIRED, Settings, setting

# A branch or tag as git takes it.
REFERENCE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?")


@dataclass(frozen=True)
class PushArguments(Settings):
    """Where and how to push.

    Raises:
        EMError: the Hub has no such names, or two settings contradict each other.
    """

    repo_id: str = setting(REQUIRED, "Repository on the Hub: owner/name.", flag="REPO_ID")
    private: bool | None = setting(None, "Whether a new repository is private.")
    branch: str | None = setting(None, "Branch to push to, made where it is missing.")
    tag: str | None = setting(None, "Name for this revision, such as v1.0.")
    create_pr: bool = setting(False, "Propose the change instead of making it.")
    token: str | None = setting(None, "By default that of HF_TOKEN or `hf auth login`.", on_command_line=False)
    message: str | None = setting(None, "Of the commit.")

    def __post_init__(self):
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id

        super().__post_init__()
        if self.tag and self.create_pr:
            raise EMError("a proposed change has no revision to tag: give either --tag or --create-pr")
        if self.branch not in (None, "main") and self.create_pr:
            raise EMError("a change is proposed for main: give either --branch or --create-pr")
        if self.repo_id.count("/") != 1:  # cards say where to load it from
            raise EMError(f"cannot push to {self.repo_id}: expected owner/name")
        for flag, name in (("--tag", self.tag), ("--branch", self.branch)):
            if name is not None and not REFERENCE.fullmatch(name):
                raise EMError(f"{flag} is '{name}'; expected letters, digits, dots, hyphens and slashes, as in v1.0")
        try:
            validate_repo_id(self.repo_id)
        except HFValidationError as error:
            raise EMError(f"cannot push to {self.repo_id}: {error}") from error
