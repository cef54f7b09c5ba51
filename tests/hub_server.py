"""A read-only Hub on loopback: serves folders as model repositories to the real client."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "a" * 40


class _Handler(BaseHTTPRequestHandler):
    repos: dict[str, Path]

    def do_HEAD(self):
        self._answer(with_body=False)

    def do_GET(self):
        self._answer(with_body=True)

    def _answer(self, with_body: bool):
        path = self.path.split("?")[0]
        for repo, folder in self.repos.items():
            if path.startswith(f"/api/models/{repo}"):
                siblings = [{"rfilename": file.name} for file in folder.iterdir()]
                return self._send_json({"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings})
            if path.startswith(f"/{repo}/resolve/"):
                file = folder / path.split("/", 5)[5]
                if file.is_file():
                    return self._send(200, file.read_bytes(), with_body)
                return self._send(404, b"", with_body, {"X-Error-Code": "EntryNotFound"})
        return self._send(404, b"", with_body, {"X-Error-Code": "RepoNotFound"})

    def _send_json(self, content):
        self._send(200, json.dumps(content).encode(), True)

    def _send(self, status: int, body: bytes, with_body: bool, headers: dict[str, str] | None = None):
        self.send_response(status)
        etag = hashlib.sha256(body).hexdigest()
        for name, value in {
            "Content-Length": str(len(body)),
            "ETag": f'"{etag}"',
            "X-Repo-Commit": COMMIT,
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *args):
        """Keep the test output clean."""


class HubServer:
    """Context manager; `url` is the endpoint while it is open."""

    def __init__(self, repos: dict[str, Path]):
        handler = type("Handler", (_Handler,), {"repos": repos})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *args):
        self._server.shutdown()
        self._server.server_close()
