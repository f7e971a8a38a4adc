"""People over HTTP: versions, pages, merging, and writes that are sent twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from ingest.jobs import JobBoard
from ingest.ledger import RecordsError
from search.api.app import create_app
from search.api.once import REPLAYED
from search.api.services import Services
from tests.search.api_house import LOCAL, House, TestClient, kind, upload, work_in
from tests.search.small_world import World, face, turn

KEY = {"Idempotency-Key": "6f1ed002-ab45-4b0c-9f0a-6a1e1f7f6f52"}


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.fixture
def client(house: House) -> Iterator[TestClient]:
    with TestClient(create_app(house.services, house.limits), LOCAL, raise_server_exceptions=False) as client:
        yield client


def enter(client: TestClient, name: str, **headers: str) -> httpx.Response:
    return client.post("/v1/people", json={"name": name}, headers=headers)


# ---- versions ---------------------------------------------------------------------------------


def test_every_change_of_name_or_samples_gives_another_tag(client: TestClient) -> None:
    made = enter(client, "Ada")
    address, tags = made.headers["location"], [made.headers["etag"]]
    tags.append(client.patch(address, json={"name": "Ada L"}).headers["etag"])
    client.post(f"{address}/samples", files=upload())
    tags.append(client.get(address).headers["etag"])
    client.post(f"{address}/samples", files=upload())  # the very same sample
    identity = made.json()["id"]
    assert tags == [f'"{identity}-{version}"' for version in (1, 2, 3)]
    assert client.get(address).headers["etag"] == tags[-1] and client.get(address).json()["version"] == 3


def test_what_the_caller_has_is_not_sent_again(client: TestClient) -> None:
    made = enter(client, "Ada")
    address, tag = made.headers["location"], made.headers["etag"]
    for known in (tag, f'W/{tag}, "x"', "*"):
        answer = client.get(address, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    assert client.get(address, headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("change", ["PATCH", "DELETE", "merge", "samples"])
@pytest.mark.parametrize("tag", ['"of another version"', "W/{tag}", "no tag"])
def test_a_change_of_what_was_changed_meanwhile_is_refused(
    client: TestClient, house: House, change: str, tag: str
) -> None:
    made, other = enter(client, "Ada"), enter(client, "Bob").json()["id"]
    address, condition = made.headers["location"], {"If-Match": tag.format(tag=made.headers["etag"])}
    if change == "samples":
        answer = client.post(f"{address}/samples", files=upload(), headers=condition)
    elif change == "merge":
        answer = client.post(f"{address}/merge", json={"into": other}, headers=condition)
    else:
        answer = client.request(change, address, json={"name": "Eve"}, headers=condition)
    assert (answer.status_code, kind(answer)) == (412, "precondition-failed")
    assert client.get(address).json() == made.json()
    assert house.leftovers() == []


@pytest.mark.parametrize("tag", ["{tag}", "*", '"x", {tag}'])
def test_a_change_of_what_the_caller_knows_is_made(client: TestClient, tag: str) -> None:
    made = enter(client, "Ada")
    condition = {"If-Match": tag.format(tag=made.headers["etag"])}
    assert client.patch(made.headers["location"], json={"name": "Eve"}, headers=condition).status_code == 200
    if tag != "*":
        assert client.delete(made.headers["location"], headers=condition).status_code == 412
    assert client.delete(made.headers["location"]).status_code == 200


@pytest.mark.parametrize("name", ["unknown", " Unknown", "a\u2028b", "\u200b", "x\x85"])
def test_a_name_that_nobody_can_have_is_a_problem_of_the_request(client: TestClient, name: str) -> None:
    assert kind(enter(client, name)) == "name-refused"


# ---- pages ------------------------------------------------------------------------------------


def pages(client: TestClient, limit: int) -> Iterator[list[str]]:
    after: dict[str, str] = {}
    while True:
        page = client.get("/v1/people", params={"limit": limit, **after}).json()
        yield [one["name"] for one in page["people"]]
        if page["next"] is None:
            return
        after = {"after": page["next"]}


def test_pages_hold_everyone_once_and_in_order(client: TestClient) -> None:
    names = [f"Person {number:02}" for number in range(7)]
    for name in reversed(names):
        enter(client, name)
    assert list(pages(client, 3)) == [names[:3], names[3:6], names[6:]]
    assert list(pages(client, 7)) == [names]


def test_whoever_comes_or_goes_between_two_pages_moves_nobody(client: TestClient) -> None:
    for name in "bdfh":
        enter(client, name)
    turning = pages(client, 2)
    assert next(turning) == ["b", "d"]
    enter(client, "a")
    client.delete("/v1/people/d")  # the page after begins where this one was
    assert next(turning) == ["f", "h"]


@pytest.mark.parametrize(
    "after", ["x", "WzFd", "W10=", "bnVsbA==", "WyJhIiwiYiIsImMiXQ==", "é", "WyIAIiwiYSJd", "W" * 1999]
)
def test_a_cursor_that_is_none_is_a_problem_of_the_request(client: TestClient, after: str) -> None:
    answer = client.get("/v1/people", params={"after": after})
    assert kind(answer) == "invalid-request" and "query.after" in answer.text


# ---- merging ----------------------------------------------------------------------------------


class Merged:
    """A small installation with two people who are one, and what it answers."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.ada, self.bob = (self.enrol(name, number) for number, name in enumerate(("Ada", "Bob")))
        self.services = Services(
            self.world.engine, self.world.archive, self.world.records.people, list(self.world.encoders.values()),
            JobBoard(), work_in(folder), evidence=self.world.records.evidence.file, ready=list,
            seconds=lambda _path: 5.0,
        )  # fmt: skip
        self.probe = self.world.file("probe.wav", [], [turn(0, 0, 2)]).read_bytes()

    def enrol(self, name: str, number: int) -> str:
        red, tone = face(((200, 10, 10), (10, 10, 200))[number]), turn(number, 0, 2)
        self.world.archive.enrol(name, [self.world.file(f"{name}.mp4", [red], [tone])])
        return self.world.records.people.find(name).id


