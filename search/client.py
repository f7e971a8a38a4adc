"""A small client of the search API: questions, people and jobs as typed answers, problems as one error.

Files are sent without their names, under numbers, and answers come back under the paths that were given.
"""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from search.answers import (
    EnrolAnswer,
    FindAnswer,
    ForgetAnswer,
    MatchAnswer,
    PersonSummary,
    VerifyAnswer,
    WhoAnswer,
)
from search.job_calls import FileStanding, JobCalls, JobPage, JobStanding
from search.transport import ProblemError, Transport, Unreachable, numbered, read

__all__ = [
    "Client", "FileStanding", "JobPage", "JobStanding", "JobUnfinished", "KnownPerson", "ProblemError", "Space",
    "Unreachable",
]  # fmt: skip

ModalityName = Literal["face", "voice"]
SimilarityName = Literal["cosine", "euclidean", "correlation"]

PAGE = 200
# A question, with the time that others' questions before it take; seconds.
TIMEOUT = 120.0
# How often a job is asked about while it runs, in seconds.
POLL_SECONDS = 1.0


class JobUnfinished(TimeoutError):
    """A job was not done within the time one wanted to wait; it goes on."""


@dataclass(frozen=True)
class KnownPerson(PersonSummary):
    """One enrolled person, and the version of their record."""

    version: int = 1

    @property
    def tag(self) -> str:
        """The entity tag of this version."""
        return f'"{self.id}-{self.version}"'


@dataclass(frozen=True)
class Space:
    """A space that can be searched, and the modalities of its vectors."""

    name: str
    digest: str
    dimension: int
    modalities: list[str]


