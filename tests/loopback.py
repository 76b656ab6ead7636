"""A web server on this machine that cuts connections, changes files and forgets what it should say.

Files are served as the standard library does it, with ranges (RFC 9110, section 14) if they are
wanted; whatever is asked for is written down.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Site:
    """What the server has, and how it behaves.

    Attributes:
        files: Contents by name.
        headers: Sent with each answer: what tells versions apart.
        ranges: Whether parts can be had.
        cuts: After how many bytes the next answers end, whatever their length.
        stall: Waited for after a cut, in place of ending the connection.
        status: In place of 200.
        length: Whether answers say their length.
        log: Name, range and condition of each request.
        port: Where it listens.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"one"'})
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    stall: threading.Event | None = None
    status: int = 200
    length: bool = True
    log: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        """The folder of all files."""
        return f"http://127.0.0.1:{self.port}/"


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer a request."""
        site, name = self.site, self.path.lstrip("/")
        wanted, condition = self.headers.get("Range"), self.headers.get("If-Range")
        site.log.append((name, wanted, condition))
        content = site.files.get(name)
        if content is None or site.status != 200:
            self.send_error(404 if content is None else site.status)
            return
        start, status = 0, 200
        current = (site.headers.get("ETag"), site.headers.get("Last-Modified"))
        if site.ranges and wanted and condition in current:
            start, status = int(wanted.removeprefix("bytes=").rstrip("-")), 206
            if start >= len(content):
                self.send_error(416)
                return
        self.send_response(status)
        for key, value in site.headers.items():
            self.send_header(key, value)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if site.length:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + site.cuts.pop(0) if site.cuts else len(content)
        self.wfile.write(content[start:end])
        self.wfile.flush()
        if end < len(content) and site.stall is not None:
            site.stall.wait(60)


@contextlib.contextmanager
def serving(**behaviour: Any) -> Iterator[Site]:
    """Serve files until the context ends."""
    site = Site(**behaviour)
    handler = type("Handler", (_Handler,), {"site": site})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        site.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield site
        finally:
            if site.stall is not None:
                site.stall.set()
            server.shutdown()
            thread.join()
