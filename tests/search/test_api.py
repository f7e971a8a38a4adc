from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from encoders.space import Embedding, Modality
from ingest.jobs import JobBoard
from ingest.ledger import RecordsError
from ingest.track import Span
from search.answers import FindAnswer, ForgetAnswer, VerifyAnswer
from search.api.app import create_app
from search.api.problems import KINDS, MEDIA_TYPE, TYPES
from search.api.routes import MOST_EXCLUDED, FileSearch
from search.api.services import Services
from search.api.uploads import PREFIX, label, sweep
from search.store import Filter, StoreUnavailable
from tests.search.api_house import (
    FILM,
    HIT,
    LOCAL,
    SPACE,
    House,
    PlainEngine,
    TestClient,
    job_done,
    kind,
    upload,
    work_in,
)
from tests.search.small_world import ColoursAndTones, World, face, turn


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.fixture
def client(house: House) -> Iterator[TestClient]:
    with TestClient(create_app(house.services, house.limits), LOCAL, raise_server_exceptions=False) as client:
        yield client


def test_who_answers_short_media_at_once_with_the_commands_json(client: TestClient, house: House) -> None:
    response = client.post("/v1/who", files=upload())
    assert response.status_code == 200
    assert response.json() == asdict(house.engine.who(house.evidence))
    assert house.leftovers() == []


def test_who_makes_a_job_of_long_media(client: TestClient, house: House) -> None:
    response = client.post("/v1/who", files=upload(b"film of 90 s"))
    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/jobs/{response.json()['job']}"
    job = job_done(client, response.headers["location"])
    assert job["state"] == "done"
    assert job["result"] == asdict(house.engine.who(house.evidence))
    assert house.is_emptied()


def test_a_job_that_fails_says_why_as_a_problem(house: House) -> None:
    services = replace(house.services, seconds=lambda _path: 90.0)
    with TestClient(create_app(services, house.limits), LOCAL) as client:
        job = job_done(client, client.post("/v1/who", files=upload(b"garbage")).headers["location"])
    assert job["state"] == "failed"
    assert isinstance(job["error"], dict)
    assert job["error"]["type"] == TYPES + "media-unreadable"
    assert job["error"]["detail"] == "film.mp4: is no film, sound or photo"
    assert house.is_emptied()


def test_a_full_board_of_jobs_asks_to_come_back_and_keeps_no_file(client: TestClient, house: House) -> None:
    house.engine.go_on.clear()
    codes = [client.post("/v1/who", files=upload(b"film of 90 s")).status_code for _ in range(2)]
    response = client.post("/v1/who", files=upload(b"film of 90 s"))
    assert codes == [202, 202]
    assert (kind(response), response.headers["retry-after"]) == ("busy", "5")
    house.engine.go_on.set()


def test_jobs_and_questions_share_the_networks_one_at_a_time(client: TestClient, house: House) -> None:
    house.engine.go_on.clear()
    job = client.post("/v1/who", files=upload(b"film of 90 s")).headers["location"]
    question = threading.Thread(target=lambda: client.post("/v1/who", files=upload()))
    question.start()
    time.sleep(0.3)
    house.engine.go_on.set()
    question.join(10)
    assert job_done(client, job)["state"] == "done"
    assert (len(house.engine.seen), house.engine.most_at_work) == (2, 1)


def test_with_an_engine_for_the_background_questions_do_not_wait_for_jobs(house: House) -> None:
    patient = PlainEngine()
    patient.go_on.clear()
    with TestClient(create_app(replace(house.services, background=patient), house.limits), LOCAL) as client:
        job = client.post("/v1/who", files=upload(b"film of 90 s")).headers["location"]
        assert client.post("/v1/who", files=upload()).status_code == 200
        assert client.get(job).json()["state"] == "running"
        patient.go_on.set()
        assert job_done(client, job)["state"] == "done"


def test_media_too_long_for_any_question_are_refused(client: TestClient) -> None:
    assert kind(client.post("/v1/who", files=upload(b"film of 2 h"))) == "media-too-long"


def test_search_by_file_passes_what_is_wanted_and_how_many(client: TestClient, house: House) -> None:
    response = client.post("/v1/search", files=upload(), data={"want": "voice", "top": "7", "later": "x"})
    assert response.json() == asdict(FindAnswer([HIT], "a note"))
    assert house.engine.asked == [(FILM, Modality.VOICE, 7)]
    client.post("/v1/search", files=upload(), data={"want": "face"})
    assert house.engine.asked[1] == (FILM, Modality.FACE, 10)
    assert house.leftovers() == []


