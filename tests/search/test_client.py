"""The Python client against a live server that is reached beyond loopback, and so asks for a key."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from ingest.ledger import open_database
from search.access import Keys, Role
from search.answers import WhoAnswer, WhoTurn
from search.client import Client, JobUnfinished, KnownPerson, ProblemError, Unreachable
from search.transport import read
from tests.deploy.live_server import LiveServer, live_server
from training.population.folder import InventedMedia, MediaSize, write_demo_media


@dataclass
class Live:
    """A running server that asks for keys, a client with one, and media of three people."""

    server: LiveServer
    client: Client
    keys: Keys
    media: InventedMedia
    archive: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("client")
    for name in ("home", "archive"):
        (folder / name).mkdir()
    keys = Keys(open_database(f"sqlite:///{folder / 'home' / 'records.sqlite'}"))
    _, secret = keys.create("the tests", Role.EDITOR)
    media = write_demo_media(folder / "media", 5, MediaSize(people=3, strangers=0, films=0, clip_seconds=4.0))
    with (
        live_server(
            folder, "--host", "0.0.0.0", "--name", "films.example", VISAVOX_MEDIA_ROOTS=str(folder / "archive")
        ) as server,
        Client(f"http://127.0.0.1:{server.port}", secret) as client,
    ):
        while client.ready():
            time.sleep(0.1)
        yield Live(server, client, keys, media, folder / "archive")


@pytest.fixture(scope="module")
def ada(live: Live) -> KnownPerson:
    """Somebody enrolled, by the client, with the face and voice of the first invented person."""
    person = live.client.create_person("Ada Lovelace")
    one = live.media.people[0]
    answer = live.client.enrol(person, [*one.clips[:2], *one.photos[:2]])
    assert set(answer.added) <= {str(path) for path in (*one.clips, *one.photos)} and len(answer.added) >= 3
    return live.client.person(person.id)


def test_it_is_reached_under_the_names_given_and_by_its_key_only(live: Live) -> None:
    with Client(live.url) as stranger, pytest.raises(ProblemError) as refused:
        list(stranger.people())
    assert (refused.value.status, refused.value.kind) == (401, "unauthenticated")
    own = {"Host": "films.example"}
    assert httpx.get(f"{live.url}/healthz", headers=own, trust_env=False).status_code == 200
    assert httpx.get(f"{live.url}/healthz", headers={"Host": "evil.example"}, trust_env=False).status_code == 421


def test_a_key_reaches_as_far_as_its_role_and_not_after_it_is_revoked(live: Live) -> None:
    identity, secret = live.keys.create("a reader", Role.READER)
    with Client(live.url, secret) as reader:
        reader.spaces()
        with pytest.raises(ProblemError, match="editor") as refused:
            reader.create_person("Nobody")
        assert refused.value.kind == "forbidden"
        live.keys.revoke(identity)
        time.sleep(2.2)
        with pytest.raises(ProblemError, match="revoked"):
            reader.spaces()


def test_who_names_whom_it_knows(live: Live, ada: KnownPerson) -> None:
    answer = live.client.who(live.media.clips[0].path)
    assert isinstance(answer, WhoAnswer) and {turn.answer for turn in answer.turns} == {ada.name}
    best = answer.turns[0].people[0]
    assert best.name == ada.name and best.evidence.voice is not None and 0.5 < best.probability <= 1


def test_search_gives_hits_whose_evidence_can_be_kept(live: Live, ada: KnownPerson, tmp_path: Path) -> None:
    hit = live.client.search(live.media.clips[0].path, "face", top=1).hits[0]
    left = live.client.search(live.media.clips[0].path, "face", exclude_media=[hit.media], enrolled=False).hits
    assert all(one.media != hit.media and one.person is None for one in left)
    assert hit.person == ada.name and hit.modality == "face" and hit.score > 0.5
    kept = live.client.evidence(hit.evidence, tmp_path / "face.png")
    assert kept.read_bytes().startswith(b"\x89PNG") and list(tmp_path.iterdir()) == [kept]


def test_evidence_that_is_not_there_leaves_no_file(live: Live, tmp_path: Path) -> None:
    with pytest.raises(ProblemError) as missing:
        live.client.evidence("0" * 64, tmp_path / "face.png")
    assert missing.value.kind == "unknown-evidence" and not list(tmp_path.iterdir())


def test_search_by_vector_knows_the_spaces(live: Live, ada: KnownPerson) -> None:
    (space,) = [one for one in live.client.spaces() if one.name == "face_identity"]
    assert space.modalities == ["face"] and ada.faces
    hits = live.client.search_vector([1.0] * space.dimension, space.digest, "face", top=2).hits
    assert {hit.person for hit in hits} == {ada.name}
    with pytest.raises(ProblemError) as refused:
        live.client.search_vector([1.0, 0.0], space.digest, "face")
    assert refused.value.kind == "vector-unusable"


def test_verify_and_match_answer_under_the_paths_given(live: Live) -> None:
    first, second = live.media.people[:2]
    told = live.client.verify(first.photos[0], first.photos[1])
    assert told.same is True and told.space == "face_identity" and told.score > told.threshold
    answer = live.client.match(first.clips[0], [second.clips[0], first.clips[1]])
    assert answer.answer == str(first.clips[1])
    assert [one.path for one in answer.candidates] == [str(second.clips[0]), str(first.clips[1])]


def test_people_come_in_pages_that_one_does_not_see(live: Live) -> None:
    made = [live.client.create_person(f"Guest {number}") for number in range(5)]
    listed = [one.name for one in live.client.people(page=2)]
    assert [name for name in listed if name.startswith("Guest")] == [f"Guest {number}" for number in range(5)]
    for one in made:
        assert live.client.delete_person(one).name == one.name
    assert not [one for one in live.client.people() if one.name.startswith("Guest")]


def test_what_somebody_else_changed_is_not_overwritten(live: Live) -> None:
    known = live.client.create_person("Ben")
    renamed = live.client.rename_person(known, "Benjamin")
    assert (renamed.name, renamed.id) == ("Benjamin", known.id) and renamed.version > known.version
    for change in (lambda: live.client.rename_person(known, "Bob"), lambda: live.client.delete_person(known)):
        with pytest.raises(ProblemError) as refused:
            change()
        assert refused.value.kind == "precondition-failed"
    assert live.client.person("Benjamin").version == renamed.version
    target = live.client.create_person("Ben the second")
    assert live.client.merge_person(renamed, target).id == target.id
    live.client.delete_person(target.id)


def test_what_was_sent_twice_with_one_key_is_done_once(live: Live) -> None:
    person = live.client.create_person("Cleo")
    photo = live.media.people[2].photos[:1]
    answers = [live.client.enrol(person, photo, idempotency_key="once") for _ in range(2)]
    assert answers[0] == answers[1]
    with pytest.raises(ProblemError) as refused:
        live.client.enrol(person, live.media.people[1].photos[:1], idempotency_key="once")
    assert refused.value.kind == "idempotency-mismatch"
    live.client.delete_person(person.id)


def test_files_go_without_their_names(live: Live, tmp_path: Path) -> None:
    secret = tmp_path / "Ada Lovelace at the doctor.mp4"
    secret.write_text("not a film")
    with pytest.raises(ProblemError) as refused:
        live.client.who(secret)
    assert refused.value.status == 422 and "Lovelace" not in str(refused.value) and refused.value.request_id
    person = live.client.create_person("Dora")
    answer = live.client.enrol(person, [secret])
    assert [one.path for one in answer.refused] == [str(secret)] and not answer.added
    live.client.delete_person(person)
    assert "Lovelace" not in live.server.errors.read_text()


def test_a_folder_is_read_by_the_server_itself_while_one_listens(live: Live) -> None:
    (live.archive / "face.png").write_bytes(live.media.people[0].photos[0].read_bytes())
    (live.archive / "text.mp4").write_text("not a film")
    asked = [live.client.ingest([live.archive], "films", idempotency_key="an-ingest") for _ in range(2)]
    assert asked[0] == asked[1] and asked[0].state == "queued" and asked[0].archive == "films"
    pages = list(live.client.follow(asked[0].job))
    last = pages[-1]
    assert last.state == "done" and (last.counts["done"], last.counts["failed"], last.files) == (1, 1, 2)
    assert [page.counts["done"] for page in pages] == sorted(page.counts["done"] for page in pages)
    assert live.client.job(last.job) == live.client.job_page(last.job) == live.client.jobs()[0] == last
    files = list(live.client.job_files(last.job, page=1))
    assert [(Path(file.path).name, file.state) for file in files] == [("face.png", "done"), ("text.mp4", "failed")]
    assert list(live.client.job_files(last.job, ["failed"])) == last.first_errors == files[1:]
    # what is known costs a hash only, and what was mended is read
    (live.archive / "text.mp4").write_bytes((live.archive / "face.png").read_bytes())
    assert live.client.retry_job(last.job) == 1
    *_, again = live.client.follow(last.job)
    assert (again.counts["done"], again.counts["unchanged"], again.counts["failed"]) == (1, 1, 0)
    live.client.forget_job(last.job)
    with pytest.raises(ProblemError) as unknown:
        live.client.job(last.job)
    assert unknown.value.kind == "unknown-job"


def test_jobs_are_changed_by_editors_and_looked_at_by_readers(live: Live) -> None:
    empty = live.archive / "empty"
    empty.mkdir()
    *_, done = live.client.follow(live.client.ingest([empty]).job)
    changed = (live.client.cancel_job, live.client.pause_job, live.client.resume_job)
    assert {change(done.job).state for change in changed} == {"done"} and done.result == {"ignored": 0, "failed": []}
    with pytest.raises(ProblemError) as outside:
        live.client.ingest([live.archive.parent / "media"])
    assert outside.value.kind == "path-refused"
    _, secret = live.keys.create("a reader", Role.READER)
    with Client(live.url, secret) as reader:
        assert [page.state for page in reader.follow(done.job)] == ["done"] and reader.jobs(1)[0].job == done.job
        for change in (reader.cancel_job, reader.pause_job, reader.retry_job, reader.forget_job):
            with pytest.raises(ProblemError, match="editor"):
                change(done.job)
        with pytest.raises(ProblemError, match="editor"):
            reader.ingest([empty])


# ---- a service that is not well: real sockets, answers as they happen behind proxies --------------------------------


class Ailing:
    """Gives prepared answers, one after another; None cuts the connection. Keeps the requests."""

    def __init__(self, *answers: tuple[int, dict[str, str], bytes] | None) -> None:
        self.answers = list(answers)
        self.keys: list[str | None] = []
        self.bodies: list[bytes] = []

    def handle(self, request: http.server.BaseHTTPRequestHandler) -> None:
        self.bodies.append(request.rfile.read(int(request.headers.get("content-length", 0))))
        self.keys.append(request.headers.get("idempotency-key"))
        prepared = self.answers.pop(0)
        if prepared is None:
            request.connection.shutdown(socket.SHUT_RDWR)
            request.close_connection = True
            return
        status, headers, body = prepared
        request.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)


@contextmanager
def ailing(*answers: tuple[int, dict[str, str], bytes] | None) -> Iterator[tuple[Client, Ailing]]:
    service = Ailing(*answers)

    class Handler(http.server.BaseHTTPRequestHandler):
        def _serve(self) -> None:
            service.handle(self)

        do_GET = do_POST = do_DELETE = _serve

        def log_message(self, *_told: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=[0.01])
        serving.start()
        try:
            with Client(f"http://127.0.0.1:{server.server_port}", timeout=5) as client:
                yield client, service
        finally:
            server.shutdown()
            serving.join()


GONE = (503, {"Retry-After": "0"}, b"a proxy's page")
ADA = b'{"id": "a", "name": "Ada", "faces": 1, "voices": 0, "created": "2026-01-01T00:00:00Z", "version": 2, "new": 1}'
ENROLLED = b'{"name": "Ada", "added": ["0.wav"], "refused": [], "warnings": ["0.wav: is short"]}'


def test_reading_is_tried_again_until_it_works() -> None:
    with ailing(GONE, None, (200, {}, ADA)) as (client, service):
        assert client.person("Ada") == KnownPerson("a", "Ada", 1, 0, "2026-01-01T00:00:00Z", 2)
        assert len(service.bodies) == 3


def test_a_write_is_sent_again_whole_and_under_one_key(tmp_path: Path) -> None:
    file = tmp_path / "ada.wav"
    file.write_bytes(b"sound")
    busy = (409, {"Retry-After": "0"}, b'{"type": "urn:visavox:problem:in-progress"}')
    with ailing(None, GONE, busy, (200, {}, ENROLLED)) as (client, service):
        answer = client.enrol("Ada", [file])
    assert answer.added == [str(file)] and answer.warnings == [f"{file}: is short"]
    assert len(service.keys) == 4 and len(set(service.keys)) == 1 and service.keys[0]
    assert all(b"sound" in body and b"ada.wav" not in body for body in service.bodies)


def test_what_is_not_safe_to_repeat_is_sent_once(tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(b"sound")
    with ailing(GONE, None) as (client, service):
        with pytest.raises(ProblemError):
            client.delete_person("Ada")
        with pytest.raises(Unreachable):
            client.who(file)
        assert len(service.bodies) == 2


def test_trying_again_has_an_end_and_tells_what_was_wrong() -> None:
    with ailing(GONE, GONE, GONE, GONE, GONE) as (client, service):
        with pytest.raises(ProblemError) as refused:
            client.spaces()
        assert refused.value.status == 503 and len(service.answers) == 1
    with pytest.raises(Unreachable, match="does not answer"), Client("http://127.0.0.1:9", timeout=1) as client:
        client.create_person("Ada")


def test_not_ready_is_an_answer() -> None:
    missing = b'{"type": "urn:visavox:problem:not-ready", "status": 503, "missing": ["the index"]}'
    with ailing((503, {}, missing), (200, {}, b"{}")) as (client, _):
        assert client.ready() == ["the index"] and client.ready() == []


def test_evidence_cut_off_in_the_middle_is_fetched_from_the_beginning(tmp_path: Path) -> None:
    cut = (200, {"Content-Length": "100", "Connection": "close"}, b"what is longer than the file")
    with ailing(cut, GONE, (200, {}, b"whole file")) as (client, _):
        assert client.evidence("e", tmp_path / "e.png").read_bytes() == b"whole file"


def test_a_long_question_waits_for_its_job_and_a_failed_one_says_why(tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(b"sound")
    accepted = (202, {}, b'{"job": "j", "state": "queued"}')
    running = (200, {}, b'{"job": "j", "state": "running"}')
    done = (200, {}, b'{"job": "j", "state": "done", "result": {"turns": []}}')
    failed = (200, {}, b'{"job": "j", "state": "failed", "error": {"type": "urn:visavox:problem:x", "status": 422}}')
    with ailing(accepted, running, done, accepted, failed, accepted, running) as (client, _):
        assert client.who(file) == WhoAnswer([])
        with pytest.raises(ProblemError, match="422"):
            client.who(file)
        with pytest.raises(JobUnfinished, match="job j"):
            client.who(file, wait=0)


def events(*told: str, cut: bool = False) -> tuple[int, dict[str, str], bytes]:
    """A stream of events of a job with so many files done, that of its end last; or cut off in the middle of one."""
    counts = [f'event: page\ndata: {{"job": "j", "kind": "ingest", "state": "running", "archive": "a", "priority": 0, '
              f'"created": 0, "files": 9, "counts": {{"done": {one}}}, "seconds_of_media": 0, "rate": 0, '
              f'"real_time": 0}}\n\n' for one in told if one != "end"]  # fmt: skip
    text = ": nothing new\n\n" + "".join(counts)
    text += 'event: end\ndata: {"state": "done"}\n\n' if "end" in told else "event: page\ndata: {" if cut else ""
    length = {"Content-Length": str(len(text) + 100), "Connection": "close"} if cut else {}
    return 200, {"Content-Type": "text/event-stream"} | length, text.encode()


def test_a_stream_that_breaks_is_taken_up_again_until_the_end() -> None:
    with ailing(GONE, events("1", "2"), None, events("3", cut=True), events("4", "end"), GONE) as (client, service):
        assert [page.counts["done"] for page in client.follow("j")] == [1, 2, 3, 4]
        assert len(service.answers) == 1  # nothing is asked after the end


def test_a_stream_that_never_says_anything_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.transport.FIRST_PAUSE", 0.01)
    with ailing(*[None] * 4) as (client, _), pytest.raises(Unreachable):
        list(client.follow("j"))
    with ailing(events(), events(), events(), events(), GONE) as (client, service), pytest.raises(ProblemError):
        list(client.follow("j"))
    refused = (404, {}, b'{"type": "urn:visavox:problem:unknown-job", "title": "t", "status": 404}')
    with ailing(refused, GONE) as (client, service), pytest.raises(ProblemError, match="404"):
        list(client.follow("j"))
    assert len(service.answers) == 1


def test_a_job_of_one_kind_is_not_taken_for_one_of_the_other() -> None:
    page = events("1", "end")[2].decode().split("data: ")[1].split("\n")[0].encode()
    with ailing((200, {}, page), (200, {}, b'{"job": "j", "state": "queued"}')) as (client, _):
        with pytest.raises(TypeError, match="follow"):
            client.wait_for("j")
        with pytest.raises(TypeError, match="question"):
            client.job_page("j")


def test_answers_of_a_newer_service_are_read_and_those_of_an_older_one_too() -> None:
    older = {"start": 0, "end": 1.5, "people": [], "answer": "unknown"}
    assert read(WhoTurn, older) == WhoTurn(0.0, 1.5, [], "unknown")
    newer = older | {"mood": "calm", "overlap": [[0, 1]], "speaker": {"track": 3, "probability": 1}}
    turn = read(WhoTurn, newer)
    assert turn.overlap == [(0.0, 1.0)] and turn.speaker is not None and turn.speaker.track == 3
    assert replace(turn, overlap=[], speaker=None) == read(WhoTurn, older)
