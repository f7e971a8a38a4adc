"""The demo: invent people, film them, ingest the films, enrol half of them, ask over HTTP who is speaking; then
train a shared space on other invented people, measure it on people it has never seen, and let voices look for faces.

Everything real: the media are films and sound, a pipeline process reads them, the rows lie in Milvus (embedded), the
questions go to a server process. Where real media lie beside the checkout, real people are asked about first.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from deploy.models import write_choice
from deploy.settings import load_settings
from deploy.training import order_population, train_population
from deploy.wiring import Installation
from deploy.working import queue_of
from ingest.flow import ingest_job
from ingest.jobpage import JobPages
from ingest.track import media_id
from search.report import as_table
from search.store import SHARED
from training.population.folder import InventedMedia, MediaSize, write_demo_media
from training.population.scenes import Truth
from training.population.splits import TrainingSpec
from training.recipe import load_recipe

HOME = Path("visavox-data") / "demo"
REAL_MEDIA = Path(__file__).resolve().parents[2] / "shared" / "data" / "media"
SEED = 7
SIZE = MediaSize(people=8, strangers=2)
RECIPE = "bi_quintuple"
LEADS = 3  # hits shown for a voice that looks for faces
START_SECONDS = 60.0
ANSWER_SECONDS = 120.0
LINE_EVERY = 15.0
POPULATION = "population"
UNKNOWN = "unknown"
# of the real people: readers with three clips to enrol and three to ask, and strangers to turn away
REAL_READERS = ("voices/librispeech", "voices/speechbrain")
REAL_STRANGERS = ("voices/librispeech_distractors", 10)
REAL_FILMS = ("av/grid/grid_s1", "av/vox2_pcavs/id07414")

console = Console(soft_wrap=True, highlight=False)


class DemoFailed(RuntimeError):
    """The demo's own server did not start or did not answer."""


@dataclass(frozen=True)
class Question:
    """A clip to ask about: who speaks in it, or None for a stranger."""

    clip: Path
    speaker: str | None


@dataclass(frozen=True)
class Answered:
    """What came back for a question: the answer, and the candidate that came first."""

    question: Question
    answer: str
    first: str | None


