"""Measurements that take a while, as jobs: of the encoders on invented people, on one's own, and on published lists."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field

from ingest.jobpage import JobPage
from ingest.ledger import RecordsError
from ingest.queues import BrokerUnavailable
from search.api import examples
from search.api.desks import AtDesk
from search.api.job_routes import LINKS, NamedPath, inside
from search.api.once import REPLAYED, Done, IdempotencyKey, digest_of, once
from search.api.people_routes import ONCE_PROBLEMS
from search.api.problems import CrossSite, PathRefused, answered, documented
from search.idempotency import Claim
from search.measurement import PROTOCOL, Measurement, OnLists, evaluation_job

router = APIRouter(tags=["jobs"])

_MODEL = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}"
_VECTORS = ".npz"


class Lists(BaseModel):
    """Published lists, and what is scored on them: files to encode, or vectors."""

    folder: NamedPath = Field(
        examples=[f"{examples.FOLDER}/protocol"],
        description="The folder of the lists, as the server and the workers see it, with its whole path.",
    )
    media: NamedPath | None = Field(
        default=None, examples=[f"{examples.FOLDER}/voxceleb1"],
        description="The folder of the files that they name, or else:",
    )  # fmt: skip
    embeddings: NamedPath | None = Field(
        default=None, examples=[f"{examples.FOLDER}/vectors.npz"],
        description="an npz file that holds `path` and `vector`.",
    )  # fmt: skip
    compare: NamedPath | None = Field(
        default=None, examples=[f"{examples.FOLDER}/others.npz"],
        description="Another such file, or with `media` the name of another encoder folder in the installation.",
    )  # fmt: skip
    similarity: Literal["cosine", "euclidean", "correlation"] = Field(
        default="cosine", examples=["cosine"], description="How vectors are compared."
    )
    through: Literal["milvus"] | None = Field(
        default=None, examples=["milvus"], description="Ask the index too, at the size of the gallery."
    )
    intervals: bool = Field(default=True, examples=[False], description="Whether people are resampled.")
    allow_seen: bool = Field(
        default=False, examples=[False], description="Measure also a model that knows test people."
    )
    allow_missing: bool = Field(
        default=False, examples=[True], description="Leave out trials whose samples are not there."
    )

    def paths(self) -> list[str]:
        """Everything that is to be read."""
        other = self.compare if self.compare is not None and self.compare.endswith(_VECTORS) else None
        return [path for path in (self.folder, self.media, self.embeddings, other) if path is not None]

    def asked(self, roots: Sequence[Path]) -> OnLists:
        """The same as a job asks it. Raises ValueError where it does not fit together."""
        names_encoder = self.compare is not None and not self.compare.endswith(_VECTORS)
        if names_encoder and not re.fullmatch(_MODEL, str(self.compare)):
            raise ValueError(f"compare is an npz file or the name of an encoder folder, not {self.compare!r}")
        return OnLists(
            self.folder, self.media, self.embeddings, self.compare, self.similarity, self.through is not None,
            self.intervals, self.allow_seen, self.allow_missing, tuple(map(str, roots)),
        )  # fmt: skip


class Evaluation(BaseModel):
    """What is to be measured, and which model."""

    on: Literal["population", "enrolled", "protocol"] = Field(
        examples=["enrolled"],
        description="`population`: the shared space on invented people nobody was trained on; `enrolled`: the encoders "
        "on the people who are enrolled; `protocol`: the shared space on published `lists`.",
    )
    model: Annotated[str, Field(pattern=f"^{_MODEL}$")] | None = Field(
        default=None, examples=["bi_quintuple-0123456789ab"],
        description="With `population` or `protocol`: name of an encoder folder in the installation; the one that "
        "serves by default.",
    )  # fmt: skip
    compare: Annotated[str, Field(pattern=f"^{_MODEL}$")] | None = Field(
        default=None, examples=["visavox-0123456789ab"],
        description="With `population`: name of another encoder folder, to compare with; a protocol's is in `lists`.",
    )  # fmt: skip
    lists: Lists | None = Field(
        default=None, examples=[{"folder": f"{examples.FOLDER}/protocol", "embeddings": f"{examples.FOLDER}/v.npz"}],
        description="With `protocol`: within the folders of `VISAVOX_MEDIA_ROOTS`, links followed.",
    )  # fmt: skip
    priority: int = Field(default=0, ge=-100, le=100, examples=[0], description="Higher comes first.")


@router.post(
    "/v1/evaluations", summary="Measure how well the encoders do", operation_id="evaluate",
    status_code=202, response_model=JobPage,
    responses=documented(PathRefused, BrokerUnavailable, CrossSite, RecordsError, *ONCE_PROBLEMS, body=True)
    | answered(
        examples.EVALUATION, 202, "Taken: a job, at Location, whose result is the report",
        {"Location": "The job.", "Retry-After": "Seconds.",
         REPLAYED: "`true` where this was done before, and the answer is that of then."}, LINKS,
    ),
)  # fmt: skip
async def evaluate(desk: AtDesk, request: Request, body: Evaluation, key: IdempotencyKey = None) -> Response:
    """The job that measures: its result is the report that ``visavox evaluate`` prints, kept until it is forgotten.

    Of a protocol the lists, the media and the files of vectors must lie in the folders of ``VISAVOX_MEDIA_ROOTS``,
    links followed; that is looked at when this is asked, and again of every file right before any is read.
    """
    del key  # documented and checked; read where it is needed
    work = desk.services.work
    try:
        lists = body.lists.asked(work.roots) if body.lists is not None else None
        asked = Measurement(body.on, model=body.model, lists=lists, compare=body.compare)
    except ValueError as error:
        of_lists = body.on == PROTOCOL or body.lists is not None
        wrong = "lists" if of_lists else "compare" if body.model is None else "model"
        raise RequestValidationError([{"loc": ("body", wrong), "msg": str(error)}]) from error

    def take() -> JobPage:
        if body.lists is not None:
            inside(body.lists.paths(), work.roots)
        return work.pages.page(work.hands.submit(evaluation_job(asked, body.priority)))

    async def enter(_claim: Claim | None) -> Done:
        page = await desk.look(take)
        return Done(page, 202, {"Location": f"/v1/jobs/{page.job}", "Retry-After": "5"})

    return await once(desk, request, digest_of({"body": body.model_dump_json()}), enter)
