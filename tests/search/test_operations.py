"""Request ids, one line of log for each request, meters, the gate, and refusals while the service stops."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingest.ledger import RecordsError, open_database
from search.access import Keys, Role
from search.api.app import create_app
from search.api.gate import needed
from search.api.meters import Held, Meters
from search.api.operations import LOGGER, Drain, Operation, request_id, traceback_of
from tests.search.api_house import FILM, LOCAL, House, TestClient, kind, upload

SECRET_NAME = "Ada Lovelace"


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.fixture
def operation() -> Operation:
    return Operation(Meters("1.2.3"), Drain())


@pytest.fixture
def client(house: House, operation: Operation) -> Iterator[TestClient]:
    app = create_app(house.services, house.limits, operation=operation)
    with TestClient(app, LOCAL, raise_server_exceptions=False) as client:
        yield client


class Kept(logging.Handler):
    """Keeps what is logged of requests."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        assert isinstance(record.msg, dict)
        self.lines.append(record.msg)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[dict[str, Any]]]:
    """What is logged of requests from here on."""
    caplog.set_level(logging.INFO, LOGGER)
    logging.getLogger(LOGGER).addHandler(kept := Kept())
    yield kept.lines
    logging.getLogger(LOGGER).removeHandler(kept)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(open_database(f"sqlite:///{tmp_path / 'keys.sqlite'}"))


@pytest.fixture
def guarded(house: House, keys: Keys) -> Iterator[TestClient]:
    with TestClient(create_app(house.services, house.limits, keys=keys), LOCAL) as client:
        yield client


def bearing(keys: Keys, role: Role) -> dict[str, str]:
    return {"Authorization": f"Bearer {keys.create('a test', role)[1]}"}


