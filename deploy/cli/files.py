"""``ingest``: walks folders, sends files to the pipeline, shows how it goes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deploy.cli.output import (
    DONE,
    WITH_FAILURES,
    Json,
    NothingDone,
    answer,
    console,
    errors_translated,
    progress_console,
)
from ingest.track import MediaId

if TYPE_CHECKING:
    from deploy.wiring import Installation
    from ingest.jobs import FileReport

# A file that every installation keeps, by which its folder is known.
HOME_MARK = "records.sqlite"
# Without a terminal to draw on, a line of progress is written this often, in seconds.
LINE_EVERY = 10.0


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    app.command()(ingest)


def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders of film, sound and photos.")],
    archive: Annotated[str, typer.Option(help="Name of the archive they belong to.")] = "default",
    wait: Annotated[bool, typer.Option("--wait", help="With workers: stay until every file is done.")] = False,
    json: Json = False,
) -> None:
    """Find faces and speech in media and put them into the index."""
    with errors_translated():
        from deploy.wiring import OUTAGE_SECONDS, Outage, installation

        with installation(outage=Outage(OUTAGE_SECONDS, progress_console.print)) as opened:
            walk = walk_media(paths, opened.settings.home)
            tally = _run(opened, walk, archive, wait)
    code = WITH_FAILURES if tally.failed else DONE
    answer(tally.document(), json, tally.show, code=code)


@dataclass
class Walk:
    """Media found under the given paths, in order; what is missing or cannot be read; files of no media extension."""

    media: list[Path] = field(default_factory=list)
    missing: list[Path] = field(default_factory=list)
    unnameable: list[Path] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    ignored: int = 0

    def note(self, path: Path | str, error: OSError) -> None:
        """Remember what keeps a path from being looked at."""
        self.unreadable[_as_text(path)] = f"cannot be read: {error.strerror or error}: check who may read it"


def walk_media(paths: list[Path], home: Path | None = None) -> Walk:
    """Find media by extension under files and folders, each file once, folders in order of name.

    What lies in ``home``, or in any other installation's folder, is Visavox's own and not looked at.

    Raises:
        NothingDone: none of the paths exists.
    """
    from ingest.media import MEDIA_EXTENSIONS

    walk, seen = Walk(), set()
    for path in paths:
        try:
            path.lstat()
        except PermissionError as error:
            walk.note(path, error)
            continue
        except OSError:
            walk.missing.append(path)
            continue
        for file in _files(path, home, walk) if os.path.isdir(path) else [path]:
            if file.absolute() in seen:
                continue
            seen.add(file.absolute())
            if not _is_text(file):
                walk.unnameable.append(file)
                continue
            if file.suffix.lower().lstrip(".") in {ending.lstrip(".") for ending in MEDIA_EXTENSIONS}:
                walk.media.append(file.absolute())
            else:
                walk.ignored += 1
    if walk.missing and not walk.media and not walk.ignored and not walk.unreadable:
        raise NothingDone("not_found", f"{walk.missing[0]}: there is no such file or folder")
    return walk


def _files(folder: Path, home: Path | None, walk: Walk) -> Iterator[Path]:
    """Files below a folder in order of name, but for those of an installation; what cannot be read is noted."""
    for place, folders, files in os.walk(folder, onerror=lambda error: walk.note(error.filename, error)):
        here = Path(place)
        kept = [name for name in sorted(folders) if not _is_home(here / name, home)]
        folders[:] = kept
        yield from (here / name for name in sorted(files))


def _is_home(folder: Path, home: Path | None) -> bool:
    return (home is not None and folder.resolve() == home.resolve()) or os.path.isfile(folder / HOME_MARK)


def _is_text(path: Path) -> bool:
    """Whether a path can be written down: names from old disks may be in no known encoding."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _as_text(path: Path | str) -> str:
    """A path that can be printed, whatever bytes it consists of."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@dataclass
class Tally:
    """Totals of an ingest, as the reports come in."""

    ignored: int = 0
    done: int = 0
    unchanged: int = 0
    queued: int = 0
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
        return document | ({"queued": self.queued} if self.queued else {})

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
            console.print(f"{self.queued} files sent to the workers")
        for warning in it.get("warnings", []):
            console.print(f"note: {warning}")
        for failure in it["failed"]:
            console.print(f"failed: {failure['path']}: {failure['reason']}")


def _run(opened: Installation, walk: Walk, archive: str, wait: bool) -> Tally:
    tally = Tally(ignored=walk.ignored)
    tally.failed += [{"path": str(path), "reason": "there is no such file or folder"} for path in walk.missing]
    tally.failed += [{"path": _as_text(path), "reason": "its name is not UTF-8: rename it"} for path in walk.unnameable]
    tally.failed += [{"path": path, "reason": reason} for path, reason in walk.unreadable.items()]
    queue = opened.queue(notice=lambda message: progress_console.print(message))
    if opened.settings.broker_url:
        if not wait:
            queue.submit(walk.media, archive)
            tally.queued = len(walk.media)
            return tally
    else:
        opened.archive.mend()
    with _Progress(len(walk.media)) as progress:
        for report in queue.run(walk.media, archive):
            if report.state == "failed" and opened.settings.broker_url:
                # a file that kills its worker leaves no record of its own
                opened.records.ledger.record_file(Path(report.path), _media(report), archive, reason=report.reason)
            tally.add(report)
            progress.step(tally)
    if not opened.settings.broker_url:
        opened.archive.flush()
    return tally


class _Progress:
    """Rate, remaining time and failures so far: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._seen = 0
        self._last = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(), console=progress_console, transient=True, disable=not sys.stderr.isatty(),
        )  # fmt: skip
        self._task = self._bar.add_task("ingest", total=total, note="")

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._bar.stop()

    def step(self, tally: Tally) -> None:
        """One more file is done."""
        self._seen += 1
        elapsed = max(time.monotonic() - tally.started, 1e-9)
        seconds = sum(seconds for _, _, seconds in tally.media.values())
        note = f"{seconds / elapsed:.1f} × real time, {len(tally.failed)} failed"
        self._bar.update(self._task, advance=1, note=note)
        if not sys.stderr.isatty() and time.monotonic() - self._last >= LINE_EVERY:
            self._last = time.monotonic()
            remaining = elapsed / self._seen * (self._total - self._seen)
            line = f"{self._seen} of {self._total} files, {note}, about {remaining:.0f} s remaining"
            progress_console.print(line)


def _media(report: FileReport) -> MediaId | None:
    return MediaId(report.media) if report.media else None