MEDIA = ("a" * 64, "b" * 64)


def test_search_passes_filters_on(client: TestClient, house: House) -> None:
    form = {"want": "face", "enrolled": "false", "exclude_media": [MEDIA[0], MEDIA[1], MEDIA[0]]}
    vector = {"space_digest": SPACE.digest, "modality": "face", "vector": [1.0, 0.0, 0.0]}
    for response in (
        client.post("/v1/search", files=upload(), data=form),
        client.post("/v1/search", json=vector | {"enrolled": True}),
        client.post("/v1/search", json=vector | {"exclude_media": list(MEDIA), "enrolled": None}),
        client.post("/v1/search", json=vector),
    ):
        assert response.status_code == 200, response.text
    assert house.engine.filters == [
        Filter(enrolled=False, exclude_media=MEDIA), Filter(enrolled=True), Filter(exclude_media=MEDIA), Filter()
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", [{"enrolled": "perhaps"}, {"exclude_media": ["a.mp4"]}])
def test_filters_that_cannot_be_meant_are_refused(client: TestClient, wrong: dict[str, object]) -> None:
    vector = {"space_digest": SPACE.digest, "modality": "face", "vector": [1.0, 0.0, 0.0]}
    assert kind(client.post("/v1/search", json=vector | wrong)) == "invalid-request"
    assert kind(client.post("/v1/search", files=upload(), data={"want": "face"} | wrong)) == "invalid-request"


def test_as_many_media_can_be_excluded_as_the_document_says() -> None:
    media = [f"{number:064x}" for number in range(MOST_EXCLUDED + 1)]
    assert len(FileSearch(want=Modality.FACE, exclude_media=media[1:]).where.exclude_media) == MOST_EXCLUDED
    with pytest.raises(ValidationError, match="at most 100"):
        FileSearch(want=Modality.FACE, exclude_media=media)


@pytest.mark.parametrize("data", [{}, {"want": "smell"}, {"want": "face", "top": "0"}, {"want": "face", "top": "1001"}])
def test_search_by_file_refuses_fields_out_of_range(client: TestClient, data: dict[str, str]) -> None:
    response = client.post("/v1/search", files=upload(), data=data)
    assert kind(response) == "invalid-request"
    assert response.json()["errors"][0]["where"] in ("body.want", "body.top")


def test_search_needs_a_file_or_a_vector(client: TestClient) -> None:
    form = client.post("/v1/search", files={"other": ("a", b"b")}, data={"want": "face"})
    assert kind(form) == "invalid-request"
    assert client.post("/v1/search", content=b"abc").status_code == 415


def test_search_by_vector_normalises_it_and_asks_its_own_modality(client: TestClient, house: House) -> None:
    asked = {"space_digest": SPACE.digest, "modality": "face", "vector": [3.0, 0.0, 4.0], "top": 2}
    assert client.post("/v1/search", json=asked).json() == asdict(FindAnswer([HIT]))
    ((probe, want, top),) = house.engine.asked
    assert isinstance(probe, Embedding)
    np.testing.assert_allclose(probe.vector, [0.6, 0.0, 0.8], rtol=1e-6)
    assert (want, top) == (Modality.FACE, 2)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"space_digest": "b" * 64}, "space-mismatch"),
        ({"vector": [1.0]}, "vector-unusable"),
        ({"vector": [0.0, 0.0, 0.0]}, "vector-unusable"),
        ({"modality": "voice"}, "vector-unusable"),
        ({"space_digest": "short"}, "invalid-request"),
        ({"top": 1001}, "invalid-request"),
    ],
)
def test_a_vector_that_does_not_fit_is_refused(client: TestClient, change: dict[str, object], problem: str) -> None:
    asked = {"space_digest": SPACE.digest, "modality": "face", "vector": [1.0, 0.0, 0.0]}
    assert kind(client.post("/v1/search", json=asked | change)) == problem


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"vector": [NaN]}', b"\xff"])
def test_broken_json_is_a_problem_of_the_request(client: TestClient, body: bytes) -> None:
    response = client.post("/v1/search", content=body, headers={"content-type": "application/json"})
    assert kind(response) == "invalid-request"


