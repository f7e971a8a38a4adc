"""The Milvus server goes away for a while and comes back, under a live service and a running ingest."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.settings import load_settings
from deploy.wiring import Installation
from training.population.folder import InventedMedia, MediaSize, write_demo_media

CLIENTS = 8
OUTAGE_SECONDS = 20.0
# Started again, a server needs half a minute until it has all collections back.
RECOVERY_SECONDS = 120.0
# The store gives a request 10 s; a busy machine some more.
LONGEST_ANSWER = 25.0


def visavox(environment: Mapping[str, str], *arguments: str) -> subprocess.Popen[str]:
    """A command in a process of its own, with its JSON on standard output."""
    return subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", *arguments], env=dict(environment), text=True, stdout=subprocess.PIPE
    )


def told(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The document of a command that succeeds."""
    document = json.loads(process.communicate(timeout=600)[0])
    assert process.returncode == 0, document
    return dict(document)


def environment(home: Path, milvus: str | None) -> dict[str, str]:
    mine = {name: value for name, value in os.environ.items() if not name.startswith("VISAVOX_")}
    mine |= {"VISAVOX_HOME": str(home), "VISAVOX_DEVICE": "cpu"}
    return mine | ({"VISAVOX_MILVUS_URI": milvus} if milvus else {})


def enrol(given: Mapping[str, str], media: InventedMedia) -> None:
    """Enrol two people by their clips: for those the clients then ask."""
    for one in media.people[:2]:
        told(visavox(given, "enrol", one.person.name, *map(str, one.clips), "--json"))


@dataclass
class Clients:
    """Eight threads that ask the same questions again and again, and what they were answered.

    Args:
        uri: of the service.
        questions: bodies of searches by vector.
    """

    uri: str
    questions: list[dict[str, Any]]
    expected: list[Any] = field(default_factory=list)
    right: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    wrong: list[Any] = field(default_factory=list)
    slowest: float = 0.0
    _stopping: threading.Event = field(default_factory=threading.Event)

    def ask(self, client: httpx.Client, number: int) -> httpx.Response:
        return client.post("/v1/search", json=self.questions[number % len(self.questions)])

    def learn(self) -> None:
        """The answers of a quiet service."""
        with self._client() as client:
            self.expected = [self.ask(client, number).json() for number in range(len(self.questions))]
        assert all(one["hits"] for one in self.expected)

    @contextmanager
    def asking(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._work, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join(timeout=60)

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self.uri, timeout=60, trust_env=False)

    def _work(self, number: int) -> None:
        with self._client() as client:
            while not self._stopping.is_set():
                started = time.monotonic()
                self._judge(number, self.ask(client, number))
                self.slowest = max(self.slowest, time.monotonic() - started)
                number += CLIENTS + 1
                time.sleep(0.05)

    def _judge(self, number: int, answer: httpx.Response) -> None:
        """Right, or a problem document that says to come again; anything else is wrong."""
        document = answer.json()
        if answer.status_code == 200 and document == self.expected[number % len(self.questions)]:
            self.right.append(time.monotonic())
        elif (
            answer.status_code == 503
            and answer.headers["content-type"] == "application/problem+json"
            and document["type"] == "urn:visavox:problem:store-unavailable"
            and int(answer.headers["Retry-After"]) > 0
        ):
            self.refused.append(time.monotonic())
        else:
            self.wrong.append((answer.status_code, dict(answer.headers), document))


@contextmanager
def serving(given: Mapping[str, str]) -> Iterator[str]:
    """A live service, and its URI."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "deploy.cli", "serve", "--port", str(port)], env=dict(given))
    uri = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while not is_ready(uri):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        yield uri
        assert process.poll() is None, "the service ended"
    finally:
        process.terminate()
        process.wait(timeout=60)


def is_ready(uri: str) -> bool:
    try:
        return httpx.get(f"{uri}/readyz", timeout=30, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def questions(given: Mapping[str, str]) -> list[dict[str, Any]]:
    """Searches for rows by their own vectors: however many rows come beside them, they are the best hit."""
    opened = Installation(load_settings(given))
    asked = [
        {
            "space_digest": encoder.space.digest,
            "modality": str(row.embedding.modality),
            "vector": row.embedding.vector.tolist(),
            "top": 1,
        }
        for encoder in opened.encoders.values()
        for row in list(opened.store.rows(encoder.space))[:6]
    ]
    opened.close()
    return asked


def wait_for(condition: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def rows(given: Mapping[str, str]) -> int:
    """Rows in the index as another process sees them."""
    opened = Installation(load_settings(given))
    held = sum(opened.store.count(space) for space in opened.store.spaces())
    opened.close()
    return held


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_an_outage_of_the_server_loses_nothing_and_answers_nothing_wrong(tmp_path: Path) -> None:
    pytest.importorskip("milvus", reason="the package milvus carries the server")
    from tests.search.real_milvus import real_milvus

    media = write_demo_media(tmp_path / "media", 5, MediaSize(people=6, strangers=2, films=2, film_seconds=8.0))
    quiet = environment(tmp_path / "quiet", None)
    with real_milvus(tmp_path / "milvus") as server:
        given = environment(tmp_path / "home", server.uri)
        for each in (given, quiet):
            enrol(each, media)
        asked, before = questions(given), rows(given)
        with serving(given) as uri:
            clients = Clients(uri, asked)
            clients.learn()
            with clients.asking():
                ingest = visavox(given, "ingest", str(tmp_path / "media"), "--json")
                wait_for(lambda: rows(given) > before, 180)
                server.stop()
                stopped = time.monotonic()
                wait_for(lambda: clients.refused, 60)
                time.sleep(max(0.0, stopped + OUTAGE_SECONDS - time.monotonic()))
                assert ingest.poll() is None, "the ingest was over before the outage"
                server.start()
                started = time.monotonic()
                wait_for(lambda: any(moment > started for moment in clients.right), RECOVERY_SECONDS)
                report = told(ingest)
                wait_for(lambda: len([m for m in clients.right if m > started]) > 50, 60)
        assert clients.wrong == []
        assert clients.slowest < LONGEST_ANSWER
        assert [moment for moment in clients.right if moment < stopped]
        assert report["failed"] == [] and report["done"] > 0
        told(visavox(quiet, "ingest", str(tmp_path / "media"), "--json"))
        there, here = (told(visavox(each, "status", "--json")) for each in (given, quiet))
        assert there == here and there["spaces"]["face_identity"]["rows"] > 0
        health = told(visavox(given, "store", "check", "--json"))
        assert health["kind"] == "server" and health["problems"] == []