def test_merging_renames_every_row_and_frees_the_name(tmp_path: Path) -> None:
    merged = Merged(tmp_path)
    keys = merged.world.keys()
    with TestClient(create_app(merged.services), LOCAL) as client:
        whole = client.post("/v1/people/Ada/merge", json={"into": "Bob"})
        answer = client.post("/v1/search", files={"file": merged.probe}, data={"want": "voice"}).json()
        assert kind(client.get(f"/v1/people/{merged.ada}")) == "unknown-person"
        assert enter(client, "Ada").status_code == 201
    assert (whole.json()["id"], whole.json()["faces"], whole.json()["voices"]) == (merged.bob, 2, 2)
    assert answer["hits"][0]["person"] == "Bob" and answer["hits"][0]["score"] > 0.99
    assert merged.world.keys() == keys and merged.world.archive.mend() == 0
    assert merged.world.records.people.merging() == []


def test_merging_that_was_interrupted_is_finished_by_asking_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = Merged(tmp_path)
    store, upsert = merged.world.store, merged.world.store.upsert
    monkeypatch.setattr(store, "upsert", lambda *_rows: (_ for _ in ()).throw(RecordsError("cut off")))
    with TestClient(create_app(merged.services), LOCAL, raise_server_exceptions=False) as client:
        assert client.post("/v1/people/Ada/merge", json={"into": "Bob"}).status_code == 503
        monkeypatch.setattr(store, "upsert", upsert)
        again = client.post(f"/v1/people/{merged.ada}/merge", json={"into": "Bob"})
    assert (again.json()["id"], again.json()["voices"]) == (merged.bob, 2)
    assert merged.world.archive.mend() == 0 and merged.world.records.people.merging() == []


def test_nobody_is_merged_into_themselves_or_into_nobody(client: TestClient) -> None:
    identity = enter(client, "Ada").json()["id"]
    assert kind(client.post(f"/v1/people/{identity}/merge", json={"into": "Ada"})) == "same-person"
    assert kind(client.post(f"/v1/people/{identity}/merge", json={"into": "Eve"})) == "unknown-person"
    assert client.get("/v1/people/Ada").status_code == 200


# ---- writes that are sent twice ---------------------------------------------------------------


