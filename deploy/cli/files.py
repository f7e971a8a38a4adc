"""``ingest``: walks folders, sends files to the pipeline, shows how it goes."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from deploy.cli.output import (
    DONE,
    WITH_FAILURES,
    Json,
    NothingDone,
    UsageError,
    answer,
    console,
    errors_translated,
    progress_console,
)

if TYPE_CHECKING:
    from deploy.wiring import Installation
    from ingest.jobpage import JobPage
    from ingest.jobs import FileReport
    from ingest.walk import Walk

# Without a terminal to draw on, a line of progress is written this often, in seconds.
LINE_EVERY = 10.0


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    app.command()(ingest)


def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders of film, sound and photos.")],
    archive: Annotated[str, typer.Option(help="Name of the archive they belong to.")] = "default",
    priority: Annotated[int, typer.Option(min=-100, max=100, help="With workers: higher comes first.")] = 0,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Then forget files below these paths that are gone, unless moved.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="With workers: stay until every file is done.")] = False,
    json: Json = False,
) -> None:
    """Find faces and speech in media and put them into the index."""
    with errors_translated():
        from deploy.wiring import OUTAGE_SECONDS, Outage, installation
        from ingest.walk import walk_media

        with installation(outage=Outage(OUTAGE_SECONDS, progress_console.print)) as opened:
            walk = walk_media(paths, opened.settings.home)
            if sweep:
                walk.missing = []  # that they are gone is what a sweep is for
            if walk.missing and not walk.media and not walk.ignored and not walk.unreadable:
                raise NothingDone("not_found", f"{walk.missing[0]}: there is no such file or folder")
            if sweep and opened.settings.broker_url and not wait:
                raise UsageError("--sweep needs --wait: which files were moved is known when all have been read")
            tally = _run(opened, walk, archive, priority, wait)
            if sweep:
                tally.swept = _sweep(opened, paths)
    code = WITH_FAILURES if tally.failed else DONE
    answer(tally.document(), json, tally.show, code=code)


@dataclass
class Tally:
    """Totals of an ingest, as the reports come in."""

    ignored: int = 0
    done: int = 0
    unchanged: int = 0
    queued: int = 0
    job: str = ""
    swept: dict[str, int] | None = None
    failed: list[dict[str, str]] = field(default_factory=list)
    media: dict[str, tuple[int, int, float]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def add(self, report: FileReport) -> None:
        """Count one file; a medium that several files hold is counted once."""
        if report.state == "failed":
            self.failed.append({"path": report.path, "reason": report.reason or "failed"})
            return
        self.warnings += [f"{report.path}: {warning}" for warning in report.warnings]
        self.done += 1
        self.unchanged += report.state == "unchanged"
        self.media[report.media or report.path] = (report.faces, report.voices, report.seconds_of_media)

    def document(self) -> dict[str, Any]:
        """The JSON of ``ingest``."""
        totals = list(self.media.values())
        document: dict[str, Any] = {
            "files": self.done + len(self.failed) + self.ignored + self.queued,
            "done": self.done,
            "unchanged": self.unchanged,
            "ignored": self.ignored,
            "failed": sorted(self.failed, key=lambda one: one["path"]),
            "faces": sum(faces for faces, _, _ in totals),
            "voices": sum(voices for _, voices, _ in totals),
            "seconds_of_media": round(sum(seconds for _, _, seconds in totals), 3),
            "seconds": round(time.monotonic() - self.started, 3),
        }
        if self.warnings:
            document["warnings"] = sorted(self.warnings)
        if self.swept is not None:
            document["swept"] = self.swept
        return document | {"job": self.job} | ({"queued": self.queued} if self.queued else {})

    def show(self) -> None:
        """The same for people."""
        it = self.document()
        speed = it["seconds_of_media"] / max(it["seconds"], 1e-9)
        console.print(
            f"{it['done']} of {it['done'] + len(self.failed) + self.queued} files in ({it['unchanged']} unchanged, "
            f"{it['ignored']} ignored): {it['faces']} face tracks, {it['voices']} speech turns in "
            f"{it['seconds_of_media']:.0f} s of media, {it['seconds']:.1f} s, {speed:.1f} × real time"
        )
        if self.queued:
            console.print(f"{self.queued} files sent to the workers: visavox jobs {self.job[:8]}")
        if self.swept is not None:
            console.print(f"{self.swept['files']} files that are gone were forgotten, with {self.swept['rows']} rows")
        for warning in it.get("warnings", []):
            console.print(f"note: {warning}")
        for failure in it["failed"]:
            console.print(f"failed: {failure['path']}: {failure['reason']}")


def _sweep(opened: Installation, paths: list[Path]) -> dict[str, int]:
    from search.sweeping import NothingThere

    try:
        return asdict(opened.archive.sweep([path.absolute() for path in paths]))
    except NothingThere as error:
        raise NothingDone("nothing_there", str(error)) from error


def _run(opened: Installation, walk: Walk, archive: str, priority: int, wait: bool) -> Tally:
    from deploy.working import queue_of
    from ingest.book import Book
    from ingest.flow import INGEST, ingest_job
    from ingest.jobpage import JobPages

    tally = Tally(ignored=walk.ignored)
    tally.failed += [{"path": path, "reason": reason} for path, reason in walk.problems().items()]
    here = not opened.settings.broker_url
    queue = queue_of(opened, notice=progress_console.print)
    if here:
        Book(opened.database).cancel_abandoned(INGEST)
        opened.archive.mend()
    tally.job = queue.submit(ingest_job(walk.media, archive, priority=priority, here=here))
    if not here and not wait:
        tally.queued = len(walk.media)
        return tally
    try:
        with JobProgress() as progress:
            for page in queue.follow(tally.job):
                progress.show(page)
    except BaseException:
        if here:  # asked for again, it goes on where it was
            Book(opened.database).cancel(tally.job)
        raise
    finally:
        if here:
            opened.archive.flush()
    for report in JobPages(opened.database).reports(tally.job):
        tally.add(report)
    return tally


class JobProgress:
    """Rate, remaining time and failures so far: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
            console=progress_console, transient=True, disable=not sys.stderr.isatty(),
        )  # fmt: skip
        self._task = self._bar.add_task("files", total=None, note="")

    def __enter__(self) -> JobProgress:
        self._bar.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._bar.stop()

    def show(self, page: JobPage) -> None:
        """How the job stands."""
        ended = page.files - page.counts["waiting"] - page.counts["running"]
        note = f"{page.real_time:.1f} × real time, {page.counts['failed']} failed"
        if page.remaining is not None:
            note += f", about {page.remaining:.0f} s remaining"
        self._bar.update(self._task, completed=ended, total=page.files, note=note)
        if not sys.stderr.isatty() and time.monotonic() - self._last >= LINE_EVERY:
            self._last = time.monotonic()
            progress_console.print(f"{ended} of {page.files} files, {note}")