def test_a_part_without_any_file_name_is_a_file_all_the_same(client: TestClient, house: House) -> None:
    nameless = {"file": (None, b"\xff\x00" * 9000)}
    assert client.post("/v1/who", files=nameless).status_code == 200
    assert client.post("/v1/search", files=nameless, data={"want": "face"}).status_code == 200
    assert house.engine.seen[0].name == "0"
    assert house.engine.asked == [(b"\xff\x00" * 9000, Modality.FACE, 10)]


def test_a_form_that_is_none_is_a_problem(client: TestClient) -> None:
    response = client.post("/v1/who", content=b"abc", headers={"content-type": "multipart/form-data"})
    assert (response.status_code, kind(response)) == (400, "about:blank")


def test_verify_compares_two_parts_of_one_name(client: TestClient, house: House) -> None:
    parts = [("file", ("a.png", b"one")), ("file", ("b.wav", b"two"))]
    response = client.post("/v1/verify", files=parts, data={"similarity": "correlation"})
    assert response.json() == asdict(VerifyAnswer(0.7, 0.8, True, 0.5, "face_identity"))
    assert house.engine.asked == [(b"one", b"two", "correlation")]
    assert house.leftovers() == []


def test_verify_refuses_one_file_and_an_uncalibrated_similarity(client: TestClient) -> None:
    two = [("file", ("a", b"one")), ("file", ("b", b"two"))]
    assert kind(client.post("/v1/verify", files=two[:1])) == "invalid-request"
    assert kind(client.post("/v1/verify", files=two, data={"similarity": "euclidean"})) == "not-calibrated"


def test_match_names_candidates_as_they_were_sent(client: TestClient, house: House) -> None:
    parts = [("probe", ("p", b"probe")), ("candidate", ("C:\\x\\a b.png", b"1"))]
    parts += [("candidate", ("../../etc/a b.png", b"2")), ("candidate", ("", b"3"))]
    answer = client.post("/v1/match", files=parts).json()
    assert [one["path"] for one in answer["candidates"]] == ["a b.png", "a b.png (1)", "2"]
    assert answer["answer"] == "2"
    assert house.engine.asked == [(b"probe", b"1", b"2", b"3", "cosine")]
    assert house.leftovers() == []


@pytest.mark.parametrize(
    ("content", "status", "problem"),
    [(b"garbage", 422, "media-unreadable"), (b"nobody", 422, "probe-unusable"), (b"held", 503, "store-held")],
)
def test_what_the_engine_cannot_do_is_told_without_inner_paths(
    client: TestClient, house: House, content: bytes, status: int, problem: str
) -> None:
    response = client.post("/v1/who", files=upload(content, "my film.mp4"))
    assert (response.status_code, kind(response)) == (status, problem)
    assert str(house.uploads) not in response.text and PREFIX not in response.text
    assert ("retry-after" in response.headers) == (status == 503)
    assert house.leftovers() == []


def test_an_error_nobody_foresaw_tells_nothing_of_the_inside(client: TestClient, house: House) -> None:
    response = client.post("/v1/who", files=upload(b"bug"))
    assert (response.status_code, kind(response)) == (500, "internal")
    assert "secret" not in response.text
    assert house.leftovers() == []


@pytest.mark.parametrize("declared", [True, False])
def test_an_upload_beyond_the_cap_is_cut_off(client: TestClient, house: House, declared: bool) -> None:
    request = client.build_request("POST", "/v1/who", files=upload(b"x" * 30_000))
    body = request.read()
    headers = {"content-type": request.headers["content-type"]}
    pieces = body if declared else (body[i : i + 4096] for i in range(0, len(body), 4096))
    response = client.post("/v1/who", content=pieces, headers=headers)
    assert (response.status_code, kind(response)) == (413, "too-large")
    assert house.engine.seen == house.leftovers() == []


def test_a_search_by_file_and_json_have_caps_too(client: TestClient) -> None:
    form = client.post("/v1/search", files=upload(b"x" * 30_000), data={"want": "face"})
    assert kind(form) == "too-large"
    assert kind(client.post("/v1/search", json={"vector": [0.0] * 3000})) == "too-large"


