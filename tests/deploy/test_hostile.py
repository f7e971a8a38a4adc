"""Hostile uploads against a live server: each is refused in little time and memory, and nothing is left of it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from ingest.confinement import resident_bytes
from tests.deploy.live_server import LiveServer, live_server
from tests.ingest import hostile_media as hostile

BOUNDED_SECONDS, BOUNDED_LONG_SECONDS = 20.0, 120.0
BOUNDED_BYTES = 400_000_000
BOUNDED_READER_BYTES = 3_000_000_000
BOUNDARY = b"a-line-that-parts"
MEGABYTE = bytes(2**20)


@dataclass
class Target:
    """A live server, and the folders in which it may leave something."""

    server: LiveServer
    client: httpx.Client
    folder: Path

    def left(self) -> list[Path]:
        """Files that are in the folders of uploads and of what is temporary."""
        places = (self.folder / "home" / "uploads", self.folder / "temporary")
        # `os.walk` passes over a folder that goes while one looks; `Path.rglob` would raise.
        there = [Path(folder, name) for place in places for folder, _, names in os.walk(place) for name in names]
        return [path for path in there if path.name != ".ses"]  # a session of onnxruntime's, made at its start

    def most_memory(self) -> int:
        """The most that the server had in use so far, bytes."""
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    def readers(self) -> list[int]:
        """Processes of its sandbox."""
        tasks = Path(f"/proc/{self.server.process.pid}/task").glob("*/children")
        children = [int(one) for task in tasks for one in task.read_text().split()]
        return [one for one in children if b"reading_process" in Path(f"/proc/{one}/cmdline").read_bytes()]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "temporary").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder / "temporary"))
        with (
            live_server(folder) as server,
            httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=120, trust_env=False) as client,
        ):
            yield Target(server, client, folder)


@pytest.fixture(autouse=True)
def unharmed(target: Target, request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test sends: the server lives, answers, kept nothing, and never had much more memory."""
    before, begin = target.most_memory(), time.monotonic()
    yield
    assert target.client.get("/readyz").status_code == 200
    assert target.server.process.poll() is None
    assert target.left() == []
    assert target.most_memory() - before < BOUNDED_BYTES
    assert all(resident_bytes(one) < BOUNDED_READER_BYTES for one in target.readers())
    assert time.monotonic() - begin < (BOUNDED_LONG_SECONDS if "long" in request.keywords else BOUNDED_SECONDS)
    assert "Traceback" not in target.server.errors.read_text()


def refused(answer: httpx.Response, *statuses: int) -> str:
    """Whether an answer is a problem document that says nothing of where the server keeps uploads."""
    assert answer.status_code in (statuses or (413, 422)), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert {"type", "title", "status", "detail"} <= set(problem) and problem["status"] == answer.status_code
    assert "visavox-upload" not in answer.text and str(answer.request.url.path) not in problem["detail"]
    return str(problem["detail"])


def sent(target: Target, content: bytes, name: str = "film.mp4", route: str = "/v1/who", **fields: str) -> str:
    """Send one file, which must be refused; gives the reason."""
    return refused(target.client.post(route, files={"file": (name, content)}, data=fields))


