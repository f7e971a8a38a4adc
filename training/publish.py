"""A trained run becomes an encoder folder ``<recipe>-<12 digits of the space's digest>``, and later its report.

What training alone needed (classifiers, gates) stays behind: the folder holds the two networks, the head,
the identities, golden samples, a calibration fitted on validation people, and a model card. Where probes of a modality
ask without their mean, the digits are of that too: the same vectors asked in another way are another folder.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from encoders.encoder import Encoder, Sample
from encoders.folder import (
    CALIBRATION_FILE,
    CARD_FILE,
    IDENTITIES_FILE,
    PROBES_FILE,
    Branch,
    Description,
    FolderFile,
    HeadDescription,
    read_description,
    read_identities,
    read_json,
)
from encoders.heads import describe_head
from encoders.space import Modality
from encoders.weights import sha256_of
from search.store import SHARED
from training.calibration import PAIR, RULES, People, calibrate, calibrate_asking
from training.card import CardFacts, model_card, with_measurements
from training.centring import Centre, find_centres
from training.checkpoint import replace_file, write_json, write_weights
from training.configuration import Configuration, write_configuration
from training.loop import Trained, TrainingData, finished_task
from training.prepared import Prepared
from training.reading import Preparation
from training.recipe import Recipe, Task, recipe_name
from training.runs import held
from training.validation import embed_prepared
from training.vectors import Vectors

REPORT_FILE = "report.json"
CONFIGURATION_FILE = "configuration.yaml"
"""The effective configuration; `visavox train --config` reads it."""
SHORT_DIGEST = 12


class PublishError(Exception):
    """A run cannot be published, or a report not recorded; the message says why."""


@dataclass(frozen=True, eq=False)
class Origin:
    """What a folder says about whom it was made from.

    Args:
        domain: such as ``invented people``.
        trained_on: a sentence part: how many of whom, with how many samples.
        validated_on: likewise.
        preparation: how their samples became what the networks take; unused where they were frozen vectors.
        golden: a few small samples of each modality, of people of the same domain.
        frozen: where they were frozen vectors, the encoder folders that made them, by modality.
    """

    domain: str
    trained_on: str
    validated_on: str
    preparation: Preparation
    golden: Mapping[Modality, Sequence[Sample]]
    frozen: Mapping[Modality, Path] = field(default_factory=dict)


def publish(
    recipe: Recipe,
    settings: Any,  # noqa: ANN401 - the recipe's own Settings
    data: TrainingData,
    trained: Trained,
    origin: Origin,
    encoders: Path,
) -> Path:
    """Write the best checkpoint of a run as an encoder folder.

    Args:
        recipe: the method.
        settings: its numbers.
        data: whom it was trained and validated on.
        trained: the finished run.
        origin: what the folder says about them.
        encoders: folder of encoder folders; made if need be.

    Returns:
        ``encoders / <recipe>-<12 digits>``; the folder that is there already when the same was published before.

    Raises:
        EncoderError: a golden sample has no vector.
        RunHeld: another process publishes or trains this run.
        PublishError: the head is of a kind that serving does not know.
    """
    task = finished_task(recipe, settings, data, trained)
    # the lock: another process that publishes this run would take the unfinished folder away
    with (
        held(trained.folder),
        _staging(encoders / ".partial" / f"{recipe_name(recipe)}-{trained.folder.name}") as staging,
    ):
        beginnings = _beginnings(data, trained, origin)
        description = _description(task, recipe_name(recipe), origin, beginnings, staging)
        digest = description.digest()
        known = set(data.training.identities).union(*(one.identities for one in beginnings))
        people = {Modality.FACE: data.validation.face_people, Modality.VOICE: data.validation.voice_people}
        held_out = People(embed_prepared(task, data.validation), people)
        centres = find_centres(task, data, [Modality(one) for one in getattr(settings, "centred", ())], held_out)
        probes = {str(modality): centre.to_json() for modality, centre in centres.items()}
        place = encoders / f"{description.name}-{_digits(digest, probes)}"
        if place.exists() and known <= read_identities(place, read_description(place)):
            return place
        files = [IDENTITIES_FILE, *([PROBES_FILE] if probes else [])]
        if probes:
            write_json(staging / PROBES_FILE, probes)
        (staging / IDENTITIES_FILE).write_text("".join(f"{name}\n" for name in sorted(known)), encoding="utf-8")
        write_configuration(staging / CONFIGURATION_FILE, Configuration(settings, trained.run), trained.folder)
        write_json(staging / CALIBRATION_FILE, _calibration(held_out, centres, data.validation, digest, origin.domain))
        facts = CardFacts(
            place.name, description.name, asdict(settings), origin.domain, origin.trained_on, origin.validated_on,
            trained.best_epoch, trained.epochs, trained.validated, tuple(one.told for one in beginnings), probes,
        )  # fmt: skip
        Encoder.create(staging, description, origin.golden, model_card(facts), files)
        if place.exists():  # the same vectors, of networks that were not known to know so many people
            place.rename(staging.with_name(f"{staging.name}.before"))
        staging.rename(place)
        shutil.rmtree(staging.with_name(f"{staging.name}.before"), ignore_errors=True)
    return place


def record_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Keep what was measured on test people: ``report.json``, and the figures in the model card.

    Raises:
        PublishError: the card is not one of :func:`publish`, or the report has no figures.
    """
    card = folder / CARD_FILE
    try:
        measured = with_measurements(card.read_text(encoding="utf-8"), report)
    except ValueError as error:
        raise PublishError(f"{folder}: {error}") from error
    replace_file(card, measured.encode())
    write_json(folder / REPORT_FILE, report)


