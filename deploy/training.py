"""One training, from nothing to a measured encoder folder: people → samples → run → folder → report.

Every stage keeps what it made in the home, under a name that its inputs decide, so that the same command
goes on where it was interrupted and answers at once when all is done::

    population/<digest>/             invented people, and beside their media the prepared samples
    runs/<recipe>-<digest>/          the run (training.loop); published.json says what it became
    encoders/<recipe>-<digest>/      the encoder folder, with report.json
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from deploy.models import ENCODERS
from deploy.reading import FACE_DETECTOR
from deploy.wiring import Installation, processors
from encoders.encoder import Encoder, Sample
from encoders.face import load_face_detector
from encoders.space import Modality
from ingest.content import MediaError
from ingest.samples import NoSample, read_face, read_voice
from search.crossmodal import evaluate_protocol
from search.points import Points, embed_protocol
from search.protocol_report import with_all_lists
from search.protocols import read_protocol
from search.published_lists import read_trial_lists
from training.beginnings import refuse_known, require_weights, settings_begun
from training.checkpoint import write_json
from training.corpora import Manifest, Split, read_manifest
from training.data_parallel import join_processes
from training.label_agreement import agreement_of_labels
from training.loop import Progress, RunSettings, TrainingData, train
from training.population.protocol import write_protocol, write_training
from training.population.splits import PopulationSpec, TrainingSpec
from training.prepared import Prepared, prepare
from training.publish import Origin, publish, read_report, record_report
from training.reading import Preparation, preparation_for
from training.recipe import Recipe, recipe_name, recipes
from training.runs import describe, seconds_spent

RUNS = "runs"
PREPARED = "prepared"
PUBLISHED_FILE = "published.json"
GOLDEN_SAMPLES = 2  # of each modality
# The embedded index takes time for every hit it hands out, and the first ones decide a mean average precision.
DEPTH = 300
# Threads of a training step. They give way to other processes only if nobody told them to spin while they wait: see
# deploy.settings.calm_libraries. More gain nothing with networks of this size.
MOST_THREADS = 4
MOST_WORKERS = 4

NOT_FIRST = "another process of this training publishes and measures"

MEASURED = PopulationSpec()
"""The people that every model is measured on, unless somebody asks for fewer."""

Told = Callable[[str, int, int, str], None]
"""Told the stage, how much of it is done, how much there is, and a note for people."""

Readers = Mapping[Modality, Callable[[Path], Sample]]


@dataclass(frozen=True)
class Order:
    """What is to be trained on whom.

    Args:
        recipe: the method.
        settings: its numbers.
        learned: the invented people it learns from.
        measured: those it is validated and measured on.
        run: seed, device and the like.
    """

    recipe: Recipe
    settings: Any
    learned: TrainingSpec
    measured: PopulationSpec
    run: RunSettings

    @property
    def preparation(self) -> Preparation:
        """How samples become what the recipe's backbones take. Raises ValueError: settings that name none."""
        return preparation_for(self.settings, FACE_DETECTOR)

    @property
    def key(self) -> str:
        """16 hex digits of everything that decides the outcome."""
        decides = describe(self.recipe, self.settings, self.run) | {
            "learned": self.learned.digest,
            "measured": self.measured.digest,
            "preparation": repr(self.preparation),
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Outcome:
    """What a training came to.

    Args:
        encoder: the encoder folder.
        report: as ``visavox evaluate`` gives it; empty where nothing could be measured.
        seconds: that this call took.
        before: whether all of it had been done by an earlier call.
        unmeasured: why there is no report; empty where there is one.
    """

    encoder: Path
    report: dict[str, Any]
    seconds: float
    before: bool
    unmeasured: str = ""


def order_population(
    opened: Installation,
    recipe: Recipe,
    learned: TrainingSpec,
    *,
    measured: PopulationSpec = MEASURED,
    settings: Any = None,  # noqa: ANN401 - the recipe's own Settings
    run: RunSettings | None = None,
) -> Order:
    """An order for this installation's device and processors.

    Args:
        opened: the installation.
        recipe: the method.
        learned: the invented people it learns from.
        measured: those it is validated and measured on.
        settings: its numbers; None: its preset for invented people.
        run: seed and the like, to which device and threads of the installation are added.

    Raises:
        ValueError: a number that the recipe does not take, or too few people for one of its batches.
    """
    run = run_here(opened, run)
    settings = settings_begun(recipe.POPULATION if settings is None else settings, run).fitting(learned.people)
    order = Order(recipe, settings, learned, measured, run)
    _ = order.preparation  # a wrong one is said before people are invented
    require_weights(recipe.stages(settings, frozen=False), order.preparation, order.run)
    return order


def run_here(opened: Installation, run: RunSettings | None = None) -> RunSettings:
    """How a run is run by this installation: on its device, with its processors."""
    settings, threads = opened.settings, min(MOST_THREADS, processors())
    return replace(run or RunSettings(), device=settings.device, threads=threads, processes=settings.processes)


def train_population(opened: Installation, order: Order, told: Told, workers: int | None = None) -> Outcome:
    """Do whatever is not done yet of an order; an interrupted call leaves what the next one goes on with.

    Args:
        opened: where everything is kept, and through whose index it is measured.
        order: what to do.
        told: see :data:`Told`.
        workers: processes that invent people and read their samples; 0: this one; None: as many as processors.

    Raises:
        CorpusError, PreparationError, TrainingError, CheckpointError, PublishError, ProtocolError, EncoderError,
        StoreError, OSError: a stage cannot be done; the message says why.
    """
    began = time.monotonic()
    home = opened.settings.home
    run_folder = home / RUNS / f"{recipe_name(order.recipe)}-{order.key}"
    encoder = published_folder(run_folder, home / ENCODERS)
    if encoder is not None and (report := read_report(encoder)) is not None:
        return Outcome(encoder, report, time.monotonic() - began, before=True)
    workers = min(MOST_WORKERS, processors()) if workers is None else workers
    inventing = partial(_tell, told, "inventing people to measure on")
    together = join_processes(order.run.processes, order.run.device)
    with together.in_turn():
        population = write_protocol(home, order.measured, inventing, max(1, workers))
        gathered = None if encoder is not None else _gather(home, order, population, told, workers)
    if gathered is not None:
        encoder = _learn(home, order, gathered, run_folder, told)
    if encoder is None or not together.first:
        return Outcome(run_folder, {}, time.monotonic() - began, before=False, unmeasured=NOT_FIRST)
    report, _ = measure(
        opened, Encoder.load(encoder, device=opened.settings.device, precision="auto"), population, told
    )
    record_report(encoder, report)
    return Outcome(encoder, report, time.monotonic() - began, before=False)


def published_folder(run_folder: Path, encoders: Path) -> Path | None:
    """The encoder folder that a run became, if it is still there."""
    try:
        name = json.loads((run_folder / PUBLISHED_FILE).read_text(encoding="utf-8"))["encoder"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return encoders / name if (encoders / name).is_dir() else None


def _learn(
    home: Path, order: Order, gathered: tuple[TrainingData, Origin], run_folder: Path, told: Told
) -> Path | None:
    """Train and publish; None in a process that only trains along."""
    data, origin = gathered
    trained = train(order.recipe, order.settings, data, run_folder, order.run, partial(tell_training, told))
    if not join_processes(order.run.processes, order.run.device).first:
        return None
    told("publishing", 0, 1, "")
    encoder = publish(order.recipe, order.settings, data, trained, origin, home / ENCODERS)
    spent = sum(seconds_spent(folder) for folder in (*trained.earlier, trained.folder))
    write_json(run_folder / PUBLISHED_FILE, {"encoder": encoder.name, "training_seconds": round(spent, 1)})
    return encoder


def _gather(home: Path, order: Order, population: Path, told: Told, workers: int) -> tuple[TrainingData, Origin]:
    """Invent the people to learn from, and read the samples of everybody but the test people."""
    learned = write_training(
        home, order.learned, partial(_tell, told, "inventing people to learn from"), max(1, workers)
    )
    tested = read_protocol(population).identities
    manifests = {
        learned: read_manifest(learned, Split.TRAIN, test=tested),
        population: read_manifest(population, Split.VALIDATION, test=tested),
    }
    validation = manifests[population]
    refuse_known((order.run.initial_face, order.run.initial_voice), {*tested, *validation.identities})
    preparation = order.preparation
    training, validating = (
        prepare(
            manifest,
            folder / PREPARED,
            preparation,
            workers=workers,
            on_progress=partial(tell_prepared, told, manifest.split),
        )
        for folder, manifest in manifests.items()
    )
    origin = Origin(
        domain=validation.domain,
        trained_on=f"{counted(training, validation.domain)} (population seed {order.learned.seed})",
        validated_on=counted(validating, f"other {validation.domain}"),
        preparation=preparation,
        golden=golden_samples(validation),
    )
    return TrainingData(training, validating), origin


def counted(prepared: Prepared, whom: str) -> str:
    """How many could be used, which may be fewer than were invented."""
    photos, utterances = len(prepared.face_people), len(prepared.voice_people)
    return f"{len(prepared.identities)} {whom}, {photos} photos and {utterances} utterances of them"


def invite_measured(opened: Installation, told: Told, measured: PopulationSpec = MEASURED) -> Path:
    """The protocol folder of the people to measure on; they are invented when it is not there yet."""
    inventing = partial(_tell, told, "inventing people to measure on")
    return write_protocol(opened.settings.home, measured, inventing, max(1, min(MOST_WORKERS, processors())))


def measure(opened: Installation, encoder: Encoder, population: Path, told: Told) -> tuple[dict[str, Any], Points]:
    """How an encoder does on people whom nothing was learned from, through a scratch index.

    Raises:
        SeenInTraining: it was trained on some of them. ProtocolError, StoreError: see there.
    """
    protocol = read_protocol(population)
    points = embed_measured(encoder, population, told)
    told("searching and scoring", 0, 1, "")
    with opened.scratch_store() as store:
        report = evaluate_protocol(protocol, points, store, model=encoder, depth=DEPTH)
    report = with_all_lists(report, read_trial_lists(population), points)
    report["label_agreement"] = agreement_of_labels(points.vectors, points.people)
    told("searching and scoring", 1, 1, "")
    return report, points


def embed_measured(encoder: Encoder, population: Path, told: Told) -> Points:
    """An encoder's points of the people to measure on. Raises SeenInTraining, ProtocolError."""
    return embed_protocol(read_protocol(population), encoder, sample_readers(), partial(_tell_measured, told))


def sample_readers() -> Readers:
    """How a photo and a sound become what an encoder takes."""
    return {Modality.FACE: partial(read_face, detector=load_face_detector(FACE_DETECTOR)), Modality.VOICE: read_voice}


def golden_samples(manifest: Manifest) -> dict[Modality, list[Sample]]:
    """Of each modality the first samples that can be read, of different people."""
    readers = sample_readers()

    def readable(modality: Modality) -> Any:  # noqa: ANN401
        seen = set()
        for sample in manifest.samples:
            if sample.modality is modality and sample.identity not in seen:
                try:
                    yield readers[modality](manifest.locate(sample))
                except (MediaError, NoSample):
                    continue
                seen.add(sample.identity)

    return {modality: list(islice(readable(modality), GOLDEN_SAMPLES)) for modality in Modality}


def _tell(told: Told, stage: str, done: int, total: int) -> None:
    told(stage, done, total, "")


def tell_prepared(told: Told, split: Split, done: int, total: int, failures: int) -> None:
    """Tell of the reading of a split's samples."""
    told(f"reading {split.name.lower()} samples", done, total, f"{failures} unusable" if failures else "")


def _tell_measured(told: Told, done: int, total: int, unusable: int) -> None:
    told("measuring on unseen people", done, total, f"{unusable} unusable" if unusable else "")


def tell_training(told: Told, progress: Progress) -> None:
    """Tell of steps, losses and the last validation."""
    notes = [f"epoch {progress.epoch} of {progress.epochs}", f"{progress.steps_per_second:.1f} steps/s"]
    if "total" in progress.losses:
        notes.append(f"loss {progress.losses['total']:.3f}")
    if progress.validated is not None:
        notes.append(
            f"validation mAP {progress.validated.voice_to_face:.3f} voice to face, "
            f"{progress.validated.face_to_voice:.3f} face to voice"
        )
    # of a method of several stages the earlier ones are called by their names
    stage = "training" if not progress.stage or progress.stage in recipes() else f"training ({progress.stage})"
    told(stage, progress.step, progress.steps, ", ".join(notes))
