"""Jobs over the search API: what :class:`search.client.Client` can ask of them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from ingest.jobpage import FileStanding, JobPage
from search.transport import Transport, read

__all__ = ["FileStanding", "JobCalls", "JobPage", "JobStanding"]

FileState = Literal["waiting", "running", "done", "unchanged", "failed", "cancelled"]
# Files are fetched so many at a time.
PAGE = 500


@dataclass(frozen=True)
class JobStanding:
    """A long question: its id, how it stands, and its answer or the problem that ended it."""

    job: str
    state: Literal["queued", "running", "done", "failed"]
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


class JobCalls:
    """Asks one service about jobs. Every method raises ProblemError (``unknown-job`` …) and Unreachable."""

    _transport: Transport

    def ingest(
        self,
        paths: Sequence[Path | str],
        archive: str = "default",
        priority: int = 0,
        idempotency_key: str | None = None,
    ) -> JobPage:
        """Have files and folders read into an archive: once, though it may have to be sent several times.

        Args:
            paths: as the service sees them, whole, within its ``VISAVOX_MEDIA_ROOTS``.
            archive: name of the archive.
            priority: -100 to 100, higher comes first.
            idempotency_key: the same as of an earlier attempt that was cut off; made if None.

        Returns:
            The job, which has only begun.
        """
        asked = {"paths": [str(path) for path in paths], "archive": archive, "priority": priority}
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return read(JobPage, self._transport.send("POST", "/v1/ingests", json=asked, headers=headers).json())

    def evaluate(
        self,
        on: Literal["population", "enrolled", "protocol"],
        model: str | None = None,
        lists: Mapping[str, Any] | None = None,
        priority: int = 0,
        idempotency_key: str | None = None,
    ) -> JobPage:
        """Have the encoders measured: the job's ``result`` becomes the report.

        Args:
            on: whom to measure on.
            model: with ``population`` or ``protocol`` the name of an encoder folder there, or the one that serves.
            lists: with ``protocol``: ``folder``, and ``media`` or ``embeddings``, all within its
                ``VISAVOX_MEDIA_ROOTS``; perhaps ``compare``, ``similarity``, ``through``, ``intervals``,
                ``allow_seen`` and ``allow_missing``.
            priority: -100 to 100, higher comes first.
            idempotency_key: as of :meth:`ingest`.
        """
        told = None if lists is None else {name: _plain(value) for name, value in lists.items()}
        asked = {"on": on, "model": model, "lists": told, "priority": priority}
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return read(JobPage, self._transport.send("POST", "/v1/evaluations", json=asked, headers=headers).json())

    def jobs(self, limit: int = 20, *, unfinished: bool = False) -> list[JobPage]:
        """The jobs asked for last, the newest first, 100 at most; long questions are not among them."""
        asked = {"limit": str(limit), "unfinished": str(unfinished).lower()}
        told = self._transport.send("GET", "/v1/jobs", params=asked).json()
        return [read(JobPage, one) for one in told["jobs"]]

    def job(self, identity: str) -> JobPage | JobStanding:
        """How a job stands: one that reads files, or a long question."""
        told = self._transport.send("GET", _address(identity)).json()
        return read(JobPage, told) if "counts" in told else read(JobStanding, told)

    def job_page(self, identity: str) -> JobPage:
        """How a job stands that reads files. Raises TypeError of a long question."""
        found = self.job(identity)
        if isinstance(found, JobStanding):
            raise TypeError(f"job {identity} is a long question: ask for it with job()")
        return found

    def job_files(self, identity: str, states: Sequence[FileState] = (), page: int = PAGE) -> Iterator[FileStanding]:
        """The files of a job in order of number, fetched in pages of 1 to 1000 while one goes through them.

        Args:
            identity: of the job.
            states: only files that stand so; all by default.
            page: files of a page.
        """
        after: int | None = 0
        while after is not None:
            asked: dict[str, Any] = {"limit": str(page), "after": str(after)}
            asked |= {"state": list(states)} if states else {}
            told = self._transport.send("GET", f"{_address(identity)}/files", params=asked).json()
            yield from (read(FileStanding, one) for one in told["files"])
            after = told["next"]

    def follow(self, identity: str) -> Iterator[JobPage]:
        """How a job stands, now and whenever that changes, and at last when it is finished.

        One who stops listening leaves the job to go on. A connection that is lost is made again.
        """
        for event, data in self._transport.events(f"{_address(identity)}/events", last="end"):
            if event == "page":
                yield read(JobPage, json.loads(data))

    def cancel_job(self, identity: str) -> JobPage:
        """Do nothing more of a job; how it stands then."""
        return self._change(identity, "cancel")

    def pause_job(self, identity: str) -> JobPage:
        """Begin nothing more of a job; how it stands then."""
        return self._change(identity, "pause")

    def resume_job(self, identity: str) -> JobPage:
        """Go on with a paused job; how it stands then."""
        return self._change(identity, "resume")

    def retry_job(self, identity: str) -> int:
        """Try the failed and the cancelled files of a job again; how many those are."""
        return int(self._transport.send("POST", f"{_address(identity)}/retry").json()["again"])

    def forget_job(self, identity: str) -> None:
        """Forget a finished job. Raises ProblemError (``job-unfinished``) of another one."""
        self._transport.send("DELETE", _address(identity))

    def _change(self, identity: str, what: str) -> JobPage:
        return read(JobPage, self._transport.send("POST", f"{_address(identity)}/{what}").json())


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


def _address(identity: str) -> str:
    return f"/v1/jobs/{quote(identity, safe='')}"
