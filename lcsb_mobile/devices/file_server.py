"""A table of files over HTTP, for a browser on this machine or in its network: what is not in the table does not exist.

So no path leads anywhere else, and there are no listings. Files are sent in pieces, and a range of one if it is asked for (RFC 9110,
section 14): a download that broke off goes on. The headers give the page threads (COOP and COEP) and keep everything else out.
"""

from __future__ import annotations

import hashlib
import io
import ipaddress
import os
import re
import socketserver
import ssl
import sys
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

Entry = Path | bytes

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # kept, and asked after each time by its ETag
}
TYPES = {  # not the system's table, which differs from one to the next
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
}
RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
IDLE_SECONDS = 60  # after which a connection that neither asks nor takes anything is closed


class FileServer(socketserver.ThreadingTCPServer):
    """`entries`: what is served, by its path from `/` on. `refused`: told of each request that gets nothing. `tls`: without it the server
    takes only requests to `localhost` or to an address in digits. A page elsewhere whose own name was made to lead here (DNS rebinding) has
    neither; with TLS the certificate is not of its name.

    Raises OSError for an address that cannot be had.
    """

    allow_reuse_address = True  # what the system still remembers of ended connections does not keep the port
    daemon_threads = True  # nobody's download holds up the end
    request_queue_size = 64

    def __init__(
        self, address: tuple[str, int], entries: Mapping[str, Entry], refused: Callable[[str], None], tls: ssl.SSLContext | None = None
    ) -> None:
        self.entries, self.refused, self.has_tls = entries, refused, tls is not None
        super().__init__(address, FileHandler)
        if tls is not None:  # the handshake is the connection's own thread's: whoever does not finish it keeps nobody waiting
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away, or that does not trust the certificate, is nothing to report."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            self.refused(f"{client_address[0]}: {type(error).__name__}: {error}")


class FileHandler(BaseHTTPRequestHandler):
    server: FileServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "lcsb_mobile", ""
    timeout = IDLE_SECONDS
    error_content_type = "text/plain; charset=utf-8"
    error_message_format = "%(code)d %(message)s: %(explain)s\n"

    def do_GET(self) -> None:
        path = path_of(self.path)
        if not self.server.has_tls and not is_own_name(self.headers.get("Host", "")):
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "ask localhost, or an address in digits")
        elif path not in self.server.entries:
            self._refuse(HTTPStatus.NOT_FOUND, "no such file is served")
        else:
            self._answer(path, self.server.entries[path])

    do_HEAD = do_GET

    def _answer(self, path: str, entry: Entry) -> None:
        try:
            file, size, tag = opened(entry)
        except OSError as error:
            self._refuse(HTTPStatus.NOT_FOUND, f"it was there, and cannot be read now ({error.strerror})")
            return
        with file:
            if tag in etags(self.headers.get("If-None-Match", "")):
                self._begin(HTTPStatus.NOT_MODIFIED, tag)
                return
            part = self._range(size, tag)
            if part is not None and not part:
                self._begin(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, tag, {"Content-Range": f"bytes */{size}", "Content-Length": "0"})
                return
            sent = range(size) if part is None else part
            suffix = PurePosixPath(entry if isinstance(entry, Path) else path).suffix
            headers = {"Content-Type": TYPES.get(suffix, "application/octet-stream"), "Content-Length": str(len(sent))}
            if part is not None:
                headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
            self._begin(HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT, tag, headers)
            if self.command != "HEAD" and sent and self.connection.sendfile(file, sent.start, len(sent)) < len(sent):
                self.close_connection = True  # it was cut short meanwhile: what was promised does not come

    def _range(self, size: int, tag: str) -> range | None:
        """What is asked for; None: all. A range of another state of the file (If-Range) is none of this one."""
        whole = self.command == "HEAD" or self.headers.get("If-Range", tag) != tag
        return None if whole else byte_range(self.headers.get("Range", ""), size)

    def _begin(self, status: HTTPStatus, tag: str, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, text in {"ETag": tag, "Accept-Ranges": "bytes", **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self.server.refused(f"{self.client_address[0]}: {self.requestline}: {status.value} {status.phrase}: {why}")
        self.send_error(status, explain=why)

    def end_headers(self) -> None:
        for name, text in HEADERS.items():
            self.send_header(name, text)
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """`refused` is told what matters."""


def path_of(target: str) -> str:
    """What a request asks for, without its query; the table has the paths of the files that there are."""
    return unquote(target.partition("?")[0])


def is_own_name(host: str) -> bool:
    """Whether a Host header, with any port, is `localhost` or an address in digits."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def byte_range(asked: str, size: int) -> range | None:
    """Of one range, as `bytes=first-last`, `bytes=first-` or `bytes=-length`, the bytes that there are, maybe none. None: of no range, or
    of several, or one that is malformed, which a server may pass over."""
    found = RANGE.fullmatch(asked)
    first, last = found.groups() if found else ("", "")
    if not first and not last:
        return None
    if not first:
        return range(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(size, int(last) + 1) if last else size)


def etags(header: str) -> set[str]:
    """Of If-None-Match, without the marks of weak ones, which it does not tell from others."""
    return {tag.strip().removeprefix("W/") for tag in header.split(",")}


def opened(entry: Entry) -> tuple[BinaryIO, int, str]:
    """The file, its size and its ETag, which a file that is replaced or written to changes. Raises OSError."""
    if isinstance(entry, bytes):
        return io.BytesIO(entry), len(entry), f'"{hashlib.sha256(entry).hexdigest()}"'
    file = entry.open("rb")
    status = os.fstat(file.fileno())
    return file, status.st_size, f'"{status.st_size:x}-{status.st_mtime_ns:x}"'
