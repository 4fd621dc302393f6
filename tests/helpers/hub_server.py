"""A small hub on localhost: the part of the real one's HTTP interface that a download uses.

`/api/models/<org>/<name>/revision/<revision>` says which commit that is and which files there are.
`/datasets/<org>/<name>/resolve/<revision>/<path>` (of a model: without `/datasets`) redirects to `/blobs/<sha256>` on
another host, as the hub does for large files, with the headers that huggingface_hub reads (commit, checksum, size);
`/blobs/` answers ranges. Programs are sent here by `HF_ENDPOINT`, which must be in the environment before
huggingface_hub is imported: hence `python` runs a process.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        place = re.fullmatch(r"(?:/datasets)?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        about = re.match(r"/api/models/([^/]+/[^/]+)/revision/([^/?]+)", self.path)
        if about:
            self._about(about[1], about[2])
        elif self.path.startswith("/blobs/"):
            self._blob(self.server.blobs[self.path.removeprefix("/blobs/")], body=body)
        elif place is None or place[3] not in self.server.files:
            self._head(
                404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.server.commit, "Content-Length": "0"}
            )
        else:
            data = self.server.files[place[3]]
            digest = hashlib.sha256(data).hexdigest()
            self.server.blobs[digest] = self.server.sent.get(place[3], data)
            self._head(
                302,
                {
                    "X-Repo-Commit": self.server.commit if place[2] == "main" else place[2],
                    "X-Linked-Etag": f'"{digest}"',
                    "X-Linked-Size": str(len(data)),
                    "Location": f"http://localhost:{self.server.server_port}/blobs/{digest}",
                    "Content-Length": "0",
                },
            )

    def _about(self, repo: str, revision: str) -> None:
        if revision not in ("main", self.server.commit):
            self._head(404, {"X-Error-Code": "RevisionNotFound", "Content-Length": "0"})
            return
        files = [{"rfilename": name} for name in self.server.files]
        body = json.dumps({"id": repo, "sha": self.server.commit, "siblings": files}).encode()
        self._head(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        self.wfile.write(body)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _blob(self, data: bytes, *, body: bool) -> None:
        wanted = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        headers = {"Content-Length": str(len(data) - start), "Accept-Ranges": "bytes"}
        if wanted:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._head(206 if wanted else 200, headers)
        if body:
            self.server.starts.append(start)
            end = min(self.server.cut, len(data)) if self.server.cuts else len(data)
            self.wfile.write(data[start:end])
            if end < len(data):
                self.server.cuts -= 1
                self.server.stalled.wait(60)
                self.close_connection = True


class Hub(http.server.ThreadingHTTPServer):
    """Serves `files` (path to bytes). `sent` replaces the bytes of a file without changing what is said of it.

    The first `cuts` answers with a body end at byte `cut`, at once or when `stalled` is set; `starts` is where each
    answer with a body began. `commit` is what the branch `main` stands for.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.sent, self.blobs = files, dict[str, bytes](), dict[str, bytes]()
        self.starts: list[int] = []
        self.cuts, self.cut, self.stalled = 0, 0, threading.Event()
        self.stalled.set()
        self.commit = "c0ffee" + "0" * 34
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self.shutdown()
        self.server_close()
        self._thread.join()

    def environment(self, folder: Path) -> dict[str, str]:
        """The environment of a program that uses this hub, with its cache and `$CPPO_DATA` in `folder`."""
        own = {"HF_ENDPOINT": self.url, "HF_HOME": str(folder / "hf"), "CPPO_DATA": str(folder / "data")}
        return {**os.environ, **own}

    def python(
        self, *arguments: str | Path, folder: Path, check: bool = True, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `python ARGUMENTS` in `environment`; `check` that it ends well."""
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            env={**self.environment(folder), **more},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert not check or done.returncode == 0, done.stderr
        return done
