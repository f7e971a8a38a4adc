"""Evidence over HTTP: whole, in ranges, and from the disk."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from search.api.app import create_app
from search.api.conditional import RangeUnsatisfiable, asked_range
from search.api.evidence_routes import CHUNK_BYTES
from tests.deploy.test_schema import serving
from tests.search.api_house import LOCAL, House, TestClient, kind, open_files

ADDRESS = "/v1/evidence/e"
SOUND = bytes(range(256)) * 4


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path)
    house.evidence = tmp_path / "turn.flac"
    house.evidence.write_bytes(SOUND)
    return house


@pytest.fixture
def client(house: House) -> Iterator[TestClient]:
    with TestClient(create_app(house.services, house.limits), LOCAL, raise_server_exceptions=False) as client:
        yield client


def asked(client: TestClient, **headers: str) -> httpx.Response:
    return client.get(ADDRESS, headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_evidence_names_its_content_and_takes_ranges(client: TestClient) -> None:
    answer = asked(client)
    assert (answer.status_code, answer.content) == (200, SOUND)
    told = {name: answer.headers[name] for name in ("content-type", "content-length", "etag", "accept-ranges")}
    assert told == {"content-type": "audio/flac", "content-length": "1024", "etag": '"e"', "accept-ranges": "bytes"}
    assert answer.headers["cache-control"] == "no-store" and "content-range" not in answer.headers


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, 1024),
        ("bytes=1000-99999", 1000, 1024),
        ("bytes=-24", 1000, 1024),
        ("bytes=-5000", 0, 1024),
        ("Bytes = 5-9 ", 5, 10),
    ],
)
def test_a_range_is_answered_with_its_bytes(client: TestClient, header: str, start: int, end: int) -> None:
    answer = asked(client, Range=header)
    assert (answer.status_code, answer.content) == (206, SOUND[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/1024"
    assert answer.headers["content-length"] == str(end - start)


@pytest.mark.parametrize("header", ["bytes=1024-", "bytes=5000-6000", "bytes=-0"])
def test_a_range_outside_is_a_problem_that_tells_the_length(client: TestClient, header: str) -> None:
    answer = asked(client, Range=header)
    assert (answer.status_code, kind(answer)) == (416, "range-unsatisfiable")
    assert answer.headers["content-range"] == "bytes */1024"


@pytest.mark.parametrize("header", ["bytes=0-1,4-5", "bytes=9-3", "bytes=a-b", "bytes=-", "chapters=1-2", "0-5", ""])
def test_what_is_no_single_range_of_bytes_is_answered_with_the_whole(client: TestClient, header: str) -> None:
    answer = asked(client, Range=header)
    assert (answer.status_code, answer.content) == (200, SOUND)


def test_a_range_of_what_the_file_was_is_answered_with_the_whole(client: TestClient) -> None:
    assert asked(client, Range="bytes=0-1", If_Range='"e"').content == SOUND[:2]
    for other in ('"f"', 'W/"e"', "Sat, 01 Jan 2000 00:00:00 GMT"):
        assert asked(client, Range="bytes=0-1", If_Range=other).content == SOUND


def test_what_the_caller_has_is_not_sent_again(client: TestClient) -> None:
    answer = asked(client, If_None_Match='"e"', Range="bytes=5000-")
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", '"e"')


def test_head_tells_the_whole_without_sending_it(client: TestClient) -> None:
    whole, head = asked(client), client.head(ADDRESS, headers={"Range": "bytes=0-1"})
    assert (head.status_code, head.content) == (200, b"")
    assert {name: head.headers[name] for name in whole.headers if name != "x-request-id"} == {
        name: value for name, value in whole.headers.items() if name != "x-request-id"
    }
    assert client.head("/v1/evidence/other").status_code == 404


def test_evidence_without_a_byte_is_missing(client: TestClient, house: House) -> None:
    house.evidence.write_bytes(b"")
    assert kind(asked(client)) == "unknown-evidence"


def test_evidence_that_is_forgotten_while_it_is_read_leaves_the_server_well(house: House) -> None:
    house.evidence.write_bytes(b"x" * 40 * CHUNK_BYTES)
    with serving(create_app(house.services, house.limits)) as address:
        with httpx.stream("GET", address + ADDRESS) as answer:
            pieces = answer.iter_bytes(1000)
            next(pieces)
            os.truncate(house.evidence, 1000)
            with pytest.raises(httpx.RemoteProtocolError):
                list(pieces)
        assert httpx.get(f"{address}/healthz").status_code == 200


def test_a_long_recording_is_never_in_memory(house: House) -> None:
    size = 200 * 2**20
    os.truncate(house.evidence, size)
    with serving(create_app(house.services, house.limits)) as address:
        digest = hashlib.sha256()
        tracemalloc.start()
        try:
            with httpx.stream("GET", address + ADDRESS, headers={"Range": f"bytes={size // 2}-"}) as answer:
                for piece in answer.iter_raw():
                    digest.update(piece[:1])
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert answer.headers["content-length"] == str(size // 2)
    assert most < 30 * 2**20


def test_a_caller_who_goes_away_leaves_no_file_open(house: House) -> None:
    house.evidence.write_bytes(b"x" * 200 * CHUNK_BYTES)
    with serving(create_app(house.services, house.limits)) as address:
        for _ in range(3):
            with httpx.stream("GET", address + ADDRESS) as answer:
                next(answer.iter_bytes(1000))
        assert httpx.get(f"{address}/healthz").status_code == 200
    assert str(house.evidence) not in open_files()


@pytest.mark.parametrize("length", [1, 7])
@pytest.mark.parametrize("first", ["", "0", "3", "9"])
@pytest.mark.parametrize("last", ["", "0", "3", "9"])
def test_a_range_never_leaves_the_file(length: int, first: str, last: str) -> None:
    try:
        found = asked_range(f"bytes={first}-{last}", None, '"e"', length)
    except RangeUnsatisfiable:
        assert (first not in ("", "0") and int(first) >= length) or (first, last) == ("", "0")
    else:
        assert found is None or 0 <= found.start < found.end <= length