class Client(JobCalls):
    """Asks one service. Not safe for several threads; a context manager.

    What can be repeated without harm is: reading, and writing with an idempotency key, up to four times in all,
    when the service is not reached or says that it will be ready again. Everything else is sent once.

    Args:
        url: of the service, such as ``http://127.0.0.1:8000``.
        key: as ``visavox keys create`` showed it; None where none is needed.
        timeout: seconds that one answer may take.
    """

    def __init__(self, url: str, key: str | None = None, timeout: float = TIMEOUT) -> None:
        self._transport = Transport(url, key, timeout)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_ended: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._transport.close()

    # ---- questions ----------------------------------------------------------------------------------------------

    def who(self, file: Path | str, wait: float = 3600.0) -> WhoAnswer:
        """Who speaks when in a file; of a long one, waits for the job.

        Args:
            file: a film or a sound.
            wait: most seconds to wait for a job.

        Raises:
            ProblemError, Unreachable. JobUnfinished: the job takes longer.
        """
        response = self._transport.send("POST", "/v1/who", files=[("file", file)])
        if response.status_code == 202:
            return read(WhoAnswer, self.wait_for(str(response.json()["job"]), wait))
        return read(WhoAnswer, response.json())

    def search(
        self,
        file: Path | str,
        want: ModalityName,
        top: int = 10,
        *,
        enrolled: bool | None = None,
        exclude_media: Sequence[str] = (),
    ) -> FindAnswer:
        """Faces or voices of whom a file shows. Raises ProblemError, Unreachable.

        Args:
            file: film, sound or photo.
            want: what to find.
            top: most hits, 1 to 1000.
            enrolled: True: only samples of enrolled people; False: only tracks that bear no name.
            exclude_media: content hashes of media in which nothing is to be found, 100 at most.
        """
        form: dict[str, Any] = {"want": want, "top": str(top)}
        form |= {} if enrolled is None else {"enrolled": str(enrolled).lower()}
        form |= {"exclude_media": list(exclude_media)} if exclude_media else {}
        return read(FindAnswer, self._transport.send("POST", "/v1/search", files=[("file", file)], data=form).json())

    def search_vector(
        self,
        vector: Sequence[float],
        space_digest: str,
        modality: ModalityName,
        want: ModalityName | None = None,
        top: int = 10,
        *,
        enrolled: bool | None = None,
        exclude_media: Sequence[str] = (),
    ) -> FindAnswer:
        """The same with a ready vector; filters as for :meth:`search`.

        Args:
            vector: as many numbers as the space has dimensions.
            space_digest: of the space it lies in, see :meth:`spaces`.
            modality: what it was made from.
            want: what to find; the modality itself if None.
            top: most hits, 1 to 1000.
        """
        asked = {
            "space_digest": space_digest, "modality": modality, "vector": [float(x) for x in vector], "top": top,
            "want": want, "enrolled": enrolled, "exclude_media": list(exclude_media),
        }  # fmt: skip
        return read(FindAnswer, self._transport.send("POST", "/v1/search", json=asked).json())

    def verify(self, one: Path | str, other: Path | str, similarity: SimilarityName = "cosine") -> VerifyAnswer:
        """Whether two files show one person. Raises ProblemError, Unreachable."""
        files = [("file", one), ("file", other)]
        return read(
            VerifyAnswer,
            self._transport.send("POST", "/v1/verify", files=files, data={"similarity": similarity}).json(),
        )

    def match(
        self, probe: Path | str, candidates: Sequence[Path | str], similarity: SimilarityName = "cosine"
    ) -> MatchAnswer:
        """Which candidate shows the person of the probe, under the paths given. Raises ProblemError, Unreachable."""
        files = [("probe", probe), *(("candidate", one) for one in candidates)]
        answer = read(
            MatchAnswer, self._transport.send("POST", "/v1/match", files=files, data={"similarity": similarity}).json()
        )
        paths = _sent_as(files)
        shown = [replace(one, path=paths.get(one.path, one.path)) for one in answer.candidates]
        return replace(answer, candidates=shown, answer=paths.get(answer.answer, answer.answer))

    def wait_for(self, identity: str, wait: float = 3600.0) -> dict[str, Any]:
        """The result of a long question once it is done.

        Raises:
            ProblemError, also with what ended it; Unreachable. JobUnfinished: it takes longer. TypeError: it is a job
            of another kind, see :meth:`follow`.
        """
        end = time.monotonic() + wait
        while True:
            standing = self.job(identity)
            if isinstance(standing, JobPage):
                raise TypeError(f"job {identity} is no question but reads files: follow() it")
            if standing.state == "done":
                return standing.result or {}
            if standing.state == "failed":
                error = standing.error or {}
                raise ProblemError(int(error.get("status", 500)), error, None)
            if time.monotonic() >= end:
                raise JobUnfinished(f"job {identity} is {standing.state} after {wait:.0f} s: ask for it again later")
            time.sleep(min(POLL_SECONDS, max(0.01, end - time.monotonic())))

    # ---- people -------------------------------------------------------------------------------------------------

    def people(self, page: int = PAGE) -> Iterator[KnownPerson]:
        """Everyone enrolled, by name, fetched in pages of 1 to 1000 while one goes through them."""
        after: str | None = None
        while True:
            asked = {"limit": str(page)} | ({"after": after} if after else {})
            told = self._transport.send("GET", "/v1/people", params=asked).json()
            yield from (read(KnownPerson, one) for one in told["people"])
            after = told.get("next")
            if after is None:
                return

    def person(self, name_or_id: str) -> KnownPerson:
        """One person. Raises ProblemError (``unknown-person``), Unreachable."""
        return read(KnownPerson, self._transport.send("GET", _address(name_or_id)).json())

    def create_person(self, name: str) -> KnownPerson:
        """Enter a person, once, though the answer may be lost on the way. Raises ProblemError, Unreachable."""
        return read(
            KnownPerson, self._transport.send("POST", "/v1/people", json={"name": name}, headers=_once()).json()
        )

    def rename_person(self, person: KnownPerson | str, name: str) -> KnownPerson:
        """Give a person another name.

        Args:
            person: as they are known here: if somebody changed them meanwhile, nothing is done and the problem is
                ``precondition-failed``. Or an id or name: then whatever their version.
            name: the new one.
        """
        changed = self._transport.send("PATCH", _address(person), json={"name": name}, headers=_if_unchanged(person))
        return read(KnownPerson, changed.json())

    def merge_person(self, person: KnownPerson | str, into: KnownPerson | str) -> KnownPerson:
        """Give all samples of a person to another, who is answered; the first goes. As for :meth:`rename_person`."""
        target = into.id if isinstance(into, KnownPerson) else into
        headers = _if_unchanged(person)
        return read(
            KnownPerson,
            self._transport.send("POST", f"{_address(person)}/merge", json={"into": target}, headers=headers).json(),
        )

    def delete_person(self, person: KnownPerson | str) -> ForgetAnswer:
        """Forget a person everywhere. As for :meth:`rename_person`."""
        return read(
            ForgetAnswer, self._transport.send("DELETE", _address(person), headers=_if_unchanged(person)).json()
        )

    def enrol(
        self, person: KnownPerson | str, files: Sequence[Path | str], idempotency_key: str | None = None
    ) -> EnrolAnswer:
        """Enrol files of a person: once, though it may have to be sent several times.

        Args:
            person: whom.
            files: photos, sounds or films, at most 100.
            idempotency_key: the same as of an earlier attempt that was cut off; made if None.

        Returns:
            What was added and what was refused, under the paths given.
        """
        parts = [("file", file) for file in files]
        headers = _once(idempotency_key)
        told = self._transport.send("POST", f"{_address(person)}/samples", files=parts, headers=headers).json()
        answer, paths = read(EnrolAnswer, told), _sent_as(parts)
        return replace(
            answer,
            added=[paths.get(one, one) for one in answer.added],
            refused=[replace(one, path=paths.get(one.path, one.path)) for one in answer.refused],
            warnings=[_under_paths(one, paths) for one in answer.warnings],
        )

    # ---- the rest -----------------------------------------------------------------------------------------------

    def evidence(self, identity: str, target: Path) -> Path:
        """Write the face crop (PNG) or speech turn (FLAC) behind a hit to a file, whole or not at all."""
        handle, partial = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                for chunk in self._transport.stream(f"/v1/evidence/{quote(identity, safe='')}"):
                    if chunk is None:  # from the beginning again
                        file.seek(0)
                        file.truncate()
                    else:
                        file.write(chunk)
            Path(partial).replace(target)
        finally:
            Path(partial).unlink(missing_ok=True)
        return target

    def spaces(self) -> list[Space]:
        """Every space that can be searched. Raises ProblemError, Unreachable."""
        return [read(Space, one) for one in self._transport.send("GET", "/v1/spaces").json()["spaces"]]

    def ready(self) -> list[str]:
        """What is missing before questions can be answered; empty if nothing is. Raises ProblemError, Unreachable."""
        try:
            self._transport.send("GET", "/readyz", attempts=1)
        except ProblemError as problem:
            if problem.status != 503:
                raise
            return [str(one) for one in problem.document.get("missing", [problem.detail])]
        return []


def _once(key: str | None = None) -> dict[str, str]:
    return {"Idempotency-Key": key or str(uuid.uuid4())}


def _if_unchanged(person: KnownPerson | str) -> dict[str, str]:
    return {"If-Match": person.tag} if isinstance(person, KnownPerson) else {}


def _address(person: KnownPerson | str) -> str:
    return f"/v1/people/{quote(person.id if isinstance(person, KnownPerson) else person, safe='')}"


def _sent_as(files: Sequence[tuple[str, Path | str]]) -> dict[str, str]:
    """The paths given, by the numbers under which they were sent."""
    return {numbered(n, file): str(file) for n, (_, file) in enumerate(files)}


def _under_paths(warning: str, paths: Mapping[str, str]) -> str:
    number, colon, rest = warning.partition(":")
    return f"{paths.get(number, number)}{colon}{rest}"
