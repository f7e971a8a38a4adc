from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from ingest.jobs import FileReport
from ingest.queues import BrokerUnavailable
from ingest.tasks import NewJob
from search.api.app import create_app
from search.api.services import Work
from tests.ingest.small_jobs import small_job
from tests.search.api_house import LOCAL, House, TestClient, job_done, kind, upload

KEY = {"Idempotency-Key": "6f1ed002-ab45-4b0c-9f0a-6a1e1f7f6f52"}
UNKNOWN = "0" * 32
PATIENCE = 60.0


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    house.work.hands.start()
    yield house
    house.work.hands.close()


@pytest.fixture
def client(house: House) -> Iterator[TestClient]:
    with TestClient(create_app(house.services, house.limits), LOCAL, raise_server_exceptions=False) as client:
        yield client


def media(house: House, *names: str) -> Path:
    folder = house.work.roots[0]
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


def ingest(client: TestClient, *paths: object, **more: object) -> Any:
    return client.post("/v1/ingests", json={"paths": [str(path) for path in paths], **more})


def finished(client: TestClient, job: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE
    while (page := client.get(f"/v1/jobs/{job}").json())["finished"] is None:
        assert time.monotonic() < deadline, page
        time.sleep(0.01)
    return dict(page)


@pytest.fixture
def job(client: TestClient, house: House) -> str:
    """A finished job: three files read or known, two failed."""
    folder = media(house, "a.wav", "b.mp4", "bad.mp4", "bad.wav", "known.wav", "notes.txt")
    return str(finished(client, ingest(client, folder, archive="films").json()["job"])["job"])


# ---- asking -------------------------------------------------------------------------------------


def test_an_ingest_is_taken_and_done(client: TestClient, house: House) -> None:
    folder = media(house, "a.wav", "bad.mp4")
    answer = ingest(client, folder, archive="films", priority=3)
    told = answer.json()
    assert answer.status_code == 202 and answer.headers["location"] == f"/v1/jobs/{told['job']}"
    assert (told["state"], told["kind"], told["archive"], told["priority"]) == ("queued", "ingest", "films", 3)
    assert told["asked"] == {"paths": [str(folder)], "within": [str(folder)]}
    page = finished(client, told["job"])
    assert page["counts"] == {"done": 1, "failed": 1, "waiting": 0, "running": 0, "unchanged": 0, "cancelled": 0}
    assert page["state"] == "done" and page["first_errors"][0]["reason"] == "is no medium"
    assert page == asdict(house.work.pages.page(told["job"]))


@pytest.mark.parametrize("path", ["..", "/etc/hosts", "media/../../x", "relative.wav", "/\0", "link"])
def test_a_path_outside_of_the_roots_is_refused_and_nothing_is_told_of_it(
    client: TestClient, house: House, path: str
) -> None:
    folder = media(house, "a.wav")
    (folder / "link").symlink_to(folder.parent)
    asked = {"..": folder / "..", "link": folder / "link"}.get(path, path)
    answers = [ingest(client, folder / "a.wav", asked), ingest(client, "/nowhere/at/all")]
    assert [kind(answer) for answer in answers] == ["path-refused"] * 2
    assert all("VISAVOX_MEDIA_ROOTS" in answer.json()["detail"] for answer in answers)
    assert "exist" not in answers[0].text + answers[1].text and client.get("/v1/jobs").json() == {"jobs": []}


def test_without_roots_every_path_is_refused_with_the_setting_to_set(house: House) -> None:
    services = replace(house.services, work=replace(house.work, roots=()))
    with TestClient(create_app(services, house.limits), LOCAL) as client:
        answer = ingest(client, media(house, "a.wav"))
    assert kind(answer) == "path-refused" and "VISAVOX_MEDIA_ROOTS" in answer.json()["detail"]


def test_what_is_missing_inside_a_root_is_told_by_the_job(client: TestClient, house: House) -> None:
    page = finished(client, ingest(client, media(house) / "gone").json()["job"])
    assert page["result"]["failed"] == [
        {"path": f"{house.work.roots[0]}/gone", "reason": "there is no such file or folder"}
    ]


@pytest.mark.parametrize(
    "body", [{}, {"paths": []}, {"paths": [""]}, {"paths": ["/a"], "priority": 101}, {"paths": ["/a"], "archive": " "}]
)
def test_a_body_that_is_none_is_a_problem_of_the_request(client: TestClient, body: dict[str, object]) -> None:
    assert kind(client.post("/v1/ingests", json=body)) == "invalid-request"


def test_one_key_is_one_job(client: TestClient, house: House) -> None:
    body = {"paths": [str(media(house, "a.wav"))]}
    first, second = (client.post("/v1/ingests", json=body, headers=KEY) for _ in range(2))
    assert first.status_code == second.status_code == 202 and second.headers["idempotency-replayed"] == "true"
    assert first.json() == second.json() and second.headers["location"] == first.headers["location"]
    assert len(client.get("/v1/jobs").json()["jobs"]) == 1
    assert kind(client.post("/v1/ingests", json=body | {"priority": 1}, headers=KEY)) == "idempotency-mismatch"


def test_a_broker_that_is_away_takes_nothing_and_says_to_come_again(house: House) -> None:
    class Away:
        def submit(self, _job: NewJob) -> str:
            raise BrokerUnavailable("the broker redis://127.0.0.1:1/0 does not answer")

        def wake(self) -> None:
            raise AssertionError

    services = replace(house.services, work=Work(house.work.book, Away(), house.work.roots))
    with TestClient(create_app(services, house.limits), LOCAL) as client:
        answer = client.post("/v1/ingests", json={"paths": [str(media(house))]}, headers=KEY)
    assert (kind(answer), answer.headers["retry-after"]) == ("broker-unavailable", "5")


# ---- looking ------------------------------------------------------------------------------------


def test_jobs_are_listed_the_newest_first(client: TestClient, house: House, job: str) -> None:
    paused = house.work.book.open_job(small_job("later"))
    house.work.book.pause(paused)
    assert [one["job"] for one in client.get("/v1/jobs").json()["jobs"]] == [paused, job]
    assert [one["job"] for one in client.get("/v1/jobs", params={"unfinished": True}).json()["jobs"]] == [paused]
    assert len(client.get("/v1/jobs", params={"limit": 1}).json()["jobs"]) == 1


def test_files_come_in_pages_and_by_state(client: TestClient, job: str) -> None:
    address, seen, after = f"/v1/jobs/{job}/files", [], 0
    while after is not None:
        told = client.get(address, params={"after": after, "limit": 2}).json()
        seen += [Path(file["path"]).name for file in told["files"]]
        assert len(told["files"]) <= 2
        after = told["next"]
    assert seen == ["a.wav", "b.mp4", "bad.mp4", "bad.wav", "known.wav"]
    failed = client.get(address, params={"state": ["failed", "unchanged"]}).json()
    assert [file["state"] for file in failed["files"]] == ["failed", "failed", "unchanged"] and failed["next"] is None
    assert failed["files"][0]["reason"] == "is no medium" and failed["files"][2]["report"]["faces"] == 2
    exact = client.get(address, params={"limit": 5}).json()
    assert len(exact["files"]) == 5 and exact["next"] is None
    assert kind(client.get(address, params={"state": "lost"})) == "invalid-request"


@pytest.mark.parametrize("identity", [UNKNOWN, "1" * 31, "%00", "x" * 200, "é"])
def test_an_unknown_job_is_a_problem(client: TestClient, identity: str) -> None:
    answers = [client.get(f"/v1/jobs/{identity}{what}") for what in ("", "/files", "/events")]
    assert [kind(answer) for answer in answers] == ["unknown-job"] * 3


def test_long_questions_keep_their_answer_and_cannot_be_changed(client: TestClient, house: House) -> None:
    address = client.post("/v1/who", files=upload(b"film of 90 s")).headers["location"]
    told = job_done(client, address)
    assert told.keys() == {"job", "state", "result", "error"}
    assert told["result"] == asdict(house.engine.who(house.evidence))
    assert kind(client.post(f"{address}/cancel")) == "unknown-job"


# ---- changing -----------------------------------------------------------------------------------


def test_the_failed_are_tried_again_and_no_other(client: TestClient, house: House, job: str) -> None:
    read = len(house.reader.read)
    house.reader.ingest_file = good  # type: ignore[method-assign]
    assert client.post(f"/v1/jobs/{job}/retry").json() == {"again": 2}
    assert finished(client, job)["counts"] == {
        "done": 4, "unchanged": 1, "failed": 0, "waiting": 0, "running": 0, "cancelled": 0
    }  # fmt: skip
    assert len(house.reader.read) == read and client.post(f"/v1/jobs/{job}/retry").json() == {"again": 0}


def good(path: Path, archive: str, check: Callable[[], None], extract: object) -> FileReport:
    check()
    return FileReport(str(path), "done", "b" * 64, 0, 0, 1.0, None)


def test_a_job_of_another_kind_cannot_be_tried_again_file_by_file(client: TestClient, house: House) -> None:
    other = house.work.book.open_job(NewJob("evaluate"))
    assert kind(client.post(f"/v1/jobs/{other}/retry")) == "job-unrepeatable"


def test_a_job_can_be_paused_gone_on_with_and_cancelled(client: TestClient, house: House) -> None:
    reading, go_on = threading.Event(), threading.Event()

    def slow(_check: Callable[[], None]) -> None:
        reading.set()
        go_on.wait(PATIENCE)

    house.reader.orders["a.wav"] = slow
    job = ingest(client, media(house, "a.wav", "b.wav", "c.wav")).json()["job"]
    assert reading.wait(PATIENCE)
    assert client.post(f"/v1/jobs/{job}/pause").json()["state"] == "paused"
    assert kind(client.delete(f"/v1/jobs/{job}")) == "job-unfinished"
    go_on.set()
    while client.get(f"/v1/jobs/{job}").json()["counts"]["done"] == 0:
        time.sleep(0.01)
    assert client.get(f"/v1/jobs/{job}").json()["counts"]["waiting"] == 2
    house.reader.orders["b.wav"] = lambda check: (client.post(f"/v1/jobs/{job}/cancel"), check())[1]
    assert client.post(f"/v1/jobs/{job}/resume").status_code == 200
    page = finished(client, job)
    assert page["state"] == "cancelled" and page["counts"]["cancelled"] == 2 and page["counts"]["done"] == 1
    assert client.delete(f"/v1/jobs/{job}").json() == {"forgotten": job}
    assert kind(client.get(f"/v1/jobs/{job}")) == "unknown-job"


def test_what_is_not_known_cannot_be_changed(client: TestClient) -> None:
    changes = [client.post(f"/v1/jobs/{UNKNOWN}/{what}") for what in ("cancel", "pause", "resume", "retry")]
    assert {kind(answer) for answer in (*changes, client.delete(f"/v1/jobs/{UNKNOWN}"))} == {"unknown-job"}


def test_what_a_command_did_is_tried_again_by_the_server(client: TestClient, house: House) -> None:
    mine = house.work.book.open_job(replace(small_job("a"), asked={"here": True}))
    house.work.book.cancel(mine)
    assert client.post(f"/v1/jobs/{mine}/retry").json() == {"again": 1}
    assert finished(client, mine)["counts"]["done"] == 1


# ---- what happens -------------------------------------------------------------------------------


def test_events_of_a_finished_job_are_its_page_and_the_end(client: TestClient, job: str) -> None:
    answer = client.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": "7"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    page, end, rest = answer.text.split("\n\n")
    assert page.startswith("event: page\ndata: {") and f'"job": "{job}"' in page
    assert end == f'event: end\ndata: {{"job": "{job}", "state": "done"}}' and rest == ""


def test_an_evaluation_is_taken_as_a_job_of_its_own_kind(client: TestClient, house: House) -> None:
    answer = client.post("/v1/evaluations", json={"on": "enrolled"}, headers=KEY)
    told = answer.json()
    assert answer.status_code == 202 and answer.headers["location"] == f"/v1/jobs/{told['job']}"
    assert told["kind"] == "evaluate" and told["asked"]["on"] == "enrolled" and told["files"] == 0
    assert client.post("/v1/evaluations", json={"on": "enrolled"}, headers=KEY).json() == told
    assert client.get("/v1/jobs").json()["jobs"][0]["job"] == told["job"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"on": "people"},
        {"on": "enrolled", "model": "some"},
        {"on": "population", "model": "../x"},
        {"on": "population", "compare": "../x"},
        {"on": "enrolled", "compare": "some"},
        {"on": "protocol"},
        {"on": "population", "lists": {"folder": "/m", "media": "/m"}},
        {"on": "protocol", "lists": {"folder": "/m"}},
        {"on": "protocol", "lists": {"folder": "/m", "embeddings": "/m/v.npz", "compare": "name"}},
        {"on": "protocol", "lists": {"folder": "/m", "media": "/m", "compare": "../name"}},
    ],
)
def test_an_evaluation_that_means_nothing_is_refused(client: TestClient, body: dict[str, Any]) -> None:
    assert kind(client.post("/v1/evaluations", json=body)) == "invalid-request"


