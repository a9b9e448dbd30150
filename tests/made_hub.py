"""A hub of weights on this machine: as much of the public one's HTTP as its client needs, and plain files.

It can be told to break off after some bytes, to send damaged ones, to refuse; and it remembers what was asked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

REVISION = "0123456789abcdef0123456789abcdef01234567"
LARGE = 1000
"""Bytes from which on a file is kept apart, as the public hub does with large ones."""


def git_name(content: bytes) -> str:
    """The SHA-1 under which git keeps a file."""
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def sha256_of(content: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(content).hexdigest()


@dataclass
class Asked:
    """One request for a file's bytes."""

    path: str
    start: int
    sent: int = 0
    authorization: str = ""


@dataclass
class MadeHub:
    """What the server holds and does."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Repository -> file -> content, at `REVISION`."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Plain files below `/files/`."""
    break_off: dict[str, list[int]] = field(default_factory=dict)
    """File -> after how many bytes each of its next answers ends without a word."""
    damaged: set[str] = field(default_factory=set)
    """Files of which a wrong byte is sent."""
    statuses: dict[str, int] = field(default_factory=dict)
    """Repository or plain file -> answered instead."""
    errors: dict[str, str] = field(default_factory=dict)
    """Repository -> what the hub calls the error."""
    answers_for: str = REVISION
    """The revision that it says it answers for."""
    redirects: dict[str, str] = field(default_factory=dict)
    """File of a repository -> the address where its bytes are."""
    authorizations: list[str] = field(default_factory=list)
    """Of those who were sent on."""
    ignores_ranges: bool = False
    holds: dict[str, int] = field(default_factory=dict)
    """File -> after how many bytes an answer stands still, until `goes_on` is set."""
    goes_on: threading.Event = field(default_factory=threading.Event)
    held: threading.Event = field(default_factory=threading.Event)
    """Set when an answer stands still."""
    asked: list[Asked] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    """Method and path of everything."""
    address: str = ""

    def sent(self, path: str) -> int:
        """Bytes of a file that went out, all answers together."""
        return sum(each.sent for each in self.asked if each.path == path)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: MadeHub

    def log_message(self, *_: Any) -> None:
        """Silent."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            self._information(found[1], found[2])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([0-9a-f]+)/(.+)", path):
            if not self._refused(found[1]):
                content = self.hub.repositories[found[1]].get(found[3])
                if found[3] in self.hub.redirects and body:
                    self.hub.authorizations.append(self.headers.get("Authorization", ""))
                    self._json(302, {}, {"Location": self.hub.redirects[found[3]]})
                elif content is None:
                    self._json(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
                else:
                    self._file(found[3], content, body, found[2])
        elif path.startswith("/files/"):
            name = path.removeprefix("/files/")
            if name in self.hub.statuses:
                self._json(self.hub.statuses[name], {"error": "no"})
            else:
                self._file(name, self.hub.files[name], body, "")
        else:
            self._json(404, {"error": "not found"})

    def _refused(self, repository: str) -> bool:
        status = self.hub.statuses.get(repository, 200 if repository in self.hub.repositories else 401)
        if status == 200:
            return False
        code = self.hub.errors.get(repository, "RepoNotFound" if status in (401, 404) else "")
        self._json(status, {"error": "no"}, {"X-Error-Code": code} if code else {})
        return True

    def _information(self, repository: str, revision: str) -> None:
        if self._refused(repository):
            return
        if revision != REVISION:
            self._json(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = []
        for name, content in self.hub.repositories[repository].items():
            large = {"sha256": sha256_of(content), "size": len(content), "pointerSize": 134}
            entry = {"rfilename": name, "size": len(content), "blobId": git_name(content)}
            siblings.append({**entry, "lfs": large} if len(content) >= LARGE else entry)
        self._json(200, {"id": repository, "sha": self.hub.answers_for, "siblings": siblings})

    def _json(self, status: int, told: Any, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(told).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _file(self, name: str, content: bytes, body: bool, revision: str) -> None:
        tag = sha256_of(content) if len(content) >= LARGE else git_name(content)
        if name in self.hub.damaged:
            content = bytes([content[0] ^ 1]) + content[1:]
        start = 0
        if (asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))) and not self.hub.ignores_ranges:
            start = int(asked[1])
        if start and start >= len(content):
            self._json(416, {"error": "range"})
            return
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{tag}"')
        if revision:
            self.send_header("X-Repo-Commit", revision)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if not body:
            return
        limits = self.hub.break_off.get(name, [])
        part = content[start:]
        if limits:
            part = part[: limits.pop(0)]
            self.close_connection = True
        self.hub.asked.append(Asked(name, start, len(part), self.headers.get("Authorization", "")))
        stop = self.hub.holds.get(name, len(part))
        with contextlib.suppress(ConnectionError):
            self.wfile.write(part[:stop])
            if stop < len(part):
                self.wfile.flush()
                self.hub.held.set()
                self.hub.goes_on.wait(60)
            self.wfile.write(part[stop:])


@contextlib.contextmanager
def running_hub() -> Iterator[MadeHub]:
    """A hub that answers, stopped at the end."""
    hub = MadeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