def test_a_person_is_entered_listed_renamed_enrolled_and_forgotten(client: TestClient, house: House) -> None:
    made = client.post("/v1/people", json={"name": "Ada"})
    assert made.status_code == 201
    person = made.json()
    assert made.headers["location"] == f"/v1/people/{person['id']}"
    assert client.get("/v1/people").json() == {"people": [person], "next": None}
    renamed = client.patch(made.headers["location"], json={"name": "Ada L"}).json()
    assert renamed == person | {"name": "Ada L", "version": 2}
    parts = [("file", ("good.png", b"a face")), ("file", ("bad.png", b"garbage"))]
    answer = client.post("/v1/people/Ada L/samples", files=parts).json()
    assert (answer["added"], answer["warnings"]) == (["good.png"], ["good.png: is short"])
    assert answer["refused"] == [{"path": "bad.png", "reason": "is no film, sound or photo"}]
    assert client.get("/v1/people/Ada L").json()["faces"] == 1
    assert client.delete(made.headers["location"]).json() == asdict(ForgetAnswer("Ada L", 1, 1, 1))
    assert kind(client.get("/v1/people/Ada L")) == "unknown-person"
    assert house.leftovers() == []


def test_samples_too_long_are_refused_as_any_media_are(client: TestClient, house: House) -> None:
    address = client.post("/v1/people", json={"name": "Ada"}).headers["location"]
    parts = [("file", ("x.mp4", b"no medium")), ("file", ("long.mp4", b"film of 2 h"))]
    response = client.post(f"{address}/samples", files=parts)
    assert (response.status_code, kind(response)) == (422, "media-too-long")
    assert house.engine.seen == house.leftovers() == []


def test_samples_that_cannot_be_read_do_not_refuse_the_others(client: TestClient) -> None:
    address = client.post("/v1/people", json={"name": "Ada"}).headers["location"]
    parts = [("file", ("notes.txt", b"no medium")), ("file", ("good.png", b"a face"))]
    answer = client.post(f"{address}/samples", files=parts).json()
    assert answer["added"] == ["good.png"]
    assert answer["refused"] == [{"path": "notes.txt", "reason": "is no film, sound or photo"}]


@pytest.mark.parametrize("change", ["forgotten", "renamed", "forgotten and another of that name"])
def test_samples_go_to_the_person_that_was_asked_for_or_to_nobody(house: House, change: str) -> None:
    person = house.people.create("Ada").id

    def meanwhile(_path: Path) -> float:
        if change == "renamed":
            house.people.rename(person, "Ada L")
        else:
            house.archive.forget(person)
        if change.endswith("name"):
            house.people.create("Ada")
        return 1.0

    with TestClient(create_app(replace(house.services, seconds=meanwhile), house.limits), LOCAL) as client:
        response = client.post("/v1/people/Ada/samples", files=upload())
    if change == "renamed":
        assert response.json()["name"] == "Ada L"
    else:
        assert (response.status_code, kind(response)) == (404, "unknown-person")
    assert [one.faces for one in house.people.summary().people if one.id != person] in ([], [0])


