"""A Hub on loopback for the real client: model and dataset repositories that can be read and pushed to."""

import hashlib
import json
import os
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from hub_store import Repo

OWNER = "lab"
LFS_SUFFIXES = (".safetensors", ".parquet", ".png")


@dataclass
class Fault:
    """What goes wrong with the next requests that match, `times` times.

    Attributes:
        pattern: of "METHOD /path".
        status: answered instead, with `headers`.
        cut: bytes of the body after which the connection breaks.
        pause: seconds of silence in the middle of the body.
        etag: sent in the place of the right one.
        drop: the connection breaks before any answer.
    """

    pattern: str
    times: int = 1
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = -1
    pause: float = 0
    etag: str = ""
    drop: bool = False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def do_POST(self):
        self._answer()

    def do_PUT(self):
        self._answer()

    def do_DELETE(self):
        self._answer()

    def _answer(self):
        address = urlsplit(self.path)
        path, self.query = unquote(address.path), parse_qs(address.query)
        self.body = self._read_body()
        self.server.asked.append(f"{self.command} {path}")
        self.server.tokens.add(self.headers.get("Authorization", ""))
        self.fault = self.server.next_fault(self.command, path)
        if self.fault and self.fault.drop:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return None
        if self.fault and self.fault.status:
            return self._send(self.fault.status, b'{"error": "asked for by the test"}', self.fault.headers)
        if path.startswith("/lfs/"):
            self.server.uploads[path.removeprefix("/lfs/")] = self.body
            return self._send(200, b"")
        if path.startswith("/api/") and (answer := self._account(path)):
            return answer
        for name, repo in list(self.server.repos.items()):
            kind, short = ("datasets", name.removeprefix("datasets/")) if "datasets/" in name else ("models", name)
            if match := re.fullmatch(rf"/api/{kind}/{short}(/.*)?", path):
                return self._allowed(repo) and self._api(repo, match[1] or "")
            if match := re.fullmatch(rf"/{name}\.git/info/lfs/objects/batch", path):
                return self._allowed(repo) and self._lfs_batch()
            if match := re.fullmatch(rf"/{name}/resolve/(refs/pr/\d+|[^/]+)/(.+)", path):
                return self._allowed(repo) and self._file(repo, match[1], match[2])
        return self._error(404, "RepoNotFound")

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _allowed(self, repo: Repo) -> bool:
        """Answer as the Hub does where a repository is not for everybody."""
        known = self.headers.get("Authorization") == f"Bearer {self.server.token}"
        if repo.private and not known:
            self._error(404, "RepoNotFound")
        elif repo.gated and not known:
            self._error(403, "GatedRepo")
        else:
            return True
        return False

    def _account(self, path: str) -> bool:
        if path == "/api/whoami-v2":
            self._send_json({"type": "user", "name": OWNER, "orgs": []})
        elif path == "/api/validate-yaml":
            self._send_json({"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            asked = json.loads(self.body)
            name = f"{asked.get('organization') or OWNER}/{asked['name']}"
            key = f"datasets/{name}" if asked.get("type") == "dataset" else name
            if self.headers.get("Authorization") != f"Bearer {self.server.token}":
                self._error(401, "Unauthorized")
            elif key in self.server.repos:
                self._send_json({"url": f"{self.server.url}/{key}", "error": "exists already"}, 409)
            else:
                self.server.repos[key] = Repo.empty(key, asked.get("visibility") == "private")
                self._send_json({"url": f"{self.server.url}/{key}"})
        else:
            return False
        return True

    def _api(self, repo: Repo, rest: str):
        verb, _, argument = rest.strip("/").partition("/")
        if verb in ("", "revision"):
            return self._info(repo, argument or "main")
        if verb in ("tree", "paths-info"):
            return self._entries(repo, verb, argument)
        if verb == "refs":
            refs = [{"name": ref, "ref": f"refs/heads/{ref}", "targetCommit": oid} for ref, oid in repo.refs.items()]
            return self._send_json({"branches": refs, "tags": [], "converts": []})
        if verb == "preupload":
            return self._preupload()
        if verb == "commit":
            return self._commit(repo, argument)
        if verb in ("tag", "branch"):
            return self._mark(repo, verb, argument)
        return self._error(404, "EntryNotFound")

    def _info(self, repo: Repo, revision: str):
        commit = repo.commit_id(revision)
        if commit is None:
            return self._error(404, "RevisionNotFound")
        name = repo.name.removeprefix("datasets/")
        siblings = [{"rfilename": entry["path"]} for entry in repo.entries(commit)]
        facts = {"id": name, "modelId": name, "sha": commit, "private": repo.private, "gated": False, "tags": []}
        return self._send_json({**facts, "downloads": 0, "likes": 0, "siblings": siblings})

    def _entries(self, repo: Repo, verb: str, argument: str):
        revision, folder = re.fullmatch(r"(refs/\w+/\w+|[^/]*)/?(.*)", argument).groups()
        if repo.commit_id(revision) is None:
            return self._error(404, "RevisionNotFound")
        entries = repo.entries(revision, folders=True)
        if folder:
            entries = [entry for entry in entries if entry["path"].startswith(f"{folder}/")]
            if not entries:
                return self._error(404, "EntryNotFound")
        if verb == "tree" and self.query.get("recursive", ["false"])[0].lower() != "true":
            depth = folder.count("/") + 1 if folder else 0
            entries = [entry for entry in entries if entry["path"].count("/") == depth]
        if verb == "paths-info":
            text = self.body.decode()
            wanted = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text)["paths"]
            entries = [entry for entry in entries if entry["path"] in wanted]
        return self._send_json(entries)

    def _preupload(self):
        files = [
            {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular"}
            for file in json.loads(self.body)["files"]
        ]
        return self._send_json({"files": [{**file, "shouldIgnore": False} for file in files]})

    def _lfs_batch(self):
        def instructions(file: dict) -> dict:
            if file["oid"] in self.server.uploads:
                return file
            return {**file, "actions": {"upload": {"href": f"{self.server.url}/lfs/{file['oid']}", "header": {}}}}

        files = [instructions(file) for file in json.loads(self.body)["objects"]]
        return self._send_json({"transfer": "basic", "objects": files})

    def _commit(self, repo: Repo, branch: str):
        if branch not in repo.refs:
            return self._error(404, "RevisionNotFound")
        lines = [json.loads(line) for line in self.body.splitlines() if line]
        create_pr = self.query.get("create_pr") == ["1"]
        oid, ref = repo.commit(branch, lines, self.server.uploads, create_pr)
        address = f"{self.server.url}/{repo.name}"
        answer = {"success": True, "commitOid": oid, "commitUrl": f"{address}/commit/{oid}"}
        discussion = ref.replace("refs/pr/", "discussions/")
        return self._send_json(answer | ({"pullRequestUrl": f"{address}/{discussion}"} if create_pr else {}))

    def _mark(self, repo: Repo, verb: str, argument: str):
        asked = json.loads(self.body or b"{}")
        name, start = (asked["tag"], argument) if verb == "tag" else (argument, asked.get("startingPoint", "main"))
        if name in repo.refs:
            return self._send_json({"error": f"{name} exists already"}, 409)
        repo.refs[name] = repo.commit_id(start)
        return self._send_json({})

    def _file(self, repo: Repo, revision: str, path: str):
        commit = repo.commit_id(revision)
        body = repo.read(commit, path) if commit else None
        if body is None:
            return self._error(404, "EntryNotFound" if commit else "RevisionNotFound")
        headers = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "Accept-Ranges": "bytes", "X-Repo-Commit": commit}
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(match[1]), int(match[2] or len(body) - 1)
            headers["Content-Range"] = f"bytes {first}-{min(last, len(body) - 1)}/{len(body)}"
            return self._send(206, body[first : last + 1], headers)
        return self._send(200, body, headers)

    def _error(self, status: int, code: str):
        self._send(status, json.dumps({"error": code}).encode(), {"X-Error-Code": code})

    def _send_json(self, content, status: int = 200):
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None):
        headers = {"Content-Length": str(len(body)), **(headers or {})}
        fault = self.fault or Fault("")
        if fault.etag and "ETag" in headers:
            headers["ETag"] = fault.etag
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault.cut >= 0:
            self.wfile.write(body[: fault.cut])
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif fault.pause:
            self.wfile.write(body[: len(body) // 2])
            self.server.closing.wait(fault.pause)
            self.wfile.write(body[len(body) // 2 :])
        else:
            self.wfile.write(body)

    def log_message(self, *args):
        """Keep the test output clean."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, repos: dict[str, Repo], token: str):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos, self.token = repos, token
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.asked: list[str] = []
        self.tokens: set[str] = set()
        self.uploads: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.closing = threading.Event()

    def handle_error(self, request, client_address):
        """A client that gave up in the middle of an answer is no error of the server."""

    def next_fault(self, method: str, path: str) -> Fault | None:
        """Return the fault that is due for a request, once for each time it was asked for."""
        for fault in self.faults:
            if fault.times and re.search(fault.pattern, f"{method} {path}"):
                fault.times -= 1
                return fault
        return None


class HubServer:
    """Context manager; `url` is the endpoint while it is open, `asked` what clients asked for.

    Args:
        repos: folder of each repository by its id; that of a dataset begins with "datasets/".
        token: what pushing and private repositories need.

    Attributes:
        repos: the repositories, pushed ones included.
        tokens: every Authorization header that was seen.
    """

    def __init__(self, repos: dict[str, Path] | None = None, token: str = "hf_test"):
        found = {name: Repo.of_folder(name, folder) for name, folder in (repos or {}).items()}
        self._server = _Server(found, token)
        self.url, self.asked, self.tokens, self.repos = self._server.url, self._server.asked, self._server.tokens, found

    def fail(self, pattern: str, status: int = 0, **fault):
        """Let the next requests that match "METHOD /path" go wrong; see `Fault`."""
        self._server.faults.append(Fault(pattern, status=status, **fault))

    def environment(self, folder: Path, **more: str) -> dict[str, str]:
        """Return the environment of a process that takes this for the Hub, its caches in a folder of the test's."""
        places = {"HF_HOME": str(folder / "home"), "HF_DATASETS_CACHE": str(folder / "cache")}
        return {**os.environ, "HF_ENDPOINT": self.url, "HF_HUB_DISABLE_XET": "1", **places, **more}

    def stand_in(self, monkeypatch, folder: Path):
        """Let the clients in this process take this for the Hub; what they keep goes to `cache` in a folder.

        Python lets them read the environment no more than once, when they are imported.
        """
        import datasets.config
        from huggingface_hub import constants
        from transformers.utils import hub

        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        monkeypatch.setattr(hub, "_hf_api", None, raising=False)  # its client remembers the address of before
        address = f"{self.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", self.url)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache" / "datasets")
        monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.1)

    def heal(self):
        """Forget every fault."""
        self._server.faults.clear()

    def __enter__(self):
        threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        ).start()  # looks often for its end
        return self

    def __exit__(self, *args):
        self._server.closing.set()
        self._server.shutdown()
        self._server.server_close()