def test_a_person_entered_twice_with_one_key_is_entered_once(client: TestClient, house: House) -> None:
    first, second = enter(client, "Ada", **KEY), enter(client, "Ada", **KEY)
    assert (second.status_code, second.json(), second.headers[REPLAYED]) == (201, first.json(), "true")
    assert [second.headers[name] for name in ("location", "etag")] == [
        first.headers[name] for name in ("location", "etag")
    ]
    assert REPLAYED not in first.headers and len(house.people.everyone()) == 1


def test_samples_sent_twice_with_one_key_are_read_once_whatever_marks_their_borders(
    client: TestClient, house: House
) -> None:
    address = enter(client, "Ada").headers["location"]
    answers = [client.post(f"{address}/samples", files=upload(), headers=KEY) for _ in range(2)]
    assert answers[0].request.headers["content-type"] != answers[1].request.headers["content-type"]
    assert answers[1].json() == answers[0].json() and answers[1].headers[REPLAYED] == "true"
    assert len(house.engine.seen) == 1 and house.leftovers() == []


def test_a_key_is_for_one_request(client: TestClient) -> None:
    address = enter(client, "Ada", **KEY).headers["location"]
    assert kind(enter(client, "Bob", **KEY)) == "idempotency-mismatch"
    assert kind(client.post(f"{address}/samples", files=upload(), headers=KEY)) == "idempotency-mismatch"
    other = {"Idempotency-Key": "another"}
    client.post(f"{address}/samples", files=upload(), headers=other)
    changed = client.post(f"{address}/samples", files=upload(b"another film"), headers=other)
    assert kind(changed) == "idempotency-mismatch"


def test_what_failed_with_a_key_may_be_sent_again(client: TestClient, house: House) -> None:
    enter(client, "Ada")
    assert kind(enter(client, "Ada", **KEY)) == "name-taken"
    client.delete("/v1/people/Ada")
    again = enter(client, "Ada", **KEY)
    assert again.status_code == 201 and REPLAYED not in again.headers
    assert len(house.people.everyone()) == 1


def test_concurrent_twins_of_one_key_are_done_once(client: TestClient, house: House) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _number: enter(client, "Ada", **KEY), range(8)))
    codes = [answer.status_code for answer in answers]
    assert set(codes) <= {201, 409} and codes.count(201) >= 1
    assert [kind(answer) for answer in answers if answer.status_code == 409] == ["in-progress"] * codes.count(409)
    assert sum(REPLAYED not in answer.headers for answer in answers if answer.status_code == 201) == 1
    assert len(house.people.everyone()) == 1


def test_a_twin_that_comes_while_the_first_is_at_work_is_told_to_wait(client: TestClient, house: House) -> None:
    address = enter(client, "Ada").headers["location"]
    house.engine.go_on.clear()
    first = threading.Thread(target=lambda: client.post(f"{address}/samples", files=upload(), headers=KEY))
    first.start()
    while not house.engine.seen:
        pass
    twin = client.post(f"{address}/samples", files=upload(), headers=KEY)
    house.engine.go_on.set()
    first.join(10)
    assert (twin.status_code, kind(twin), twin.headers["retry-after"]) == (409, "in-progress", "5")
    assert client.post(f"{address}/samples", files=upload(), headers=KEY).headers[REPLAYED] == "true"
    assert len(house.engine.seen) == 1


def test_two_callers_may_choose_the_same_key(client: TestClient) -> None:
    assert enter(client, "Ada", Authorization="Bearer one", **KEY).status_code == 201
    other = enter(client, "Bob", Authorization="Bearer two", **KEY)
    assert other.status_code == 201 and REPLAYED not in other.headers


def test_a_person_who_was_forgotten_does_not_come_back_by_a_request_that_is_sent_again(
    client: TestClient, house: House
) -> None:
    made = enter(client, "Ada", **KEY)
    client.delete(made.headers["location"])
    again = enter(client, "Ada", **KEY)
    assert (again.status_code, kind(again)) == (410, "forgotten-since")
    assert house.people.everyone() == []


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "é"])
def test_a_key_is_a_short_line_without_blanks(client: TestClient, key: str) -> None:
    answer = client.post("/v1/people", json={"name": "Ada"}, headers={"Idempotency-Key": key.encode()})  # type: ignore[dict-item]
    assert kind(answer) == "invalid-request"
