"""A training on one's own archive: films → people who are seen to speak → head → encoder folder → report.

No film is opened, unless an earlier version read it that did not keep who speaks in it: the points of the identity
networks are in the index, and a head learns from them in minutes. The published folder names the identity networks,
and holds no sample of anybody: its golden samples are those that come with Visavox.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from deploy.models import ENCODERS
from deploy.reading import FACE_DETECTOR
from deploy.training import DEPTH, PUBLISHED_FILE, RUNS, Outcome, Told, published_folder, run_here, tell_training
from deploy.wiring import Installation
from encoders.encoder import Encoder, packaged_encoders
from encoders.folder import GOLDEN_FILE
from encoders.golden import load_golden
from encoders.space import Modality
from ingest.track import media_id
from search.scores import Purpose, Similarity, calibration_for
from training.checkpoint import write_json
from training.corpora import Split
from training.filmed import Reader
from training.held_out import measure_vectors
from training.loop import RunSettings, TrainingData, train
from training.mining import Mined, mine, split_people, vectors_of_people
from training.publish import Origin, publish, read_report, record_report
from training.reading import Preparation
from training.recipe import Recipe, recipe_name
from training.runs import describe
from training.vectors import Vectors


class NoArchive(Exception):
    """There is no archive of that name, or nothing is in it."""


@dataclass(frozen=True)
class ArchiveOrder:
    """What is to be trained on whom.

    Args:
        recipe: the method.
        settings: its numbers.
        archive: the archive whose films are mined; None: the enrolled alone.
        enrolled: whether what people are enrolled with is learned from too. Whoever is enrolled with what the films
            themselves show is known by that name either way, so that they are not measured on as strangers later.
        run: seed and the like.
    """

    recipe: Recipe
    settings: Any
    archive: str | None
    enrolled: bool
    run: RunSettings

    def __post_init__(self) -> None:
        if self.archive is None and not self.enrolled:
            raise ValueError("say whom to learn from: an archive, the enrolled, or both")


@dataclass(frozen=True, eq=False)
class _Gathered:
    """What was mined: vectors of each side, how many of it no film shows, and what the report says."""

    sides: dict[Split, Vectors]
    unfilmed: dict[Split, int]
    domain: str
    told: dict[str, Any]


def train_archive(opened: Installation, order: ArchiveOrder, told: Told) -> Outcome:
    """Do whatever is not done yet of an order; the same people again are answered at once.

    Args:
        opened: the installation whose archive it is.
        order: what to do.
        told: see :data:`deploy.training.Told`.

    Raises:
        NoArchive, TooFewMined, TrainingError, CheckpointError, PublishError, EncoderError, StoreError, RecordsError,
        OSError: it cannot be done; the message says why.
    """
    began = time.monotonic()
    home = opened.settings.home
    gathered = _gather(opened, order, told)
    opened.release()  # others may use an embedded index while this learns
    training, validation, test = (gathered.sides[side] for side in (Split.TRAIN, Split.VALIDATION, Split.TEST))
    run, settings = run_here(opened, order.run), order.settings.fitting(training.apart)
    decides = describe(order.recipe, settings, run, frozen=True) | {"domain": gathered.domain}
    decides |= {side.name: vectors.digest for side, vectors in gathered.sides.items()}
    key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
    run_folder = home / RUNS / f"{recipe_name(order.recipe)}-{key}"
    encoder = published_folder(run_folder, home / ENCODERS)
    if encoder is not None and (report := read_report(encoder)) is not None:
        return Outcome(encoder, report, time.monotonic() - began, before=True)
    if encoder is None:
        data = TrainingData(training, validation)
        trained = train(order.recipe, settings, data, run_folder, run, partial(tell_training, told))
        told("publishing", 0, 1, "")
        encoder = publish(order.recipe, settings, data, trained, _origin(gathered), home / ENCODERS)
        write_json(run_folder / PUBLISHED_FILE, {"encoder": encoder.name})
    told("measuring on people held out", 0, 1, "")
    loaded = Encoder.load(encoder, device=opened.settings.device, precision="auto")
    with opened.scratch_store() as store:
        report = measure_vectors(loaded, test, f"held out of {gathered.domain}", store, DEPTH)
    report["mined"] = gathered.told
    record_report(encoder, report)
    told("measuring on people held out", 1, 1, "")
    return Outcome(encoder, report, time.monotonic() - began, before=False)


def mine_archive(opened: Installation, archive: str | None, enrolled: bool, told: Told) -> Mined:
    """Everybody who can be learned from.

    Args:
        opened: the installation.
        archive: whose films are mined; None: no films.
        enrolled: whether people who are enrolled are learned from too.
        told: see :data:`deploy.training.Told`.

    Raises:
        NoArchive: nothing is in that archive. StoreError, RecordsError: see there.
    """
    ledger = opened.records.ledger
    media = ledger.archived(archive) if archive is not None else {}
    if archive is not None and not media:
        there = ", ".join(sorted(ledger.archives())) or "none yet"
        raise NoArchive(f"nothing is in an archive {archive!r}: archives are {there}; visavox ingest PATH fills one")
    opened.archive.mend()
    if archive is not None:
        _read_again(opened, archive, media, told)
    encoders = {modality: opened.encoders[f"{modality}_identity"] for modality in Modality}
    reader = Reader(opened.records, opened.store, {modality: one.space for modality, one in encoders.items()})
    calibrations = {
        modality: calibration_for(
            one.calibration, (modality, modality), Purpose.IDENTIFY, Similarity.COSINE, space=one.space.name
        )
        for modality, one in encoders.items()
    }
    told("mining", 0, len(media), "")
    mined = mine(reader.films(media), reader.enrolled() if enrolled else [], calibrations)
    told("mining", len(media), len(media), f"{len(mined.people)} people")
    return mined


def _read_again(opened: Installation, archive: str, media: dict[str, list[Path]], told: Told) -> None:
    """Read the films of which the records do not say who speaks: an earlier version did not keep it."""
    ledger = opened.records.ledger
    left = []
    for one, paths in media.items():
        record = ledger.medium(one)
        if record is not None and record.faces and record.voices and not ledger.pairings(one):
            left += [(one, path) for path in paths[:1] if path.is_file() and media_id(path) == one]
    for done, (one, path) in enumerate(left):
        told("reading films again, to see who speaks", done, len(left), "")
        ledger.reopen(one)
        opened.archive.ingest_file(path, archive)
    if left:
        opened.archive.flush()
        told("reading films again, to see who speaks", len(left), len(left), "")


def _gather(opened: Installation, order: ArchiveOrder, told: Told) -> _Gathered:
    """Mine, and part those who are learned from from those held out."""
    mined = mine_archive(opened, order.archive, order.enrolled, told)
    sides = split_people(mined)
    spaces = {modality: opened.encoders[f"{modality}_identity"].space for modality in Modality}
    domains = opened.domains
    return _Gathered(
        {side: vectors_of_people(people, spaces, mined.beside) for side, people in sides.items()},
        {side: sum(not one.films for one in people) for side, people in sides.items()},
        domains.enrolled() if order.archive is None else domains.archive(order.archive),
        {
            "archive": order.archive,
            "films": mined.films,
            "turns": mined.turns,
            "pairs": mined.pairs,
            "people": len(mined.people),
            "possibly_one": sum(len(mined.beside[one.name]) > 1 for one in mined.people),
            "enrolled": sum(one.enrolled for one in mined.people),
            "sides": {side.name.lower(): len(people) for side, people in sides.items()},
        },
    )


def _origin(gathered: _Gathered) -> Origin:
    """What the folder says of whom it was made from: numbers, and the words of the domain."""

    told, domain = gathered.told, gathered.domain
    filmed = told["archive"] is not None

    def counted(side: Split, whom: str) -> str:
        vectors, besides = gathered.sides[side], gathered.unfilmed[side]
        also = f", {besides} of whom are enrolled and in no film" if filmed and besides else ""
        return (
            f"{len(vectors.identities)} {whom} of {domain}{also}; {len(vectors.faces)} looks at faces and "
            f"{len(vectors.voices)} speech turns of them"
        )

    frozen = {modality: packaged_encoders()[f"{modality}_identity"] for modality in Modality}
    how = f"mined out of {told['films']} media by who is seen to speak" if filmed else "enrolled"
    return Origin(
        domain=domain,
        trained_on=f"{counted(Split.TRAIN, 'people')} ({how})",
        validated_on=counted(Split.VALIDATION, "other people"),
        preparation=Preparation(detector=FACE_DETECTOR),
        golden={modality: load_golden(folder / GOLDEN_FILE, modality)[0] for modality, folder in frozen.items()},
        frozen=frozen,
    )
