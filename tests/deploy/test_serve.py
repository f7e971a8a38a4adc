"""The live server: a real process, asked over HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.deploy.live_server import live_server
from training.population.folder import InventedMedia, MediaSize, PersonMedia, write_demo_media


@dataclass
class Live:
    """A running server, what it was told, and the media it was told about."""

    client: httpx.Client
    environment: dict[str, str]
    media: InventedMedia
    process: subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("live")
    media = write_demo_media(folder / "media", 5, MediaSize(people=3, strangers=1, films=0))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VISAVOX_")}
    environment |= {"VISAVOX_HOME": str(folder / "home"), "VISAVOX_DEVICE": "cpu"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "deploy.cli", "serve", "--port", str(port)]
    process = subprocess.Popen(command, env=environment)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False) as client:
        try:
            wait_until_ready(client, process)
            yield Live(client, environment, media, process)
        finally:
            process.terminate()
            process.wait(timeout=30)


def wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise TimeoutError("the server did not become ready")


def send(live: Live, route: str, **parts: Path) -> httpx.Response:
    return live.client.post(route, files={name: path.read_bytes() for name, path in parts.items()})


@pytest.fixture(scope="module")
def enrolled(live: Live) -> list[str]:
    """The first two invented people, enrolled over HTTP."""
    return [enrol(live, one) for one in live.media.people[:2]]


def enrol(live: Live, one: PersonMedia) -> str:
    identity = live.client.post("/v1/people", json={"name": one.person.name}).json()["id"]
    files = [("file", (path.name, path.read_bytes())) for path in (*one.clips, *one.photos)]
    answer = live.client.post(f"/v1/people/{identity}/samples", files=files)
    # of a hundred invented photos a few show no face that the detector finds
    assert answer.status_code in (200, 201) and len(answer.json()["refused"]) <= 1
    return one.person.name


def test_it_lives_and_is_ready(live: Live) -> None:
    assert live.client.get("/healthz").status_code == 200
    assert live.client.get("/readyz").status_code == 200


@pytest.mark.parametrize("number", [0, 1])
def test_a_known_voice_is_named(live: Live, enrolled: list[str], number: int) -> None:
    answer = send(live, "/v1/who", file=live.media.clips[number].path)
    assert answer.status_code == 200
    assert {turn["answer"] for turn in answer.json()["turns"]} == {enrolled[number]}


def test_search_answers_hits_with_evidence_that_can_be_fetched(live: Live, enrolled: list[str]) -> None:
    hits = live.client.post(
        "/v1/search", files={"file": live.media.clips[1].path.read_bytes()}, data={"want": "face", "top": "3"}
    ).json()["hits"]
    assert hits and hits[0]["person"] == enrolled[1]
    assert live.client.get(f"/v1/evidence/{hits[0]['evidence']}").content.startswith(b"\x89PNG")


def test_verify_and_match_answer(live: Live) -> None:
    first, second = live.media.people[0], live.media.people[1]
    parts = [("file", first.clips[0].read_bytes()), ("file", first.clips[1].read_bytes())]
    told = live.client.post("/v1/verify", files=parts).json()
    assert set(told) == {"score", "probability", "same", "threshold", "space", "note"}
    assert told["same"] is True and told["note"] is None
    parts[1] = ("file", second.clips[0].read_bytes())
    assert live.client.post("/v1/verify", files=parts).json()["same"] is False
    line_up = [
        ("probe", ("probe.wav", first.clips[0].read_bytes())),
        ("candidate", ("other.wav", second.clips[0].read_bytes())),
        ("candidate", ("same.mp4", first.clips[1].read_bytes())),
    ]
    assert live.client.post("/v1/match", files=line_up).json()["answer"] == "same.mp4"


def test_what_is_no_medium_is_a_problem_document(live: Live, tmp_path: Path) -> None:
    text = tmp_path / "a.mp4"
    text.write_text("not a film")
    answer = send(live, "/v1/who", file=text)
    assert answer.status_code == 422 and answer.headers["content-type"] == "application/problem+json"


def test_openapi_lists_the_promised_routes(live: Live) -> None:
    paths = live.client.get("/openapi.json").json()["paths"]
    assert {"/v1/who", "/v1/search", "/v1/verify", "/v1/match", "/v1/people", "/healthz", "/readyz"} <= set(paths)


def test_an_answer_on_a_kept_connection_is_sent_at_once(live: Live) -> None:
    seconds = [live.client.get("/v1/spaces").elapsed.total_seconds() for _ in range(50)]
    assert min(seconds[-10:]) < 0.03  # a delayed acknowledgement costs 0.04


def test_a_second_process_is_told_who_holds_the_index_and_what_to_do(live: Live) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "deploy.cli", "status", "--json"],
        env=live.environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    error = json.loads(told.stdout)["error"]
    assert told.returncode == 3 and error["type"] == "store_held"
    assert str(live.process.pid) in error["message"] and "VISAVOX_MILVUS_URI" in error["message"]


def test_people_can_be_listed_without_the_index(live: Live, enrolled: list[str]) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "deploy.cli", "people", "--json"],
        env=live.environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert [person["name"] for person in json.loads(told.stdout)["people"]] == sorted(enrolled)


def test_asked_to_end_it_first_answers_what_it_is_reading(tmp_path: Path) -> None:
    go_on = threading.Event()
    answers: list[httpx.Response] = []

    parts = [b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nnot a ', b"film\r\n--x--\r\n"]

    def slow_upload() -> Iterator[bytes]:
        yield parts[0]
        go_on.wait(30)
        yield parts[1]

    def ask() -> None:
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        answers.append(httpx.post(f"{address}/v1/who", content=slow_upload(), headers=kind, timeout=60))

    with live_server(tmp_path) as server:
        address = f"http://127.0.0.1:{server.port}"
        with httpx.Client(base_url=address, trust_env=False, timeout=60) as kept:
            assert kept.get("/readyz").status_code == 200
            asking = threading.Thread(target=ask)
            asking.start()
            while "visavox_requests_running 2" not in kept.get("/metrics").text:
                time.sleep(0.05)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            assert kept.get("/readyz").json()["type"] == "urn:visavox:problem:not-ready"
        go_on.set()
        asking.join()
        assert answers[0].json()["type"] == "urn:visavox:problem:media-unreadable"
        assert server.process.wait(timeout=20) == 0
        told = server.log()
        assert [line["event"] for line in told][-1] == "stopped"
        (asked,) = [line for line in told if line.get("route") == "/v1/who"]
        assert asked["status"] == 422 and asked["bytes_in"] == len(b"".join(parts))
        assert asked["request_id"] == answers[0].headers["x-request-id"]
