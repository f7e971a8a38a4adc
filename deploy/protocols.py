"""Measures a model on a protocol's lists: from a file of embeddings, or from media by an encoder.

From a file nothing heavy is loaded: neither a network nor the index, unless ``--through`` asks for it. What was drawn
and which vectors were measured is kept in the home::

    protocols/<digest>/            lists that were drawn, by their digest
    protocols/evaluations.json     digests of the vectors that were measured, in order, by digest of the lists
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deploy.report_files import ReportFiles
from deploy.settings import Settings, load_settings
from encoders.probe_centres import ProbeCentres
from encoders.space import Modality, SpaceMismatch
from search.generated_lists import keep_drawn, with_drawn
from search.list_folder import refuse_outside
from search.measurement import Measurement, Model, NoModel
from search.protocol_report import Measured, check_seen, report_on
from search.published_lists import read_trial_lists
from search.report_pictures import Picture
from search.sample_vectors import SampleVectors, read_sample_vectors
from search.scores import Similarity
from search.trial_lists import TrialLists

PROTOCOLS = "protocols"
EVALUATIONS = "evaluations.json"
VECTORS = ".npz"

Told = Callable[[str, int, int, str], None]


@dataclass(frozen=True)
class Asked:
    """What is to be measured, and how.

    Args:
        protocol: folder of the lists.
        media: folder of the files that they name; None: the vectors come from a file.
        embeddings: that file.
        model: an encoder folder or its name in the home; None: with media the one that serves.
        compare: another npz file, or with media another encoder folder.
        similarity: how vectors are compared.
        through_index: whether the index is asked too.
        intervals: whether people are resampled.
        allow_seen: measure also what was trained on people of the test.
        allow_missing: leave out trials of samples that are not there.
        export: a file for the vectors.
        files: for the report as a page and as text.
        within: folders that nothing may lie outside of that is read, links followed; None: wherever it lies.
    """

    protocol: Path
    media: Path | None = None
    embeddings: Path | None = None
    model: str | None = None
    compare: str | None = None
    similarity: Similarity = Similarity.COSINE
    through_index: bool = False
    intervals: bool = True
    allow_seen: bool = False
    allow_missing: bool = False
    export: Path | None = None
    files: ReportFiles = field(default_factory=ReportFiles)
    within: tuple[str, ...] | None = None

    @classmethod
    def of(cls, measurement: Measurement) -> Asked:
        """The same as a job asks it. Raises ValueError where that is not about a protocol."""
        lists = measurement.lists
        if lists is None:
            raise ValueError(f"a measurement on {measurement.on} has no lists")
        return cls(
            Path(lists.folder), _path(lists.media), _path(lists.embeddings), measurement.model, lists.compare,
            Similarity(lists.similarity), lists.through_index, lists.intervals, lists.allow_seen, lists.allow_missing,
            _path(measurement.export), ReportFiles.named(measurement.html, measurement.markdown), lists.within,
        )  # fmt: skip

    def refuse_outside(self) -> None:
        """Raise ProtocolError if something is to be read that lies outside of where it may."""
        other = Path(self.compare) if self.compare is not None and self.compare.endswith(VECTORS) else None
        for path in (self.protocol, self.media, self.embeddings, other):
            if path is not None:
                refuse_outside(path, self.within)


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)


def measure_protocol(asked: Asked, told: Told = lambda *_: None, settings: Settings | None = None) -> dict[str, Any]:
    """Measure, and give the report.

    Args:
        asked: what, and how.
        told: hears of each stage and how much of it is done.
        settings: of the installation; by default as the environment says.

    Raises:
        NoModel: media are given and no model. ProtocolError, PointsError, SeenInTraining, NothingToMeasure,
        SpaceMismatch, EncoderError, StoreError, OSError: see there.
    """
    told("reading the lists", 0, 1, "")
    asked.refuse_outside()
    lists = with_drawn(read_trial_lists(asked.protocol, asked.within))
    settings = settings or load_settings()
    home = settings.home
    measured = _measured(asked, lists, settings, told)
    other = None
    if asked.compare is not None:
        other = _compared(asked, lists, asked.compare, settings, told)
    told("scoring", 0, 1, "")
    report = report_on(lists, measured, other=other, intervals=asked.intervals, allow_seen=asked.allow_seen)
    if asked.through_index:
        told("asking the index", 0, 1, "")
        _through_index(lists, measured.vectors, settings, report)
    if asked.media is not None:  # what encodes is loaded anyway
        report["label_agreement"] = _label_agreement(lists, measured.vectors)
    place = keep_drawn(lists, home / PROTOCOLS)
    report["protocol"]["drawn_in"] = str(place.relative_to(home)) if place else None
    report["test_evaluations"] = _counted(home / PROTOCOLS, lists, measured)
    if asked.export is not None:
        from search.protocol_media import export_vectors

        export_vectors(asked.export, measured.vectors, lists)
    told("scoring", 1, 1, "")
    if asked.files:
        told("drawing the report", 0, 1, "")
        before = other.vectors if other else None
        further = _before_and_after(asked, lists, measured, settings) if asked.files.html else []
        asked.files.write(report, lists, measured.vectors, before=before, media=asked.media, further=further)
        told("drawing the report", 1, 1, "")
    return report


def _measured(asked: Asked, lists: TrialLists, settings: Settings, told: Told) -> Measured:
    if asked.embeddings is None:
        return _encoded(asked, lists, asked.model, settings, told)
    vectors = read_sample_vectors(asked.embeddings, lists, asked.similarity, allow_missing=asked.allow_missing)
    if asked.model is None:
        return Measured(vectors)
    stated = _stated(asked.model, settings)
    _require_space(asked.embeddings, vectors, stated)
    # asked as the model asks, whoever wrote the file
    return Measured(replace(vectors, probe_centres=stated.probe_centres), stated)


def _compared(asked: Asked, lists: TrialLists, other: str, settings: Settings, told: Told) -> Measured:
    if other.endswith(VECTORS):
        vectors = read_sample_vectors(Path(other), lists, asked.similarity, allow_missing=asked.allow_missing)
        return Measured(vectors)
    return _encoded(asked, lists, other, settings, told)


@dataclass(frozen=True)
class _Stated:
    """What an encoder folder says of itself, without its networks."""

    space: Any
    domain: str
    trained_on: str
    identities: frozenset[str]
    probe_centres: ProbeCentres


def _stated(model: str, settings: Settings) -> _Stated:
    from deploy.models import find_folder
    from encoders.folder import read_description, read_identities, read_probe_centres

    folder = find_folder(model, settings.home)
    description = read_description(folder)
    identities = read_identities(folder, description)
    centres = read_probe_centres(folder, description)
    return _Stated(description.make_space(), description.domain, description.trained_on, identities, centres)


def _require_space(path: Path, vectors: SampleVectors, model: Model) -> None:
    unlike = vectors.space_digest and vectors.space_digest != model.space.digest
    if unlike or vectors.vectors.shape[1] != model.space.dimension:
        raise SpaceMismatch(
            f"{path}: holds vectors of {vectors.vectors.shape[1]} components of the space "
            f"{vectors.space_digest[:12] or 'not stated'}, and the model makes {model.space.dimension} of "
            f"{model.space.digest[:12]}: they are not of this model"
        )


def _encoded(asked: Asked, lists: TrialLists, model: str | None, settings: Settings, told: Told) -> Measured:
    from deploy.models import check_model, find_folder, serving_folder
    from deploy.training import sample_readers
    from search.protocol_media import embed_lists, find_files

    folder = find_folder(model, settings.home) if model is not None else serving_folder(settings)
    if folder is None:
        raise NoModel("no shared-space encoder serves: name one with --model, or give vectors with --embeddings")
    if asked.media is None:
        raise NoModel(f"{folder} is an encoder and needs --media to encode: compare with an .npz file instead")
    encoder = check_model(folder, settings.device)
    check_seen(
        lists, Measured(SampleVectors.nothing(lists, encoder.space.dimension), encoder), allowed=asked.allow_seen
    )
    files = find_files(lists, asked.media, allow_missing=asked.allow_missing, within=asked.within)

    def seen(done: int, total: int, unusable: int) -> None:
        told(f"encoding by {folder.name}", done, total, f"{unusable} unusable" if unusable else "")

    vectors, unusable = embed_lists(lists, files, encoder, sample_readers(), asked.similarity, seen)
    return Measured(vectors, encoder, unusable)


def _through_index(lists: TrialLists, vectors: SampleVectors, settings: Settings, report: dict[str, Any]) -> None:
    from deploy.wiring import Installation
    from search.through_index import through_index

    sides, opened = vectors.sides(lists.usable(vectors.present)), Installation(settings)
    with closing(opened), opened.scratch_store() as store:
        asking = vectors.asking(sides)
        for way, figures in through_index(sides, store, space_digest=vectors.space_digest, asking=asking).items():
            report["retrieval"][way] |= figures
        report["index"] = type(store).__name__


def _searched(lists: TrialLists, vectors: SampleVectors) -> tuple[dict[Modality, Any], dict[Modality, list[str]]]:
    """By modality, the vectors of the samples that are searched with and for, and whom these show."""
    rows = lists.usable(vectors.present).retrieval
    points = {one: vectors.vectors[vectors.rows[one][mine]] for one, mine in rows.items()}
    people = {one: [lists.people.names[person] for person in lists.catalogues[one].person[mine].tolist()]
              for one, mine in rows.items()}  # fmt: skip
    return points, people


def _label_agreement(lists: TrialLists, vectors: SampleVectors) -> dict[str, Any]:
    """Of the samples that are searched with and for."""
    from training.label_agreement import agreement_of_labels

    return agreement_of_labels(*_searched(lists, vectors))


def _before_and_after(asked: Asked, lists: TrialLists, measured: Measured, settings: Settings) -> Sequence[Picture]:
    """What training made of a few of the people, where an encoder has read their files."""
    from deploy.before_and_after import pictures_of_training
    from encoders.encoder import Encoder
    from search.protocol_media import find_files

    if asked.media is None or not isinstance(measured.model, Encoder):
        return []
    files = find_files(lists, asked.media, allow_missing=asked.allow_missing, within=asked.within)
    rows = lists.usable(measured.vectors.present).retrieval
    names = {one: [lists.catalogues[one].paths[row] for row in mine.tolist()] for one, mine in rows.items()}
    points, people = _searched(lists, measured.vectors)
    return pictures_of_training(
        measured.model, points, people, lambda one, row: files[one][names[one][row]], settings.home
    )


def _counted(folder: Path, lists: TrialLists, measured: Measured) -> dict[str, int]:
    """The how-manieth set of vectors this is that this installation has measured on these lists.

    The same vectors compared in the same way keep their number, so that they give the same report again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / EVALUATIONS
    known: dict[str, list[str]] = {}
    with suppress(OSError, ValueError):
        known = json.loads(path.read_text(encoding="utf-8"))
    vectors = measured.vectors
    name = f"{vectors.digest} {vectors.similarity}"
    if vectors.applied:
        told = "".join(f"{one} {vectors.applied[one].tolist()}" for one in sorted(vectors.applied))
        name = f"{name} {hashlib.sha256(told.encode()).hexdigest()}"
    before = known.setdefault(lists.digest, [])
    if name not in before:
        before.append(name)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}")
        unfinished.write_text(json.dumps(known, indent=1), encoding="utf-8")
        unfinished.replace(path)
    return {"number": before.index(name) + 1}
