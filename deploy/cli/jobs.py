"""``jobs``: what was asked for, how it stands, stopping it, going on with it, trying again what failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from typer.core import TyperGroup

from deploy.cli.files import JobProgress
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
    from ingest.book import Book
    from ingest.jobpage import FileStanding, JobPage

SHOW = "show"
# A job is known to people by so many letters of its id.
SHORT = 8
MOST_FILES, MOST_JOBS = 1000, 1000
# A job without workers of which nothing is heard for so long may have nobody who does it, in seconds.
SILENCE_SECONDS = 10.0
NOBODY = "nothing happens: jobs without workers are done by `visavox serve`, or by `visavox jobs retry` of what failed"

Id = Annotated[str, typer.Argument(metavar="ID", help="Of a job; its first letters are enough.")]


class JobGroup(TyperGroup):
    """A family of commands of which ``jobs ID`` is short for ``jobs show ID``: no id is the name of a command.

    Ids are hexadecimal digits, and no command's name consists of those alone.
    """

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - typer's own types are private
        """See TyperGroup."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = [SHOW, *args]
        return super().resolve_command(ctx, args)


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    family = typer.Typer(
        cls=JobGroup, invoke_without_command=True, rich_markup_mode=None,
        subcommand_metavar="[ID | COMMAND ID] [OPTIONS]",
    )  # fmt: skip
    family.callback()(jobs)
    for command in (show, cancel, pause, resume, retry, forget):
        family.command()(command)
    app.add_typer(family, name="jobs")


def jobs(
    context: typer.Context,
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Only those that are not finished.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=MOST_JOBS, help="Most jobs.")] = 20,
    json: Json = False,
) -> None:
    """List the jobs asked for last; with an ID, say how that one stands."""
    if context.invoked_subcommand:
        if json or unfinished:
            raise UsageError("options come after the id: visavox jobs ID --json")
        return
    with errors_translated():
        from ingest.jobpage import JobPages

        listed = JobPages(_book().database).recent(limit, unfinished=unfinished)
    answer({"jobs": [asdict(page) for page in listed]}, json, lambda: _show_all(listed))


