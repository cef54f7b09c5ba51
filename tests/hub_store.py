"""Repositories with a history, as the test Hub keeps them."""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

FIRST_COMMIT = "a" * 40


@dataclass
class Repo:
    """One repository: every commit's files stay readable.

    A folder that it was made from is read when it is asked for, so that a test may still change it.
    """

    name: str
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes | Path]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)  # branches, tags and refs/pr/N

    @classmethod
    def of_folder(cls, name: str, folder: Path) -> "Repo":
        files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
        return cls(name, commits={FIRST_COMMIT: dict(files)}, refs={"main": FIRST_COMMIT})

    @classmethod
    def empty(cls, name: str, private: bool) -> "Repo":
        return cls(name, private, commits={FIRST_COMMIT: {".gitattributes": b""}}, refs={"main": FIRST_COMMIT})

    def commit_id(self, revision: str) -> str | None:
        """Return the commit that a branch, tag or (short) commit id means."""
        return self.refs.get(revision) or next((oid for oid in self.commits if oid.startswith(revision)), None)

    def read(self, revision: str, path: str) -> bytes | None:
        content = self.commits.get(self.commit_id(revision) or "", {}).get(path)
        return content.read_bytes() if isinstance(content, Path) and content.is_file() else self._bytes(content)

    @staticmethod
    def _bytes(content: bytes | Path | None) -> bytes | None:
        return content if isinstance(content, bytes) else None

    def entries(self, revision: str, folders: bool = False) -> list[dict]:
        """Return what the tree of a revision lists: its files, and its folders if asked for."""
        files = self.commits[self.commit_id(revision)]
        parents = {parent.as_posix() for path in files for parent in Path(path).parents}
        found = [
            {"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0}
            for path in sorted(parents - {"."})
            if folders
        ]
        for path in sorted(files):
            content = self.read(revision, path)
            if content is not None:
                oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
                found.append({"type": "file", "path": path, "size": len(content), "oid": oid})
        return found

    def commit(self, branch: str, lines: list[dict], stored: dict[str, bytes], create_pr: bool) -> tuple[str, str]:
        """Add one commit from the lines of a commit request; returns its id and the ref that it went to.

        Nothing changes where a large file that it names was never uploaded.
        """
        parent = self.refs[branch]
        files = dict(self.commits[parent])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = stored[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        oid = hashlib.sha1(f"{parent} {len(self.commits)} {json.dumps(lines)}".encode()).hexdigest()
        self.commits[oid] = files
        ref = f"refs/pr/{1 + sum(name.startswith('refs/pr/') for name in self.refs)}" if create_pr else branch
        self.refs[ref] = oid
        return oid, ref