def run_demo(home: Path = HOME) -> dict[str, Any]:
    """Run the demo in a home made anew and leave ``report.json`` there; only invented people are kept from before.

    Returns:
        The report: ``ingest.{films,failed,faces,voices,seconds_of_media,seconds}``,
        ``who.{clips,top1,named,unknown_rejected}``, ``retrieval``, ``verification`` and ``matching_1_to_n`` of the
        shared space as ``visavox evaluate --population`` gives them, ``training.{recipe,encoder,seconds}`` and,
        where real media were found, ``real_people`` like ``who``.

    Raises:
        DemoFailed: the server did not start or answer. OSError: the home cannot be written.
    """
    home = home.absolute()
    _renew(home)
    started = time.monotonic()
    report: dict[str, Any] = {}
    if REAL_MEDIA.is_dir():
        report["real_people"] = _real_people(home / "real-people")
    media = write_demo_media(home / "media", SEED, SIZE)
    console.print(
        f"\n[bold]Invented people[/bold]: {len(media.people)} with photos and clips, {len(media.strangers)} strangers, "
        f"{len(media.films)} films"
    )
    report |= _invented_people(home, media)
    report |= _shared_space(home, media)
    report["seconds"] = round(time.monotonic() - started, 1)
    (home / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    console.print(f"\nDone in {report['seconds']:.0f} s. The figures: {home / 'report.json'}")
    return report


def make_films(folder: Path) -> list[Path]:
    """Write the demo's media into a folder; its films."""
    return [film.path for film in write_demo_media(folder, SEED, SIZE).films]


# ---- real people ------------------------------------------------------------------------------------------------


def _real_people(home: Path) -> dict[str, Any]:
    console.print("[bold]Real people[/bold]: known voices and faces, asked about with other clips, and strangers")
    people, questions = _real_questions()
    opened = _installation(home)
    for name, files in people.items():
        opened.archive.enrol(name, files)
    opened.close()
    with _server(home) as client:
        return _asked(client, questions)


def _real_questions() -> tuple[dict[str, list[Path]], list[Question]]:
    """Whom to enrol with what, and what to ask."""
    folders = [folder for source in REAL_READERS for folder in sorted((REAL_MEDIA / source).iterdir())]
    folders = [folder for folder in folders if folder.is_dir() and folder.name != "_doc"]
    people: dict[str, list[Path]] = {}
    questions = []
    for folder in [*folders, *(REAL_MEDIA / film for film in REAL_FILMS)]:
        files = sorted(folder.iterdir())
        enrolled = max(1, len(files) // 2)
        people[folder.name] = files[:enrolled]
        questions += [Question(file, folder.name) for file in files[enrolled:]]
    source, count = REAL_STRANGERS
    strangers = sorted((REAL_MEDIA / source).rglob("*.flac"))[:count]
    return people, questions + [Question(file, None) for file in strangers]


# ---- invented people --------------------------------------------------------------------------------------------


def _renew(home: Path) -> None:
    """Empty the home but for invented people, who would only be invented alike again."""
    home.mkdir(parents=True, exist_ok=True)
    for path in home.iterdir():
        if path.is_dir() and path.name != POPULATION:
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()


def _invented_people(home: Path, media: InventedMedia) -> dict[str, Any]:
    opened = _installation(home)
    ingested = _ingest(opened, [film.path for film in media.films])
    known = media.people[: len(media.people) // 2]
    for one in known:
        opened.archive.enrol(one.person.name, [*one.photos, *one.clips])
    console.print(f"enrolled: {', '.join(one.person.name for one in known)}")
    opened.close()
    names = {one.person.name for one in known}
    with _server(home) as client:
        figures = _asked(client, _invented_questions(media, names))
        _show_film(client, media, names)
    return {"ingest": ingested, "who": figures}


def _ingest(opened: Installation, films: Sequence[Path]) -> dict[str, Any]:
    start = time.monotonic()
    queue, ended = queue_of(opened), 0
    job = queue.submit(ingest_job(films, "demo", here=True))
    for page in queue.follow(job):
        if page.files - page.counts["waiting"] - page.counts["running"] > ended:
            ended = page.files - page.counts["waiting"] - page.counts["running"]
            console.print(f"  {ended} of {page.files} films read")
    opened.archive.flush()
    reports = list(JobPages(opened.database).reports(job))
    for report in reports:
        told = report.reason or f"{report.faces} face tracks, {report.voices} speech turns"
        console.print(f"  {Path(report.path).name}: {told}")
    seconds = time.monotonic() - start
    figures = {
        "films": len(films),
        "failed": sum(report.state == "failed" for report in reports),
        "faces": sum(report.faces for report in reports),
        "voices": sum(report.voices for report in reports),
        "seconds_of_media": round(sum(report.seconds_of_media for report in reports), 2),
        "seconds": round(seconds, 2),
    }
    console.print(
        f"ingested {figures['films']} films: {figures['faces']} face tracks and {figures['voices']} speech turns in "
        f"{figures['seconds_of_media']:.0f} s of media, {figures['seconds_of_media'] / seconds:.1f} × real time"
    )
    return figures


def _invented_questions(media: InventedMedia, known: set[str]) -> list[Question]:
    speakers = [(clip.path, clip.truth.speech[0].person) for clip in media.clips]
    return [Question(path, speaker if speaker in known else None) for path, speaker in speakers]


def _show_film(client: httpx.Client, media: InventedMedia, known: set[str]) -> None:
    film = max(media.films, key=lambda one: _mixed(one.truth, known))
    console.print(
        f"\nwho speaks when in {film.path.name}, beside the truth ({UNKNOWN} is right for who is not enrolled):"
    )
    for turn in _posted(client, "/v1/who", film.path)["turns"]:
        truth = _spoken(film.truth, turn["start"], turn["end"])
        expected = ", ".join(name if name in known else f"{name}, not enrolled" for name in truth) or "nobody"
        console.print(f"  {turn['start']:5.1f} – {turn['end']:5.1f} s  {turn['answer']:<18} truth: {expected}")


def _mixed(truth: Truth, known: set[str]) -> int:
    """How well a film shows both: its speakers who are enrolled, or who are not, whichever are fewer."""
    speakers = {one.person for one in truth.speech}
    return min(len(speakers & known), len(speakers - known))


def _spoken(truth: Truth, start: float, end: float) -> list[str]:
    """Who really speaks for most of a stretch, in order of time."""
    shares: dict[str, float] = {}
    for one in truth.speech:
        shares[one.person] = shares.get(one.person, 0.0) + max(0.0, min(end, one.end) - max(start, one.start))
    return [name for name, seconds in shares.items() if seconds > 0.3 * (end - start)]


# ---- the shared space -------------------------------------------------------------------------------------------


def _shared_space(home: Path, media: InventedMedia) -> dict[str, Any]:
    console.print(
        "\n[bold]The shared space[/bold]: a model learns from other invented people which voice goes with a face"
    )
    opened = Installation(load_settings({"VISAVOX_HOME": str(home)}))
    stages = _Stages()
    outcome = train_population(opened, order_population(opened, load_recipe(RECIPE), TrainingSpec()), stages.told)
    write_choice(home, outcome.encoder)
    opened.close()
    console.print(as_table(outcome.report), markup=False)
    serving = _installation(home)  # encodes the films' faces and voices with the new model, from stored evidence
    rows = serving.store.count(serving.encoders[SHARED].space)
    serving.close()
    console.print(f"\n{outcome.encoder.name} serves: {rows} faces and voices of the films and the enrolled are in it")
    with _server(home) as client:
        _show_leads(client, media)
    measured = {name: outcome.report[name] for name in ("retrieval", "verification", "matching_1_to_n")}
    training = {"recipe": RECIPE, "encoder": outcome.encoder.name, "seconds": round(outcome.seconds, 1)}
    return measured | {"training": training}


class _Stages:
    """A line for each stage of a training, when it ends and now and then before."""

    def __init__(self) -> None:
        self._stage, self._shown = "", 0.0

    def told(self, stage: str, done: int, total: int, note: str) -> None:
        """So much of a stage is done."""
        now = time.monotonic()
        if stage == self._stage and done < total and now - self._shown < LINE_EVERY:
            return
        self._stage, self._shown = stage, now
        console.print(f"  {stage}: {done} of {total}" + (f", {note}" if note else ""))


def _show_leads(client: httpx.Client, media: InventedMedia) -> None:
    """Voices of people who are not enrolled look for faces in the films."""
    films = {media_id(film.path): film for film in media.films}
    console.print(
        "\nvoices of people nobody enrolled look for faces (leads, to be checked; who is really there stands beside):"
    )
    for one in media.people[len(media.people) // 2 :]:
        answer = _posted(client, "/v1/search", one.clips[0], {"want": "face", "top": str(LEADS)})
        console.print(f"  the voice of {one.person.name}")
        for hit in answer["hits"]:
            film = films.get(hit["media"])
            where = hit["person"] or "a photo"
            if film is not None:
                seen = sorted({v.person for v in film.truth.visible if v.start < hit["end"] and hit["start"] < v.end})
                where = f"{film.path.name} {hit['start']:.1f}–{hit['end']:.1f} s, there: {', '.join(seen)}"
            console.print(f"    {hit['score']:.2f} by {hit['space']}: {where}")


# ---- asking -----------------------------------------------------------------------------------------------------


def _asked(client: httpx.Client, questions: Sequence[Question]) -> dict[str, Any]:
    """Ask every question, show the answers beside the truth, and count."""
    answers = []
    for question in questions:
        told = _judged(question, _posted(client, "/v1/who", question.clip)["turns"])
        answers.append(told)
        truth = question.speaker or "a stranger"
        right = told.answer == (question.speaker or UNKNOWN)
        console.print(f"  {'✓' if right else '✗'} {question.clip.name:<28} {told.answer:<18} truth: {truth}")
    known = [told for told in answers if told.question.speaker]
    strangers = [told for told in answers if not told.question.speaker]
    figures = {
        "clips": len(answers),
        "known": len(known),
        "top1": _share([told.first == told.question.speaker for told in known]),
        "named": _share([told.answer == told.question.speaker for told in known]),
        "strangers": len(strangers),
        "unknown_rejected": _share([told.answer == UNKNOWN for told in strangers]),
    }
    console.print(
        f"asked {figures['clips']} clips: {figures['top1']:.0%} of the known come first, "
        f"{figures['named']:.0%} are named; {figures['unknown_rejected']:.0%} of the strangers are “{UNKNOWN}”"
    )
    return figures


def _judged(question: Question, turns: Sequence[dict[str, Any]]) -> Answered:
    """The answer, and the first candidate, that the longest share of speech was given."""
    spoken: dict[tuple[str, str | None], float] = {}
    for turn in turns:
        first = turn["people"][0]["name"] if turn["people"] else None
        told = (turn["answer"], first)
        spoken[told] = spoken.get(told, 0.0) + turn["end"] - turn["start"]
    answer, first = max(spoken, key=lambda told: spoken[told]) if spoken else ("nobody speaks", None)
    return Answered(question, answer, first)


def _share(outcomes: Sequence[bool]) -> float:
    return round(sum(outcomes) / len(outcomes), 4) if outcomes else 0.0


def _posted(client: httpx.Client, route: str, clip: Path, form: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Ask a route about a clip."""
    with clip.open("rb") as stream:
        response = client.post(route, files={"file": (clip.name, stream)}, data=form)
    if response.status_code != httpx.codes.OK:
        raise DemoFailed(f"{clip}: the server answered {response.status_code}: {response.text}")
    answer: dict[str, Any] = response.json()
    return answer


def _installation(home: Path) -> Installation:
    opened = Installation(load_settings({"VISAVOX_HOME": str(home)}))
    opened.archive.mend()
    return opened


@contextmanager
def _server(home: Path) -> Iterator[httpx.Client]:
    """A server process on a home, asked over HTTP; ended afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VISAVOX_")}
    process = subprocess.Popen(  # noqa: S603 - our own command line
        [sys.executable, "-m", "deploy.cli", "serve", "--port", str(port)],
        env=environment | {"VISAVOX_HOME": str(home)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=ANSWER_SECONDS, trust_env=False) as client:
            _await(client, process)
            yield client
    finally:
        process.terminate()
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _await(client: httpx.Client, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.get("/readyz").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    if process.poll() is None:
        process.kill()
    _, told = process.communicate()
    raise DemoFailed(f"the server did not start: {told.strip() or 'no message'}")
