"""A real HTTP server on this machine that serves weights: as files, and in a model hub's layout."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class WeightServer:
    """What the server serves and how it misbehaves; may be changed while it runs.

    Args:
        url: where it is, without a slash at the end.
        files: content by path, such as ``/a/b.pt``.
        breaks_after: bytes of a body after which it cuts the connection, one for each of the next answers.
        tag: its validator; None: it sends none.
        ranges: whether it honours Range.
        statuses: which it answers the next requests with, instead of files.
        redirects: path to address.
        encoding: what it says its bodies are packed with.
        lengths: whether it says how long a body is.
        most_at_once: bytes of a range that it sends in one answer.
        asked: the requests so far: method, path, Range.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    breaks_after: list[int] = field(default_factory=list)
    tag: str | None = '"first"'
    ranges: bool = True
    statuses: list[int] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    encoding: str | None = None
    lengths: bool = True
    most_at_once: int | None = None
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)

    def serve_hub(self, repository: str, file: str, content: bytes, *, large: bool = True) -> None:
        """Offer a file as a hub does: at its branch and its commit, large ones from another address."""
        for revision in ("main", COMMIT):
            path = f"/{repository}/resolve/{revision}/{file}"
            self.files[path] = content
            if large:
                self.redirects[path] = f"{self.url}/store/{hashlib.sha256(content).hexdigest()}"
        self.files[f"/store/{hashlib.sha256(content).hexdigest()}"] = content


@contextmanager
def weight_server() -> Iterator[WeightServer]:
    """A server on a free port of the loopback interface."""
    offered = WeightServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing is logged."""

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def handle(self) -> None:
            with suppress(ConnectionError):  # whoever has seen enough closes the connection
                super().handle()

        def _answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            offered.asked.append((self.command, path, self.headers.get("Range")))
            hub = {}
            content = offered.files.get(path)
            if "/resolve/" in path and content is not None:
                hub = {"X-Repo-Commit": COMMIT, "X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
            if offered.statuses:
                self._say(offered.statuses.pop(0), {})
            elif path in offered.redirects:
                self._say(302, {"Location": offered.redirects[path], **hub})
            elif content is None:
                self._say(404, {})
            else:
                self._send(content, hub, body)

        def _send(self, content: bytes, headers: dict[str, str], body: bool) -> None:
            begin, end, status = 0, len(content), 200
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            same = self.headers.get("If-Range") in (None, offered.tag)
            if wanted and offered.ranges and same:
                begin, status = int(wanted[1]), 206
                if begin >= len(content):
                    self._say(416, {"Content-Range": f"bytes */{len(content)}"})
                    return
                end = min(len(content), begin + (offered.most_at_once or len(content)))
                headers = headers | {"Content-Range": f"bytes {begin}-{end - 1}/{len(content)}"}
            if offered.tag:
                headers = headers | {"ETag": offered.tag}
            if offered.encoding:
                headers = headers | {"Content-Encoding": offered.encoding}
            part = content[begin:end]
            self._say(status, headers, len(part) if offered.lengths else None)
            self.close_connection = self.close_connection or not offered.lengths
            if not body:
                return
            if offered.breaks_after:
                self.wfile.write(part[: offered.breaks_after.pop(0)])
                self.close_connection = True
                return
            self.wfile.write(part)

        def _say(self, status: int, headers: dict[str, str], length: int | None = 0) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if length is not None:
                self.send_header("Content-Length", str(length))
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    offered.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield offered
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
