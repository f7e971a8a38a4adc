"""Downloading one file: resumed where it broke off, bounded, by https only.

A model hub's files are addresses too, so one way serves both. The hub is asked by its public HTTP layout rather than
by its client library, which reads the environment, keeps a cache of its own and cannot be told how much to take.
"""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import httpx

from encoders.weights import HubFile, WeightsError

HUB = "https://huggingface.co"
MOST_REDIRECTS = 5
_SHA256_DIGITS = 64

Answer = TypeVar("Answer")

Progress = Callable[[str, int, int | None], None]
"""Told of a file's name, how many of its bytes are here, and how many it has, where that is known."""


def _nobody(name: str, done: int, total: int | None) -> None:
    """Progress that nobody wants to see."""


@dataclass(frozen=True)
class FetchRules:
    """How files may be fetched.

    Args:
        offline: whether the network must not be used.
        most_bytes: size of the largest file that is taken.
        hub: address of the model hub.
        attempts: how often in a row a connection may break without a byte more having arrived.
        pause: seconds before the second attempt; before later ones so much longer each.
        timeout: seconds without an answer after which a connection counts as broken.
        on_progress: told as bytes arrive, many times a second.
    """

    offline: bool = False
    most_bytes: int = 8 << 30
    hub: str = HUB
    attempts: int = 5
    pause: float = 1.0
    timeout: float = 30.0
    on_progress: Progress = _nobody

    def __post_init__(self) -> None:
        if self.most_bytes < 1 or self.attempts < 1:
            raise ValueError(
                f"at least 1 byte and 1 attempt must be allowed, got {self.most_bytes} and {self.attempts}"
            )
        check_address(self.hub)


@dataclass(frozen=True)
class HubAnswer:
    """What a hub says of a file.

    Args:
        url: of exactly this content.
        revision: the commit.
        sha256: of the content, where the hub publishes it.
    """

    url: str
    revision: str
    sha256: str | None


class _Broken(Exception):
    """A connection broke, or the server asked to come back; what arrived is kept."""


def check_address(url: str, *, local: bool = True) -> httpx.URL:
    """The parsed address, if files may come from there.

    Args:
        url: with https; or with http, if it is on this machine.
        local: whether http to this machine is allowed.

    Raises:
        WeightsError: it is not; or it holds a password, which would be written down with it.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise WeightsError(f"{url} is no address: {error}") from error
    if parsed.userinfo:
        raise WeightsError(f"the address of {parsed.host} holds a name or password: fetch the file and give its path")
    plain = parsed.scheme == "http" and local and _is_this_machine(parsed.host)
    if not parsed.host or not (parsed.scheme == "https" or plain):
        raise WeightsError(f"{_shown(parsed)}: weights are fetched by https only")
    return parsed


def ask_hub(source: HubFile, revision: str, rules: FetchRules) -> HubAnswer:
    """Which commit a revision is now, and what the hub publishes of the file.

    Raises:
        WeightsError: there is no such repository, revision or file, it is not for everybody, or no network.
    """
    begin, file = f"{rules.hub.rstrip('/')}/{source.repository}/resolve", quote(source.file)
    asked = f"{begin}/{quote(revision, safe='')}/{file}"

    def ask() -> HubAnswer:
        with _client(rules) as client, _opened(client, "HEAD", asked, {}, until="X-Repo-Commit") as response:
            commit = response.headers.get("X-Repo-Commit")
            if not (commit and response.has_redirect_location):  # large files lie elsewhere, which is answer enough
                _check_status(response, asked)
            if not commit:
                raise WeightsError(f"{_shown(response.url)} does not answer as a model hub: it names no commit")
            tag = response.headers.get("X-Linked-ETag", "").removeprefix("W/").strip('"')
            published = tag if len(tag) == _SHA256_DIGITS else None
            return HubAnswer(f"{begin}/{quote(commit, safe='')}/{file}", commit, published)

    return _persistently(asked, rules, ask, lambda: 0)


def download(url: str, partial: Path, name: str, rules: FetchRules) -> None:
    """Download a file; what an attempt before left is gone on with if it is still the same file there.

    Args:
        url: where it is.
        partial: where its bytes are gathered; complete when this returns. A note lies beside it until :func:`discard`.
        name: for progress.
        rules: how.

    Raises:
        WeightsError: not found, forbidden, too large, no network, or the disk is full; the message says which.
    """
    check_address(url)

    def attempt() -> None:
        with _client(rules) as client:
            _attempt(client, url, partial, name, rules)

    _persistently(url, rules, attempt, lambda: _size(partial))


@contextmanager
def disk_errors_told(path: Path) -> Iterator[None]:
    """Turn a full disk into a WeightsError."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise WeightsError(f"the disk is full: {path} could not be written; make room and pull again") from error


def check_size(name: str, size: int, rules: FetchRules) -> None:
    """Raises WeightsError if a file is larger than allowed."""
    if size > rules.most_bytes:
        raise WeightsError(f"{name} has {size} bytes or more; at most {rules.most_bytes} are taken")


def discard(partial: Path) -> None:
    """Forget what was gathered of a file, or that it was, where it has got its own name."""
    partial.unlink(missing_ok=True)
    _note_of(partial).unlink(missing_ok=True)


