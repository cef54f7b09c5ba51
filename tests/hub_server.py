"""A read-only Hub on loopback: serves folders as model and dataset repositories to the real client."""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "a" * 40


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    repos: dict[str, Path]  # "owner/name" of a model, "datasets/owner/name" of a dataset
    asked: list[str]

    def do_HEAD(self):
        self._answer(with_body=False)

    def do_GET(self):
        self._answer(with_body=True)

    def do_POST(self):
        content = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self._answer(with_body=True, content=content)

    def _answer(self, with_body: bool, content: str = ""):
        path = unquote(urlsplit(self.path).path)
        self.asked.append(f"{self.command} {path}")
        for repo, folder in self.repos.items():
            kind, name = ("datasets", repo.removeprefix("datasets/")) if "datasets/" in repo else ("models", repo)
            if match := re.fullmatch(rf"/api/{kind}/{name}(/.*)?", path):
                return self._api(name, folder, match[1] or "", content)
            if match := re.fullmatch(rf"/{repo}/resolve/[^/]+/(.+)", path):
                return self._file(folder / match[1], with_body)
        return self._send(404, b"", with_body, {"X-Error-Code": "RepoNotFound"})

    def _api(self, name: str, folder: Path, rest: str, content: str):
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        entries = [_entry(file, folder) for file in files]
        if rest.startswith("/tree/"):
            return self._send_json(entries)
        if rest.startswith("/paths-info/"):
            wanted = json.loads(content)["paths"] if content.startswith("{") else parse_qs(content)["paths"]
            return self._send_json([entry for entry in entries if entry["path"] in wanted])
        siblings = [{"rfilename": entry["path"]} for entry in entries]
        facts = {"id": name, "modelId": name, "sha": COMMIT, "private": False, "gated": False, "tags": []}
        return self._send_json({**facts, "downloads": 0, "likes": 0, "siblings": siblings})

    def _file(self, file: Path, with_body: bool):
        if not file.is_file():
            return self._send(404, b"", with_body, {"X-Error-Code": "EntryNotFound"})
        body = file.read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "Accept-Ranges": "bytes"}
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(match[1]), int(match[2] or len(body) - 1)
            headers["Content-Range"] = f"bytes {first}-{min(last, len(body) - 1)}/{len(body)}"
            return self._send(206, body[first : last + 1], with_body, headers)
        return self._send(200, body, with_body, headers)

    def _send_json(self, content):
        self._send(200, json.dumps(content).encode(), True)

    def _send(self, status: int, body: bytes, with_body: bool, headers: dict[str, str] | None = None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *args):
        """Keep the test output clean."""


def _entry(file: Path, folder: Path) -> dict:
    oid = hashlib.sha256(file.read_bytes()).hexdigest()[:40]
    return {
        "type": "file",
        "path": file.relative_to(folder).as_posix(),
        "size": file.stat().st_size,
        "oid": oid,
    }


class HubServer:
    """Context manager; `url` is the endpoint while it is open, `asked` what clients asked for.

    Args:
        repos: folder of each repository by its id; that of a dataset begins with "datasets/".
    """

    def __init__(self, repos: dict[str, Path]):
        self.asked: list[str] = []
        handler = type("Handler", (_Handler,), {"repos": repos, "asked": self.asked})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *args):
        self._server.shutdown()
        self._server.server_close()
