"""Forms that are broken, huge or odd: each gets a problem document, and nothing of it stays."""

from __future__ import annotations

import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from search.api.app import create_app
from search.api.services import Limits
from search.api.uploads import BodyCap
from tests.deploy.test_schema import serving
from tests.search.api_house import LOCAL, House, TestClient, kind, open_files, upload

BORDER = "border"
FORM = {"content-type": f"multipart/form-data; boundary={BORDER}"}


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.fixture
def client(house: House) -> Iterator[TestClient]:
    with TestClient(create_app(house.services, house.limits), LOCAL, raise_server_exceptions=False) as client:
        yield client


def part(disposition: str, content: str = "film of 5 s") -> str:
    return f"--{BORDER}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{content}\r\n"


END = f"--{BORDER}--\r\n"
FILE = part('name="file"; filename="film.mp4"')


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(FILE + FILE[:-2], id="the last part has no end"),
        pytest.param(FILE, id="no last border"),
        pytest.param(FILE + f"--{BORDER}", id="half a border"),
        pytest.param(FILE + part('filename="x"') + END, id="a part without a name"),
        pytest.param(FILE + f"--{BORDER}\r\n\r\nx\r\n" + END, id="a part without headers"),
        pytest.param("".join(part(f'name="x{n}"', "") for n in range(150)) + FILE + END, id="too many fields"),
        pytest.param("".join(FILE for _ in range(150)) + END, id="too many files"),
        pytest.param(part(f'name="{"x" * 9000}"') + FILE + END, id="a name of 9000 letters"),
        pytest.param(part('name="file"; filename="' + "x" * 9000 + '"') + END, id="a file name of 9000 letters"),
        pytest.param("no border at all", id="no form"),
        pytest.param("", id="nothing"),
    ],
)
@pytest.mark.parametrize("route", ["/v1/who", "/v1/search", "/v1/match"])
def test_a_form_that_is_broken_or_full_of_parts_is_refused(
    client: TestClient, house: House, route: str, body: str
) -> None:
    answer = client.post(route, content=body.encode(), headers=FORM)
    assert (answer.status_code, kind(answer)) in [(400, "about:blank"), (422, "invalid-request")]
    assert house.engine.seen == house.leftovers() == []


def test_none_of_several_samples_is_taken_from_a_form_that_was_cut_off(client: TestClient, house: House) -> None:
    address = client.post("/v1/people", json={"name": "Ada"}).headers["location"]
    answer = client.post(f"{address}/samples", content=(FILE + FILE)[:-8].encode(), headers=FORM)
    assert answer.status_code == 400
    assert client.get(address).json()["faces"] == 0 and house.leftovers() == []


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "/etc/passwd", "C:\\\\boot.ini", "a/../../b", "con%00.mp4", "."]
)
def test_a_path_in_a_file_name_leads_nowhere(client: TestClient, house: House, name: str) -> None:
    body = part(f'name="file"; filename="{name}"') + END
    assert client.post("/v1/who", content=body.encode(), headers=FORM).status_code == 200
    (seen,) = house.engine.seen
    assert seen.is_relative_to(house.uploads) and ".." not in seen.parts
    assert house.leftovers() == []


def test_files_of_one_name_are_told_apart_whatever_they_are_called(client: TestClient) -> None:
    names = ["a (2)", "a", "a", "a"]
    parts = [("probe", ("p", b"probe")), *(("candidate", (name, name.encode())) for name in names)]
    shown = [one["path"] for one in client.post("/v1/match", files=parts).json()["candidates"]]
    assert len(set(shown)) == 4 and shown[0] == "a (2)" and shown[1] == "a"


def test_more_uploads_than_there_is_room_for_are_refused_and_then_taken_again(house: House) -> None:
    app = BodyCap(create_app(house.services, house.limits), 20_000, 2_000, uploads=1)
    house.engine.go_on.clear()
    with serving(app) as address:
        first = threading.Thread(target=lambda: httpx.post(f"{address}/v1/who", files=upload()))
        first.start()
        while not house.engine.seen:
            time.sleep(0.01)
        refused = httpx.post(f"{address}/v1/who", files=upload())
        people = httpx.get(f"{address}/v1/people")
        house.engine.go_on.set()
        first.join(10)
        assert (refused.status_code, kind(refused), refused.headers["retry-after"]) == (503, "no-room", "5")
        assert people.status_code == 200
        assert httpx.post(f"{address}/v1/who", files=upload()).status_code == 200


@pytest.mark.parametrize("route", ["/v1/who", "/v1/search"])
def test_a_disk_that_is_full_is_a_service_without_room(house: House, route: str) -> None:
    limits = Limits(folder=house.uploads)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with TestClient(create_app(house.services, limits), LOCAL, raise_server_exceptions=False) as client:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * 2**20, before[1]))  # no file grows beyond it
        try:
            answer = client.post(route, files=upload(b"x" * 3 * 2**20), data={"want": "face"})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (answer.status_code, kind(answer)) == (503, "no-room")
    assert house.engine.seen == house.leftovers() == []


@pytest.mark.parametrize("route", ["/v1/who", "/v1/search", "/v1/people/Ada/samples"])
def test_a_caller_who_goes_away_in_the_middle_leaves_nothing(house: House, route: str) -> None:
    house.people.create("Ada")
    before = open_files()
    with serving(create_app(house.services, Limits(folder=house.uploads))) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as caller:
            head = f"POST {route} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9000000\r\n"
            head += f"Content-Type: {FORM['content-type']}\r\n\r\n"
            body = FILE[:-2].encode() + b"x" * 3_000_000  # more than is kept in memory
            caller.sendall(head.encode() + body)
            time.sleep(0.2)
        assert httpx.get(f"{address}/healthz").status_code == 200
    assert house.engine.seen == house.leftovers() == []
    assert not [one for one in open_files() if one.endswith("(deleted)") and one not in before]