def _persistently(url: str, rules: FetchRules, attempt: Callable[[], Answer], arrived: Callable[[], int]) -> Answer:
    """Attempt until it succeeds or nothing has arrived for too many attempts in a row."""
    failures = 0
    while True:
        before = arrived()
        try:
            return attempt()
        except (_Broken, httpx.TransportError) as error:
            failures = 1 if arrived() > before else failures + 1
            if failures >= rules.attempts:
                told = str(error) or type(error).__name__
                raise WeightsError(
                    f"{_shown(httpx.URL(url))} could not be fetched: {told}; is there a network? What has arrived is "
                    "kept: pull again to go on, or fetch the file yourself and give its path with --from"
                ) from error
            time.sleep(rules.pause * failures)


def _attempt(client: httpx.Client, url: str, partial: Path, name: str, rules: FetchRules) -> None:
    """Fetch what is missing of a file. Raises _Broken or httpx.TransportError if not all of it came."""
    validator, here = _resumable(partial, url)
    headers = {"Range": f"bytes={here}-", "If-Range": validator} if here else {}
    with _opened(client, "GET", url, headers) as response:
        if here and response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            if response.headers.get("Content-Range") == f"bytes */{here}":
                return  # all of it had arrived
            discard(partial)
            raise _Broken("the file changed while it was fetched")
        _check_status(response, url)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise WeightsError(
                f"{_shown(response.url)} answers with packed bytes, though the file's own were asked for"
            )
        begin, total = _extent(response, here)
        check_size(name, total or 0, rules)
        _check_room(partial, (total or 0) - begin)
        _write_note(partial, url, response.headers)
        with disk_errors_told(partial), partial.open("r+b" if begin else "wb") as stream:
            stream.seek(begin)
            done = begin
            for chunk in response.iter_raw():  # as they come: what is gathered in memory is lost when it breaks
                done += len(chunk)
                check_size(name, done, rules)
                stream.write(chunk)
                rules.on_progress(name, done, total)
    if total is not None and done != total:
        raise _Broken(f"the connection ended after {done} of {total} bytes")


def _extent(response: httpx.Response, here: int) -> tuple[int, int | None]:
    """Where the answer's bytes begin, and how many the whole file has, if that is known."""
    length = response.headers.get("Content-Length", "")
    if response.status_code != httpx.codes.PARTIAL_CONTENT:
        return 0, int(length) if length.isdecimal() else None
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    span, _, total = rest.partition("/")
    if unit != "bytes" or span.partition("-")[0] != str(here):
        raise WeightsError(f"{_shown(response.url)} answers with other bytes than were asked for: {unit} {rest}")
    return here, int(total) if total.isdecimal() else None


def _check_status(response: httpx.Response, url: str) -> None:
    """Raises WeightsError unless the answer is the file, _Broken if it may be so later."""
    status, shown = response.status_code, _shown(httpx.URL(url))
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise WeightsError(
            f"{shown} is not for everybody (HTTP {status}): accept its terms there, fetch the file yourself and give "
            "its path with --from"
        )
    if status in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
        raise WeightsError(f"{shown} was not found (HTTP {status}): give another source with --from")
    if status in (httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS) or status >= 500:
        raise _Broken(f"the server answered HTTP {status}")
    if status >= 300:
        raise WeightsError(f"{shown} was answered with HTTP {status}, not with the file")


@contextmanager
def _opened(
    client: httpx.Client, method: str, url: str, headers: Mapping[str, str], until: str = ""
) -> Iterator[httpx.Response]:
    """An answer, after redirects that lead to https only; ``until`` a header is there that is what was asked for."""
    target = check_address(url)
    local = target.scheme == "http"
    for _ in range(MOST_REDIRECTS + 1):
        with client.stream(method, target, headers={"Accept-Encoding": "identity", **headers}) as response:
            if not response.has_redirect_location or (until and until in response.headers):
                yield response
                return
            target = check_address(str(target.join(response.headers["Location"])), local=local)
    raise WeightsError(f"{_shown(httpx.URL(url))} leads from one address to the next without end")


def _client(rules: FetchRules) -> httpx.Client:
    return httpx.Client(timeout=rules.timeout, follow_redirects=False, headers={"User-Agent": "visavox"})


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def _shown(url: httpx.URL) -> str:
    """An address without what may be secret in it."""
    return str(url.copy_with(query=None, fragment=None))


def without_query(url: str) -> str:
    """An address as it may be written down: signatures in it are left out."""
    return _shown(httpx.URL(url))


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _note_of(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")


def _write_note(partial: Path, url: str, headers: httpx.Headers) -> None:
    """Remember which file the bytes belong to: without a strong validator they cannot be gone on with."""
    tag = headers.get("ETag", "")
    validator = headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag
    address = hashlib.sha256(url.encode()).hexdigest()  # not the address: a signature in it would lie there
    _note_of(partial).write_text(json.dumps({"address": address, "validator": validator}), encoding="utf-8")


def _resumable(partial: Path, url: str) -> tuple[str, int]:
    """How the server can tell that it is still the same file, and how many bytes of it are here."""
    try:
        note = json.loads(_note_of(partial).read_text(encoding="utf-8"))
        address, validator = note["address"], str(note["validator"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", 0
    same = address == hashlib.sha256(url.encode()).hexdigest() and bool(validator)
    return (validator, _size(partial)) if same else ("", 0)


def _check_room(partial: Path, missing: int) -> None:
    free = shutil.disk_usage(partial.parent).free
    if missing > free:
        raise WeightsError(f"the disk is full: {missing} bytes are to be fetched to {partial.parent}, {free} are free")