def read_report(folder: Path) -> dict[str, Any] | None:
    """What was measured of a published encoder, or None."""
    return read_json(folder, REPORT_FILE) if (folder / REPORT_FILE).is_file() else None


@dataclass(frozen=True)
class _Beginning:
    """An encoder folder whose networks a run began with, or learned on.

    Args:
        name: of the folder.
        told: a sentence of whom its networks know.
        identities: of these, as far as it lists them.
    """

    name: str
    told: str
    identities: frozenset[str]


def _beginnings(data: TrainingData, trained: Trained, origin: Origin) -> list[_Beginning]:
    """Whoever these networks learned from is known to what was made of them, too."""
    begun = {Modality.FACE: trained.run.initial_face, Modality.VOICE: trained.run.initial_voice}
    folders = origin.frozen if isinstance(data.training, Vectors) else {one: at for one, at in begun.items() if at}
    found = []
    for folder in dict.fromkeys(folders.values()):
        description = read_description(folder)
        identities = read_identities(folder, description)
        of_what = " and ".join(f"{one}s" for one, at in folders.items() if at == folder)
        listed = (
            "Whoever these are is listed there too."
            if identities
            else "Who these are is not listed: people it is measured on may be among them."
        )
        told = f"Its network of {of_what} is or began as that of `{folder.name}`, trained on {description.trained_on}."
        found.append(_Beginning(folder.name, f"{told} {listed}", identities))
    return found


@contextmanager
def _staging(staging: Path) -> Iterator[Path]:
    """A new folder to write in; whatever is left of it afterwards is removed."""
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _description(task: Task, name: str, origin: Origin, beginnings: Sequence[_Beginning], folder: Path) -> Description:
    """Write the weights that serving keeps, and describe them."""
    branches = {modality: _branch(task, modality, origin, folder) for modality in Modality}
    head = _weights(folder / "head.safetensors", task.head.state_dict())
    try:
        kind, parameters, dimension = describe_head(task.head)
    except ValueError as error:
        raise PublishError(str(error)) from error
    return Description(
        name=name,
        space=SHARED,
        dimension=dimension,
        domain=origin.domain,
        trained_on="; ".join((origin.trained_on, *(f"networks of {one.name}" for one in beginnings))),
        branches=branches,
        head=HeadDescription(kind, parameters, head),
    )


def _branch(task: Task, modality: Modality, origin: Origin, folder: Path) -> Branch:
    """The network of a modality: trained with the head, or the frozen one that made its vectors."""
    given = task.given.of(modality)
    if given.backbone is not None:
        network = task.face if modality is Modality.FACE else task.voice
        weights = _weights(folder / f"{modality}.safetensors", network.state_dict())
        return Branch(given.backbone, asdict(given.preparation), weights)
    if modality not in origin.frozen:
        raise PublishError(f"nobody says which encoder made the frozen vectors of {modality}s")
    source = origin.frozen[modality]
    branch = read_description(source).branches[modality]
    if not isinstance(branch.weights, FolderFile):
        return branch
    copied = folder / f"{modality}.safetensors"
    shutil.copyfile(source / branch.weights.file, copied)
    return replace(branch, weights=FolderFile(copied.name, branch.weights.sha256))


def _weights(path: Path, state: Mapping[str, Tensor]) -> FolderFile:
    write_weights(path, state)
    return FolderFile(path.name, sha256_of(path))


def _digits(digest: str, probes: Mapping[str, Any]) -> str:
    """What tells a folder from others of its method."""
    if probes:  # only of which there are: the numbers follow from the weights, but for their last digits
        digest = hashlib.sha256(f"{digest} {' '.join(sorted(probes))}".encode()).hexdigest()
    return digest[:SHORT_DIGEST]


def _calibration(
    held_out: People,
    centres: Mapping[Modality, Centre],
    validation: Prepared | Vectors,
    digest: str,
    domain: str,
) -> dict[str, Any]:
    asking = calibrate_asking(held_out, {modality: centre.vector for modality, centre in centres.items()})
    return {
        PAIR: calibrate(held_out),
        **asking,
        "provenance": {
            "domain": domain,
            "space_digest": digest,
            "set_on": {
                "people": len(validation.identities),
                "faces": len(validation.face_people),
                "voices": len(validation.voice_people),
            },
            "rules": {str(purpose): rule for purpose, rule in RULES.items()},
        },
    }