def show(
    job: Id,
    files: Annotated[bool, typer.Option("--files", help="List its files, one by one.")] = False,
    state: Annotated[list[str] | None, typer.Option(help="Only files that stand so, such as failed.")] = None,
    after: Annotated[int, typer.Option(min=0, help="Only files behind this number.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=MOST_FILES, help="Most files.")] = MOST_FILES,
    follow: Annotated[
        bool, typer.Option("--follow", help="Stay until it is finished; Ctrl-C leaves it running.")
    ] = False,
    json: Json = False,
) -> None:
    """Say how a job stands; `visavox jobs ID` is the same."""
    if files and follow:
        raise UsageError("--files or --follow: not both")
    if (state or after) and not files:
        raise UsageError("--state and --after choose files: add --files")
    with errors_translated():
        from ingest.jobpage import JobPages

        book = _book()
        pages = JobPages(book.database)
        identity = pages.named(job)
        if files:
            _list_files(pages.files(identity, states=_states(state), after=after, limit=limit), limit, json)
            return
        page = _followed(book, identity) if follow else pages.page(identity)
    code = WITH_FAILURES if follow and _has_failures(page) else DONE
    answer(page, json, lambda: _show(page), code=code)


def cancel(job: Id, json: Json = False) -> None:
    """Do nothing more of a job; what is being read is abandoned."""
    _change(job, json, lambda book, identity: book.cancel(identity))


def pause(job: Id, json: Json = False) -> None:
    """Begin nothing more of a job; what is being read is read to its end."""
    _change(job, json, lambda book, identity: book.pause(identity))


def resume(job: Id, json: Json = False) -> None:
    """Go on with a paused job."""

    def go_on(book: Book, identity: str) -> None:
        book.resume(identity)
        _ring(book)

    _change(job, json, go_on)


def retry(job: Id, json: Json = False) -> None:
    """Try again the files of a job that failed or were cancelled: by the workers, or without them here and now."""
    with errors_translated():
        from deploy.settings import load_settings
        from ingest.flow import INGEST, first_step
        from ingest.jobpage import JobPages

        book, here = _book(), not load_settings().broker_url
        pages = JobPages(book.database)
        page = pages.page(pages.named(job))
        if page.kind != INGEST:
            raise NothingDone("job_unrepeatable", f"job {page.job} is of the kind {page.kind}: ask for it anew")
        again = book.retry(page.job, first_step(page.asked), here=here)
        if not here:
            _ring(book)
        elif again:
            _do_here(page.job)
        page = pages.page(page.job)

    def tell() -> None:
        console.print(f"{again} files {'were' if here else 'are'} tried again")
        _show(page)

    code = WITH_FAILURES if here and again and _has_failures(page) else DONE
    answer(asdict(page) | {"again": again}, json, tell, code=code)


def forget(job: Id, json: Json = False) -> None:
    """Forget a finished job; what it read stays."""
    with errors_translated():
        from ingest.jobpage import JobPages

        book = _book()
        identity = JobPages(book.database).named(job)
        try:
            book.forget(identity)
        except ValueError as error:
            raise NothingDone("job_unfinished", str(error)) from error
    answer({"forgotten": identity}, json, lambda: console.print(f"job {identity} is forgotten"))


def _change(job: str, json: bool, change: Callable[[Book, str], None]) -> None:
    with errors_translated():
        from ingest.jobpage import JobPages

        book = _book()
        pages = JobPages(book.database)
        identity = pages.named(job)
        change(book, identity)
        page = pages.page(identity)
    answer(page, json, lambda: _show(page))


def _book() -> Book:
    from deploy.settings import load_settings
    from ingest.book import Book
    from ingest.ledger import open_database

    settings = load_settings()
    settings.home.mkdir(parents=True, exist_ok=True)
    return Book(open_database(settings.database_url))


def _ring(book: Book) -> None:
    """Wake the workers up, if there are any."""
    from deploy.settings import load_settings
    from ingest.worker import CeleryQueue

    if broker := load_settings().broker_url:
        CeleryQueue(broker, book).wake()


def _do_here(job: str) -> None:
    """Do the tasks of a job in this process, as ``ingest`` does."""
    from deploy.wiring import OUTAGE_SECONDS, Outage, installation
    from deploy.working import queue_of
    from ingest.book import Book

    with installation(outage=Outage(OUTAGE_SECONDS, progress_console.print)) as opened:
        opened.archive.mend()
        try:
            with JobProgress() as progress:
                for page in queue_of(opened, notice=progress_console.print).follow(job):
                    progress.show(page)
        except BaseException:  # asked for again, it goes on where it was
            Book(opened.database).cancel(job)
            raise
        finally:
            opened.archive.flush()


def _followed(book: Book, job: str) -> JobPage:
    """The job once it is finished; who follows it does none of it."""
    from deploy.settings import load_settings
    from ingest.worker import CeleryQueue

    broker = load_settings().broker_url
    queue = CeleryQueue(broker, book, progress_console.print) if broker else None
    with JobProgress() as progress:
        for page in queue.follow(job) if queue else _watched(book, job):
            progress.show(page)
    return page


def _watched(book: Book, job: str) -> Iterator[JobPage]:
    from ingest.jobpage import JobPages
    from ingest.queues import PAGE_SECONDS

    pages, last, since = JobPages(book.database), None, time.monotonic()
    while True:
        page = pages.page(job)
        yield page
        if page.finished is not None:
            return
        if page.counts != last:
            last, since = page.counts, time.monotonic()
        elif time.monotonic() - since > SILENCE_SECONDS and not page.counts["running"] and page.state != "paused":
            progress_console.print(NOBODY)
            since = float("inf")  # once is enough
        time.sleep(PAGE_SECONDS)


def _states(given: list[str] | None) -> list[Any]:
    from ingest.tasks import ItemState

    try:
        return [ItemState(one) for one in given or []]
    except ValueError as error:
        raise UsageError(f"--state is one of {', '.join(ItemState)}: {error}") from error


def _has_failures(page: JobPage) -> bool:
    """Whether something of a job failed: itself, a file of it, or a path that could not be looked into."""
    return page.state == "failed" or page.counts["failed"] > 0 or bool((page.result or {}).get("failed"))


def _list_files(found: list[FileStanding], limit: int, json: bool) -> None:
    def tell() -> None:
        for file in found:
            console.print(f"{file.number:>7}  {file.state:<9}  {file.path}{f': {file.reason}' if file.reason else ''}")
        if following:
            console.print(f"more: --after {following}")

    following = found[-1].number if len(found) == limit else None
    answer({"files": [asdict(file) for file in found], "next": following}, json, tell)


def _show_all(listed: list[JobPage]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("job", "what", "state", "archive", "files", "done", "failed", "asked"):
        table.add_column(name, justify="right" if name in ("files", "done", "failed") else "left", no_wrap=True)
    for page in listed:
        done = page.counts["done"] + page.counts["unchanged"]
        numbers = (str(page.files), str(done), str(page.counts["failed"]))
        table.add_row(page.job[:SHORT], page.kind, page.state, page.archive, *numbers, _moment(page.created))
    if listed:
        console.print(table)
    else:
        console.print("no jobs yet: visavox ingest PATH")


def _show(page: JobPage) -> None:
    """A job for people."""
    console.print(f"job {page.job}: {page.kind} into {page.archive}, {page.state}, asked {_moment(page.created)}")
    counted = ", ".join(f"{number} {state}" for state, number in page.counts.items() if number)
    console.print(f"{page.files} files{': ' if counted else ''}{counted}; {page.seconds_of_media:.0f} s of media")
    if page.rate:
        note = f"{page.rate:.2f} files per second, {page.real_time:.1f} × real time"
        left = "" if page.remaining is None else f", about {page.remaining:.0f} s remaining"
        console.print(note + left)
    if page.obstacle:
        console.print(f"waits: {page.obstacle}")
    if page.error:
        console.print(f"failed: {page.error}")
    for one in (page.result or {}).get("failed", []):
        console.print(f"failed: {one['path']}: {one['reason']}")
    for file in page.first_errors:
        console.print(f"failed: {file.path}: {file.reason}")
    if page.counts["failed"] > len(page.first_errors):
        console.print(f"all of them: visavox jobs {page.job[:SHORT]} --files --state failed")


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
