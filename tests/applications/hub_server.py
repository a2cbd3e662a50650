"""A small Hugging Face hub on this machine, for the real client of huggingface_hub."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import dataclasses
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclasses.dataclass
class Hub:
    """A hub with one repository, and the faults that it is to show.

    Attributes:
        repository: OWNER/NAME.
        files: Content by path.
        gated: Answer 401 with the code of a gated repository.
        cut_after: Bytes after which transfers of *.safetensors break off; None: never.
        cuts: How many transfers break off.
        corrupt: Send other bytes than those that the hash is of.
        requests: Method, path and Range header of all requests.
        url: Address of the server, for HF_ENDPOINT.
    """

    repository: str
    files: dict[str, bytes]
    gated: bool = False
    cut_after: int | None = None
    cuts: int = 1000
    corrupt: bool = False
    requests: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)
    url: str = ""

    def etag(self, name: str) -> str:
        """Return a file's hash: SHA-256 of weights, Git's of others."""
        content = self.files[name]
        if name.endswith(".safetensors"):
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def entry(self, name: str) -> dict:
        """Return a file's row in the listing of the repository."""
        size = len(self.files[name])
        row = {"type": "file", "path": name, "size": size, "oid": self.etag(name)}
        if name.endswith(".safetensors"):
            row["lfs"] = {"oid": self.etag(name), "size": size, "pointerSize": 100}
        return row


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        hub, path = self.hub, self.path.partition("?")[0]
        wanted = self.headers.get("Range", "")
        hub.requests.append((self.command, path, wanted))
        api, name = f"/api/models/{hub.repository}", hub.repository
        if hub.gated:
            self._fail(401, "GatedRepo", "Access to it is restricted.")
        elif path.startswith(f"{api}/revision/"):
            self._check_revision(path.rpartition("/")[2], self._info)
        elif path.startswith(f"{api}/tree/"):
            rows = [hub.entry(file) for file in hub.files]
            self._check_revision(path.rpartition("/")[2], lambda: self._json(rows))
        elif path.startswith(f"/{name}/resolve/{COMMIT}/"):
            self._send_file(path.rpartition("/")[2], wanted, body)
        else:
            self._fail(404, "RepoNotFound", "Repository not found")

    def _check_revision(self, revision, send) -> None:
        if revision in ("main", COMMIT):
            send()
        else:
            self._fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")

    def _info(self) -> None:
        siblings = [{"rfilename": file} for file in self.hub.files]
        name = self.hub.repository
        self._json({"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings})

    def _send_file(self, name: str, wanted: str, body: bool) -> None:
        hub = self.hub
        if name not in hub.files:
            self._fail(404, "EntryNotFound", "Entry not found")
            return
        content = hub.files[name]
        weights = name.endswith(".safetensors")
        if hub.corrupt and weights:
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = int(wanted.removeprefix("bytes=").rstrip("-") or 0)
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hub.etag(name)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        if start:
            size = len(content)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if not body:
            return
        if weights and hub.cut_after is not None and hub.cuts > 0:
            hub.cuts -= 1
            self.wfile.write(content[start : start + hub.cut_after])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return
        self.wfile.write(content[start:])

    def _json(self, value) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _fail(self, status: int, code: str, message: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextlib.contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Context manager: the hub, served at `hub.url`."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield hub
        server.shutdown()
        thread.join()