def test_records_that_cannot_be_used_are_a_service_that_is_not_there(house: House) -> None:
    def broken(*_asked: object) -> None:
        raise RecordsError("the records cannot be used: disk image is malformed")

    house.people.page = broken  # type: ignore[method-assign, assignment]
    with TestClient(create_app(house.services, house.limits), LOCAL) as client:
        response = client.get("/v1/people")
    assert (response.status_code, kind(response)) == (503, "records-unusable")
    assert "malformed" in response.json()["detail"]


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "", "[::1", "::1"]
)
def test_a_name_that_was_pointed_at_loopback_reads_nothing(client: TestClient, house: House, host: str) -> None:
    house.people.create("Ada")
    for path in ("/v1/people", "/healthz", "/openapi.json"):
        response = client.get(path, headers={"host": host})
        assert (response.status_code, kind(response)) == (421, "host-refused")
        assert "Ada" not in response.text


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]", "[::1]:8000"])
def test_every_name_of_loopback_is_answered(client: TestClient, host: str) -> None:
    assert client.get("/v1/people", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example", "file://", ""])
@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
def test_pages_of_other_sites_change_nothing(client: TestClient, house: House, method: str, origin: str) -> None:
    person = house.people.create("Ada").id
    path = "/v1/people" if method == "POST" else f"/v1/people/{person}"
    response = client.request(method, path, json={"name": "Eve"}, headers={"origin": origin})
    assert (response.status_code, kind(response)) == (403, "cross-site")
    assert [one.name for one in house.people.everyone()] == ["Ada"]


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8000", "http://localhost:3000", "http://[::1]:8000"])
def test_pages_of_this_computer_may_ask_for_changes(client: TestClient, origin: str) -> None:
    assert client.post("/v1/people", json={"name": "Ada"}, headers={"origin": origin}).status_code == 201


def test_the_names_that_are_answered_can_be_chosen(house: House) -> None:
    app = create_app(house.services, house.limits, allowed_hosts={"Faces.example"})
    with TestClient(app, "http://faces.example") as client:
        assert client.get("/v1/people", headers={"origin": "http://other.example"}).status_code == 200
        assert client.get("/v1/people", headers={"host": "127.0.0.1"}).status_code == 421


def test_a_taken_name_is_a_conflict(client: TestClient) -> None:
    client.post("/v1/people", json={"name": "Ada"})
    response = client.post("/v1/people", json={"name": "Ada"})
    assert (response.status_code, kind(response)) == (409, "name-taken")


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\x00", "x" * 201])
def test_a_name_that_nobody_could_read_is_refused(client: TestClient, name: str) -> None:
    assert kind(client.post("/v1/people", json={"name": name})) == "invalid-request"


def test_spaces_tell_what_a_search_by_vector_needs(client: TestClient) -> None:
    expected = {"name": "face_identity", "digest": "a" * 64, "dimension": 3, "modalities": ["face"]}
    assert client.get("/v1/spaces").json() == {"spaces": [expected]}


def test_evidence_comes_as_bytes_that_nobody_keeps(client: TestClient, house: House) -> None:
    response = client.get("/v1/evidence/e")
    assert (response.content, response.headers["content-type"]) == (b"a crop", "image/png")
    assert response.headers["cache-control"] == "no-store"
    house.evidence.unlink()
    assert kind(client.get("/v1/evidence/e")) == kind(client.get("/v1/evidence/other")) == "unknown-evidence"


def test_the_process_lives_though_it_is_not_ready(client: TestClient, house: House) -> None:
    assert client.get("/readyz").status_code == 200
    house.missing.append("the index does not answer")
    response = client.get("/readyz")
    assert (response.status_code, kind(response)) == (503, "not-ready")
    assert response.json()["missing"] == ["the index does not answer"]
    assert client.get("/healthz").status_code == 200


def test_a_readiness_check_that_fails_is_a_service_not_ready(house: House) -> None:
    def ready() -> list[str]:
        raise StoreUnavailable("no answer from the index")

    with TestClient(create_app(replace(house.services, ready=ready)), LOCAL) as client:
        assert client.get("/readyz").status_code == 503


def test_once_another_model_was_chosen_nothing_is_asked_or_forgotten_any_more(house: House) -> None:
    with TestClient(create_app(replace(house.services, outdated=lambda: "start it again")), LOCAL) as client:
        asked = client.post("/v1/who", files={"file": b"any"})
        person = client.post("/v1/people", json={"name": "Ann"}).json()["id"]
        forgotten = client.delete(f"/v1/people/{person}")
        assert [asked.status_code, forgotten.status_code] == [503, 503] and kind(asked) == "not-ready"
        assert client.get(f"/v1/people/{person}").status_code == 200


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/none", 404), ("GET", "/v1/who", 405)])
def test_what_is_not_there_is_a_problem_too(client: TestClient, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    assert (response.status_code, kind(response)) == (status, "about:blank")


def test_an_unknown_job_is_a_problem(client: TestClient) -> None:
    assert kind(client.get("/v1/jobs/none")) == "unknown-job"


def test_openapi_documents_answers_and_problems(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    answers = document["paths"]["/v1/verify"]["post"]["responses"]
    assert answers["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/VerifyAnswer")
    assert MEDIA_TYPE in answers["422"]["content"] and MEDIA_TYPE in answers["503"]["content"]
    bodies = document["paths"]["/v1/search"]["post"]["requestBody"]["content"]
    assert set(bodies) == {"multipart/form-data", "application/json"}
    assert bodies["multipart/form-data"]["schema"]["properties"]["want"]["enum"] == ["face", "voice"]


def test_openapi_says_that_leads_have_notes_and_perhaps_no_probability(client: TestClient) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    for name in ("FindAnswer", "VerifyAnswer", "MatchAnswer"):
        assert {one.get("type") for one in schemas[name]["properties"]["note"]["anyOf"]} == {"string", "null"}
    probability = schemas["FoundHit"]["properties"]["probability"]["anyOf"]
    assert [one["type"] for one in probability] == ["number", "null"]
    assert {"voice_to_face", "face_to_voice"} <= set(schemas["EvidenceKinds"]["properties"])


class Leads:
    """An application on a world with a shared-space encoder, a film in it, and what it answers."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder, shared=ColoursAndTones())
        span = Span(0.0, 2.0)
        self.film = self.world.file("film.mp4", [face((200, 10, 10), span=span)], [turn(1, 2, 3)])
        self.world.archive.ingest_file(self.film, "default")
        self.services = Services(
            self.world.engine, self.world.archive, self.world.records.people, list(self.world.encoders.values()),
            JobBoard(), work_in(folder), evidence=self.world.records.evidence.file, ready=list,
            seconds=lambda _path: 5.0,
        )  # fmt: skip

    def part(self, name: str, *found: object) -> tuple[str, bytes]:
        return name, self.world.file(name, *found).read_bytes()  # type: ignore[arg-type]


@pytest.fixture
def leads(tmp_path: Path) -> Leads:
    return Leads(tmp_path)


@pytest.fixture
def asked(leads: Leads) -> Iterator[TestClient]:
    with TestClient(create_app(leads.services), LOCAL) as client:
        yield client


def test_the_shared_space_is_listed_with_both_modalities(asked: TestClient, leads: Leads) -> None:
    expected = {"name": "shared", "digest": "5" * 64, "dimension": 3, "modalities": ["face", "voice"]}
    assert asked.get("/v1/spaces").json()["spaces"][-1] == expected


@pytest.mark.parametrize("modality", ["face", "voice"])
@pytest.mark.parametrize("want", ["face", "voice"])
def test_a_vector_of_the_shared_space_finds_either_modality(
    asked: TestClient, leads: Leads, modality: str, want: str
) -> None:
    question = {"space_digest": "5" * 64, "modality": modality, "vector": [2.0, 0.0, 0.0], "want": want}
    answer = asked.post("/v1/search", json=question)
    assert answer.status_code == 200 and "leads" in answer.json()["note"]
    (hit,) = answer.json()["hits"]
    assert (hit["space"], hit["modality"], hit["person"]) == ("shared", want, None) and hit["score"] > 0.99
    assert asked.get(f"/v1/evidence/{hit['evidence']}").status_code == 200


def test_a_voice_finds_faces_over_http_as_the_command_does(asked: TestClient, leads: Leads) -> None:
    name, content = leads.part("voice.wav", [], [turn(1, 0, 2)])
    answer = asked.post("/v1/search", files={"file": (name, content)}, data={"want": "face"}).json()
    assert answer == asdict(leads.world.engine.find(leads.world.folder / name, Modality.FACE))
    assert [hit["space"] for hit in answer["hits"]] == ["shared"] and "three crayons" in answer["note"]


def test_a_face_and_a_voice_are_verified_and_matched_over_http(asked: TestClient, leads: Leads) -> None:
    photos = [leads.part("blue.jpg", [face((10, 10, 200))]), leads.part("red.jpg", [face((200, 10, 10))])]
    voice = leads.part("voice.wav", [], [turn(1, 0, 2)])
    told = asked.post("/v1/verify", files=[("file", voice), ("file", photos[1])]).json()
    assert (told["space"], told["same"]) == ("shared", True) and "leads" in told["note"]
    line_up = [("probe", voice), *(("candidate", photo) for photo in photos)]
    matched = asked.post("/v1/match", files=line_up).json()
    assert matched["answer"] == "red.jpg" and "leads" in matched["note"]


def test_problem_types_are_stable_and_each_names_one_thing() -> None:
    names = [one.name for one in KINDS.values()]
    assert len(names) == len(set(names))
    assert {"media-unreadable", "probe-unusable", "store-held", "too-large", "space-mismatch"} <= set(names)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("../../a.png", "a.png"), ("a%03d.png", "a_03d.png"), ("", "4"), ("..", "4"), (None, "4"), ("é\n.wav", "é_.wav")],
)
def test_a_file_name_is_only_a_label(name: str | None, shown: str) -> None:
    assert label(name, 4) == shown


def test_a_long_file_name_keeps_its_end() -> None:
    assert len(label("é" * 300 + ".mp4", 0).encode()) <= 120
    assert label("é" * 300 + ".mp4", 0).endswith("é.mp4")


def test_only_old_leftovers_are_swept(tmp_path: Path) -> None:

    for name, age in ((f"{PREFIX}old", 2 * 86400), (f"{PREFIX}new", 0), ("other", 2 * 86400)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", f"{PREFIX}new"]