BOMBS = {
    "bomb.png": hostile.png(50_000, 50_000, rows=20),
    "bomb.bmp": hostile.bmp(50_000, 50_000),
    "bomb.webp": hostile.webp(16_384, 16_384),
    "bomb.ppm": b"P6\n60000 60000\n255\n" + bytes(99),
    "bomb.gif": hostile.gif(65_000, 65_000, 20),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused(target: Target, name: str) -> None:
    assert len(BOMBS[name]) < 5000
    sent(target, BOMBS[name], name)
    sent(target, BOMBS[name], "photo.jpg", "/v1/search", want="face")


def test_a_bomb_of_which_nothing_is_missing_is_refused(target: Target) -> None:
    sent(target, hostile.png(12_000, 12_000))


@pytest.mark.parametrize("hours", [10.0, 300_000.0])
def test_a_header_that_claims_hours_or_years_is_refused(target: Target, tmp_path: Path, hours: float) -> None:
    assert "hours" in sent(target, hostile.claiming(tmp_path / "film.mkv", hours * 3600))


def test_days_of_silence_in_a_few_bytes_are_refused(target: Target) -> None:
    content = hostile.silent_flac(30.0)
    assert len(content) < 200_000 and "hours" in sent(target, content, "voice.flac")


def test_a_wrong_type_is_refused_whatever_its_name_says(target: Target) -> None:
    assert "text" in sent(target, b"#!/bin/sh\nrm -rf /\n", "film.mp4")
    assert "web page" in sent(target, b"<!doctype html><html><script>alert(1)</script></html>", "photo.png")
    assert "ZIP" in sent(target, hostile.zip_bomb(), "film.mkv")
    assert "program" in sent(target, b"\x7fELF\x02\x01\x01" + bytes(500), "voice.wav")
    assert "is known" in sent(target, bytes(range(1, 256)) * 9, "voice.wav")


def test_an_empty_file_and_nothing_but_zeros_are_refused(target: Target) -> None:
    assert "empty" in sent(target, b"")
    assert "zeros" in sent(target, bytes(9000))


def test_what_names_other_files_or_addresses_opens_neither(target: Target, tmp_path: Path) -> None:
    hostile.film(tmp_path / "target.mp4")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/film.mp4"
        for name, content in hostile.pointers(tmp_path / "target.mp4", address).items():
            assert str(tmp_path) not in sent(target, content, name)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


NAMES = [
    "../../../../etc/passwd", "/etc/passwd", "..\\..\\boot.ini", "..", "concat:a|b", "a%03d.png", "http://x/y",
    "-i", "a" * 900, "\u202egpj.exe", "nul\0byte.mp4",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_path_in_a_name_leads_nowhere(target: Target, name: str) -> None:
    told = sent(target, b"no film", name)
    assert "/" not in told.split(":")[0] and "looks like text" in told and len(told) < 400


def test_a_name_longer_than_any_is_refused(target: Target) -> None:
    refused(target.client.post("/v1/who", files={"file": ("a" * 50_000, b"no film")}), 400, 413, 422)


def test_names_of_samples_lead_nowhere_either(target: Target) -> None:
    person = target.client.post("/v1/people", json={"name": "Nobody"}).json()["id"]
    files = [("file", (name, BOMBS["bomb.png"])) for name in ("../../a.png", "b.png", "b.png")]
    answer = target.client.post(f"/v1/people/{person}/samples", files=files)
    assert answer.status_code in (200, 201) and not answer.json()["added"]
    told = [one["path"] for one in answer.json()["refused"]]
    assert len(set(told)) == 3 and not any("/" in one for one in told)
    assert "visavox-upload" not in answer.text


def test_a_thousand_streams_are_refused(target: Target, tmp_path: Path) -> None:
    assert "streams" in sent(target, hostile.many_streams(tmp_path / "many.mkv", 1000))


@pytest.mark.parametrize("rate", [0, 1, 2**31 - 1, 2**32 - 1])
def test_a_rate_that_is_none_is_refused(target: Target, rate: int) -> None:
    sent(target, hostile.wav(rate, bytes(100_000)), "voice.wav")


def test_sound_of_what_are_no_numbers_is_silence(target: Target) -> None:
    answer = target.client.post("/v1/who", files={"file": hostile.wav(16_000, b"\xff" * 64_000, form=3, bits=32)})
    assert answer.status_code == 200 and answer.json()["turns"] == []


def test_a_jpeg_that_is_gone_over_again_and_again_is_refused(target: Target) -> None:
    sent(target, hostile.jpeg_of_many_scans(2000, 1500, 500), "photo.jpg")


def test_pictures_without_end_at_one_moment_are_refused(target: Target, tmp_path: Path) -> None:
    sent(target, hostile.film_without_a_clock(tmp_path / "film.mp4", 8000))


def head(target: Target, *lines: str, route: str = "/v1/who") -> bytes:
    """A request's head for a body that is sent by hand."""
    first = (f"POST {route} HTTP/1.1", f"Host: 127.0.0.1:{target.server.port}")
    return "\r\n".join([*first, *lines, "", ""]).encode()


FORM = f"Content-Type: multipart/form-data; boundary={BOUNDARY.decode()}"
PART = b"--" + BOUNDARY + b'\r\nContent-Disposition: form-data; name="file"; filename="film.mp4"\r\n\r\n'


def connect(target: Target) -> socket.socket:
    return socket.create_connection(("127.0.0.1", target.server.port), timeout=60)


def status_of(line: socket.socket) -> int:
    """The status of the answer that comes, which must be a problem document."""
    answer = b""
    while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
        piece = line.recv(100_000)
        assert piece, answer
        answer += piece
    first, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in first and json.loads(body)["status"] == int(first.split()[1])
    return int(first.split()[1])


def test_what_is_declared_as_too_large_is_refused_before_it_is_sent(target: Target) -> None:
    with connect(target) as line:
        line.sendall(head(target, FORM, f"Content-Length: {600 * 2**20}"))
        assert status_of(line) == 413


def test_a_text_without_end_is_refused_though_no_length_was_declared(target: Target) -> None:
    assert chunked(target, "Content-Type: application/json", b"[", 40, "/v1/search") == 413


def chunked(target: Target, kind: str, begin: bytes, megabytes: int, route: str = "/v1/who") -> int:
    """Send a body of no declared length, until the server refuses it; gives the status."""
    with connect(target) as line:
        line.sendall(head(target, kind, "Transfer-Encoding: chunked", route=route))
        line.sendall(f"{len(begin):x}\r\n".encode() + begin + b"\r\n")
        try:
            for _ in range(megabytes):
                line.sendall(f"{len(MEGABYTE):x}\r\n".encode() + MEGABYTE + b"\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # it does not listen any more
        return status_of(line)


def test_a_connection_that_ends_in_the_middle_of_a_file_leaves_nothing(target: Target) -> None:
    for megabytes in (0, 3):
        with connect(target) as line:
            line.sendall(head(target, FORM, f"Content-Length: {10 * 2**20}") + PART + MEGABYTE * megabytes + b"half")
        assert target.client.get("/healthz").status_code == 200


def test_a_body_that_ends_without_its_last_line_is_refused(target: Target) -> None:
    content, kind = PART + b"half a film", {"Content-Type": FORM.partition(": ")[2]}
    answer = target.client.post("/v1/who", content=content, headers=kind)
    assert 400 <= answer.status_code < 500 and answer.headers["content-type"] == "application/problem+json"


@pytest.mark.long
def test_a_file_without_end_is_refused_though_no_length_was_declared(target: Target) -> None:
    assert chunked(target, FORM, PART, 600) == 413


@pytest.fixture
def sandboxed(target: Target) -> Target:
    """The target, if it reads uploads in processes that can be killed."""
    sent(target, b"no film")
    if not target.readers():
        pytest.skip("this server reads uploads in its own process")
    return target


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("pictures", [25, 2500])
def test_a_film_that_shows_itself_again_and_again_ends_with_its_reader(sandboxed: Target, pictures: int) -> None:
    sent(sandboxed, hostile.edited(hostile.film(sandboxed.folder / "plain.mp4", pictures, 16), 100_000))


@pytest.mark.long
def test_silence_that_claims_to_be_short_ends_with_its_reader(sandboxed: Target) -> None:
    sent(sandboxed, hostile.silent_flac(30.0, said=0.001), "voice.flac")