def test_an_evaluation_of_two_models_on_invented_people_is_taken(client: TestClient) -> None:
    told = client.post("/v1/evaluations", json={"on": "population", "model": "one", "compare": "two"}).json()
    assert (told["asked"]["model"], told["asked"]["compare"]) == ("one", "two")


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({"on": "enrolled", "compare": "some"}, "compare"),
        ({"on": "enrolled", "model": "some"}, "model"),
        ({"on": "protocol"}, "lists"),
    ],
)
def test_what_does_not_fit_is_called_by_its_place(client: TestClient, body: dict[str, Any], wrong: str) -> None:
    assert client.post("/v1/evaluations", json=body).json()["errors"][0]["where"] == f"body.{wrong}"


def test_an_evaluation_on_lists_within_the_roots_is_taken_and_says_where_it_may_read(
    client: TestClient, house: House
) -> None:
    folder = media(house, "v.npz")
    lists = {"folder": str(folder / "lists"), "embeddings": str(folder / "v.npz"), "intervals": False}
    told = client.post("/v1/evaluations", json={"on": "protocol", "lists": lists}).json()
    assert told["kind"] == "evaluate" and told["asked"]["lists"]["within"] == [str(folder)]
    assert told["asked"]["lists"].items() >= lists.items() and not told["asked"]["lists"]["through_index"]


@pytest.mark.parametrize("part", ["folder", "media", "embeddings", "compare"])
def test_an_evaluation_that_would_read_outside_of_the_roots_is_refused(
    client: TestClient, house: House, part: str
) -> None:
    folder = media(house)
    (folder / "link").symlink_to(folder.parent)
    paths = {"folder": folder / "lists", ("media" if part == "media" else "embeddings"): folder / "v.npz"}
    for outside in ("/etc/hosts.npz", "v.npz", folder / "link" / "v.npz"):
        lists = {name: str(path) for name, path in (paths | {part: outside}).items()}
        assert kind(client.post("/v1/evaluations", json={"on": "protocol", "lists": lists})) == "path-refused"
    assert client.get("/v1/jobs").json() == {"jobs": []}