def number(client: TestClient, name: str) -> float | None:
    """A meter's number by its name with labels, or None if it is not there."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else None


# ---- request ids and logs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["a", "trace-1.2_3", "x" * 64])
def test_a_harmless_request_id_is_kept(client: TestClient, given: str) -> None:
    assert client.get("/healthz", headers={"X-Request-ID": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\tb", '{"a":1}', "ä"])
def test_any_other_is_replaced(client: TestClient, given: str) -> None:
    answered = client.get("/healthz", headers={"X-Request-ID": given.encode()}).headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{32}", answered)


def test_every_answer_has_an_id_also_refusals_and_defects(client: TestClient) -> None:
    answers = [
        client.get("/nothing"),
        client.get("/healthz", headers={"Host": "evil.example"}),
        client.post("/v1/who", files=upload(b"bug")),
        client.post("/v1/who", files=upload(b"x" * 30_000)),
    ]
    assert [one.status_code for one in answers] == [404, 421, 500, 413]
    assert len({one.headers["x-request-id"] for one in answers}) == 4


def test_threads_that_work_for_a_request_know_its_id(client: TestClient, house: House) -> None:
    seen: list[str | None] = []
    plain = house.engine._read
    house.engine._read = lambda path: (seen.append(request_id.get()), plain(path))[1]  # type: ignore[method-assign]
    client.post("/v1/who", files=upload(), headers={"X-Request-ID": "mine"})
    assert seen == ["mine"] and request_id.get() is None


def test_a_line_tells_the_template_of_the_route_and_nothing_of_whom_it_is_about(
    client: TestClient, lines: list[dict[str, Any]]
) -> None:
    identity = client.post("/v1/people", json={"name": SECRET_NAME}).json()["id"]
    client.get(f"/v1/people/{SECRET_NAME}", headers={"X-Request-ID": "mine"})
    client.get("/v1/people/Nobody?limit=Nobody")
    client.post(f"/v1/people/{identity}/samples", files=upload(name="ada.mp4"))
    assert [line["route"] for line in lines] == [
        "/v1/people", "/v1/people/{person}", "/v1/people/{person}", "/v1/people/{person}/samples",
    ]  # fmt: skip
    assert [line["status"] for line in lines] == [201, 200, 404, 200]
    for secret in (SECRET_NAME, "Lovelace", "Nobody", "ada.mp4", identity):
        assert secret not in str(lines)
    assert lines[1]["request_id"] == "mine" and lines[2]["problem"] == "unknown-person"


def test_a_line_tells_what_was_weighed_and_how_long_it_took(client: TestClient, lines: list[dict[str, Any]]) -> None:
    answer = client.post("/v1/who", files=upload())
    (line,) = lines
    assert line["bytes_out"] == len(answer.content) and line["bytes_in"] == int(
        answer.request.headers["content-length"]
    )
    assert 0 < line["seconds"] < 10 and line["method"] == "POST" and line["key"] is None


def test_a_defect_is_logged_with_where_it_arose_and_without_what_it_says(
    client: TestClient, lines: list[dict[str, Any]]
) -> None:
    assert kind(client.post("/v1/who", files=upload(b"bug"))) == "internal"
    (line,) = lines
    assert line["error"] == "ZeroDivisionError" and "in _read" in line["traceback"]
    assert "secret internals" not in line["traceback"].replace('raise ZeroDivisionError("secret internals")', "")


def test_a_traceback_tells_causes_but_no_values() -> None:
    def inner(person: str) -> None:
        raise KeyError(person)

    try:
        try:
            inner("Ada")
        except KeyError as error:
            raise RuntimeError("about Ada") from error
    except RuntimeError as error:
        told = traceback_of(error)
    assert told.index("KeyError") < told.rindex("RuntimeError") and "in inner" in told
    assert told.endswith("RuntimeError") and "person = " not in told


# ---- meters -----------------------------------------------------------------------------------------------------


def test_requests_are_counted_by_route_method_and_status(client: TestClient) -> None:
    for name in ("Ada", "Ben"):
        client.get(f"/v1/people/{name}")
    client.get("/v1/nothing/Ada")
    client.request("BREW", "/healthz")
    assert number(client, 'visavox_requests_total{method="GET",route="/v1/people/{person}",status="404"}') == 2
    assert number(client, 'visavox_requests_total{method="GET",route="unmatched",status="404"}') == 1
    assert number(client, 'visavox_request_seconds_count{method="GET",route="/v1/people/{person}"}') == 2
    text = client.get("/metrics").text
    assert "Ada" not in text and "BREW" not in text and 'version="1.2.3"' in text


def test_running_requests_are_those_being_answered(client: TestClient, house: House) -> None:
    house.engine.go_on.clear()
    asking = threading.Thread(target=lambda: client.post("/v1/who", files=upload()))
    asking.start()
    while not house.engine.at_work:
        time.sleep(0.01)
    assert number(client, "visavox_requests_running") == 2  # the question, and this very scrape
    house.engine.go_on.set()
    asking.join()
    assert number(client, "visavox_requests_running") == 1


def test_stages_are_measured_and_their_names_stay_few(house: House) -> None:
    meters = Meters()
    app = create_app(replace(house.services, observe=meters.observe), house.limits, operation=Operation(meters))
    with TestClient(app, LOCAL) as client:
        client.post("/v1/who", files=upload())
        assert number(client, 'visavox_stage_seconds_count{stage="queue"}') == 1
        for one in range(100):
            meters.observe(f"stage {one}", 0.1)
        stages = set(re.findall(r'stage_seconds_count{stage="([^"]+)"}', client.get("/metrics").text))
    assert len(stages) <= 31 and "other" in stages


def scraped(house: House, held: Any) -> TestClient:
    operation = Operation(Meters("1", held))
    return TestClient(create_app(house.services, house.limits, operation=operation), LOCAL)


def test_what_is_held_is_counted_once_for_several_scrapes(house: House) -> None:
    asked: list[int] = []

    def held() -> Held:
        asked.append(1)
        return Held({"face_identity": 7}, 3, 1, 2)

    with scraped(house, held) as client:
        for _ in range(5):
            assert number(client, 'visavox_rows{space="face_identity"}') == 7
        assert (number(client, "visavox_people"), number(client, "visavox_failed_files")) == (2, 1)
    assert len(asked) == 1


def test_a_scrape_does_not_fail_or_wait_long_because_the_index_does(house: House) -> None:
    def broken() -> Held:
        raise RecordsError("gone")

    with scraped(house, broken) as client:
        assert client.get("/metrics").status_code == 200 and number(client, "visavox_people") is None
    go_on = threading.Event()

    def stuck() -> Held:
        go_on.wait(20)
        return Held({}, 0, 0, 0)

    with scraped(house, stuck) as client:
        began = time.monotonic()
        assert number(client, "visavox_people") is None and time.monotonic() - began < 4
        go_on.set()


def test_what_the_index_does_not_tell_is_missing_and_the_rest_is_there(house: House) -> None:
    with scraped(house, lambda: Held(None, 3, 0, 2)) as client:
        assert number(client, "visavox_media") == 3 and "visavox_rows" not in client.get("/metrics").text


def test_two_applications_count_for_themselves(house: House) -> None:
    with TestClient(create_app(house.services), LOCAL) as one, TestClient(create_app(house.services), LOCAL) as other:
        one.get("/healthz")
        name = 'visavox_requests_total{method="GET",route="/healthz",status="200"}'
        assert number(one, name) == 1 and number(other, name) is None


# ---- the gate ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/readyz", "/v1/people", "/metrics", "/docs", "/openapi.json", "/nothing"])
def test_without_a_key_only_the_health_of_the_process_is_told(guarded: TestClient, path: str) -> None:
    refused = guarded.get(path)
    assert kind(refused) == "unauthenticated" and refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Bearer")
    assert guarded.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer vvx_0", f"Bearer vvx_{'0' * 12}_{'0' * 64}"]
)
def test_what_is_no_key_is_refused(guarded: TestClient, header: str) -> None:
    assert guarded.get("/v1/people", headers={"Authorization": header}).status_code == 401


@pytest.mark.parametrize(
    ("role", "statuses"),
    [(Role.READER, [200, 200, 403, 403]), (Role.EDITOR, [200, 200, 201, 403]), (Role.ADMIN, [200, 200, 201, 200])],
)
def test_roles_reach_as_far_as_they_say(guarded: TestClient, keys: Keys, role: Role, statuses: list[int]) -> None:
    guarded.headers.update(bearing(keys, role))
    asked = [
        guarded.get("/v1/people"),
        guarded.post("/v1/who", files=upload()),
        guarded.post("/v1/people", json={"name": "Ada"}),
        guarded.get("/metrics"),
    ]
    assert [one.status_code for one in asked] == statuses


def test_whatever_is_not_listed_needs_an_administrator() -> None:
    assert needed("POST", "/v1/evaluations") is needed("PUT", "/v1/who") is needed("GET", "/metrics/") is Role.ADMIN
    assert needed("DELETE", "/v1/people/Ada") is needed("POST", "/v1/people/x/samples") is Role.EDITOR
    assert needed("POST", "/v1/ingests") is needed("POST", "/v1/jobs/x/cancel") is Role.EDITOR
    assert needed("DELETE", "/v1/jobs/x") is Role.EDITOR and needed("GET", "/v1/jobs/x/events") is Role.READER
    assert needed("POST", "/v1/peoples") is Role.ADMIN


def test_a_key_that_is_not_known_waits_and_is_logged_without_its_secret(
    guarded: TestClient, lines: list[dict[str, Any]]
) -> None:
    began, secret = time.monotonic(), f"vvx_{'0' * 12}_{'a' * 64}"
    guarded.get("/v1/people", headers={"Authorization": f"Bearer {secret}"})
    assert time.monotonic() - began >= 0.5
    assert lines[0]["refused"] and lines[0]["status"] == 401 and "a" * 64 not in str(lines)


def test_a_key_is_logged_by_its_id(guarded: TestClient, keys: Keys, lines: list[dict[str, Any]]) -> None:
    guarded.get("/v1/people", headers=bearing(keys, Role.READER))
    assert lines[0]["key"] == keys.all()[0].id


def test_nothing_of_a_body_is_read_before_the_key(house: House, keys: Keys) -> None:
    app = create_app(house.services, house.limits, keys=keys)
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body was read")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/who", "headers": [(b"host", b"localhost")], "query_string": b"",
        "server": ("localhost", 80), "scheme": "http", "root_path": "",
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 401


def test_a_good_key_does_not_open_other_hosts_or_other_sites(guarded: TestClient, keys: Keys) -> None:
    good = bearing(keys, Role.ADMIN)
    assert kind(guarded.get("/v1/people", headers=good | {"Host": "evil.example"})) == "host-refused"
    foreign = guarded.post("/v1/people", json={"name": "Ada"}, headers=good | {"Origin": "https://evil.example"})
    assert kind(foreign) == "cross-site"


def test_names_that_were_given_are_answered_under(house: House, keys: Keys) -> None:
    app = create_app(house.services, house.limits, {"films.example"}, keys)
    with TestClient(app, "http://films.example:8000") as client:
        assert client.get("/v1/people", headers=bearing(keys, Role.READER)).status_code == 200


def test_on_loopback_the_first_key_closes_the_door(house: House, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.api.gate.FIRST_KEY_SECONDS", 0.0)
    operation = Operation(open_without_keys=True)
    with TestClient(create_app(house.services, keys=keys, operation=operation), LOCAL) as client:
        assert client.get("/v1/people").status_code == 200
        good = bearing(keys, Role.READER)
        assert client.get("/v1/people").status_code == 401
        assert client.get("/v1/people", headers=good).status_code == 200
        keys.revoke(keys.all()[0].id)
        assert client.get("/v1/people").status_code == 401


def test_records_that_are_gone_let_nobody_in_and_tell_strangers_nothing(house: House, keys: Keys) -> None:
    secret = bearing(keys, Role.READER)
    keys._database.dispose()
    for path in list(Path(str(keys._database.url.database)).parent.glob("keys.sqlite*")):
        path.unlink()
    with TestClient(create_app(house.services, keys=keys), LOCAL) as client:
        refused = client.get("/v1/people", headers=secret)
    assert kind(refused) == "records-unusable" and "sqlite" not in refused.text


def test_the_description_says_that_a_key_is_needed(house: House, keys: Keys) -> None:
    described = create_app(house.services, keys=keys).openapi()
    assert described["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert described["security"] == [{"key": []}] and described["paths"]["/healthz"]["get"]["security"] == []
    assert {"401", "403"} <= set(described["paths"]["/v1/who"]["post"]["responses"])
    assert "security" not in create_app(house.services).openapi()


# ---- stopping ---------------------------------------------------------------------------------------------------


def test_while_it_stops_new_requests_are_sent_away_and_old_ones_answered(
    client: TestClient, house: House, operation: Operation
) -> None:
    house.engine.go_on.clear()
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(client.post("/v1/who", files=upload(FILM))))
    asking.start()
    while not house.engine.at_work:
        time.sleep(0.01)
    operation.drain.begin()
    refused = client.get("/readyz")
    assert kind(refused) == "not-ready" and refused.headers["connection"] == "close"
    assert client.get("/healthz").status_code == 200 and operation.drain.running == 1
    house.engine.go_on.set()
    asking.join()
    assert answers[0].status_code == 200 and operation.drain.running == 0
