"""A training on a corpus of one's own: people of the disk → samples → run → folder → report.

As :mod:`deploy.training` does with invented people, and beside it in the home::

    prepared/<digest>/              the corpus's samples as networks take them
    trials/<corpus>-<digest>/       lists over its test people, and links to their files
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from deploy.models import ENCODERS
from deploy.reading import FACE_DETECTOR
from deploy.training import (
    MOST_WORKERS,
    NOT_FIRST,
    PREPARED,
    PUBLISHED_FILE,
    RUNS,
    Outcome,
    Told,
    counted,
    golden_samples,
    measure,
    published_folder,
    run_here,
    tell_prepared,
    tell_training,
)
from deploy.wiring import Installation, processors
from encoders.encoder import Encoder
from search.protocols import read_protocol
from training.beginnings import refuse_known, require_weights, settings_begun
from training.checkpoint import write_json
from training.corpora import (
    CorpusError,
    Manifest,
    NobodyForSplit,
    Source,
    Split,
    media_digest,
    of_fewer_people,
    read_corpus,
)
from training.corpora.trials import write_trials
from training.data_parallel import join_processes
from training.loop import RunSettings, TrainingData, train
from training.prepared import prepare
from training.publish import Origin, publish, read_report, record_report
from training.reading import Preparation, preparation_for
from training.recipe import Recipe, recipe_name
from training.runs import describe

TRIALS = "trials"
NO_TEST = "the corpus has no test people, so nothing was measured: visavox evaluate measures on others"
ALLOWED = ", or say --allow-seen, and the result counts as knowing them"
SEEN = (
    "the networks that it began with know {} of the test people, so nothing was measured here: visavox evaluate "
    "--allow-seen measures it and says so"
)


@dataclass(frozen=True)
class CorpusOrder:
    """What is to be trained on whom.

    Args:
        recipe: the method.
        settings: its numbers.
        training: whom it learns from.
        validation: whom it is judged on while it learns.
        test: whom it is measured on; None where the corpus has no test people.
        run: seed, device and the like.
    """

    recipe: Recipe
    settings: Any
    training: Manifest
    validation: Manifest
    test: Manifest | None
    run: RunSettings

    @property
    def preparation(self) -> Preparation:
        """How samples become what the recipe's backbones take. Raises ValueError: settings that name none."""
        return preparation_for(self.settings, FACE_DETECTOR)

    @property
    def key(self) -> str:
        """16 hex digits of everything that decides the weights."""
        decides = describe(self.recipe, self.settings, self.run) | {
            "learned": media_digest(self.training),
            "validated": media_digest(self.validation),
            "preparation": repr(self.preparation),
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def order_corpus(
    opened: Installation,
    recipe: Recipe,
    corpus: str,
    source: Source,
    settings: Any = None,  # noqa: ANN401 - the recipe's own Settings
    run: RunSettings | None = None,
    people: int | None = None,
    *,
    allow_seen: bool = False,
) -> CorpusOrder:
    """An order for this installation's device and processors.

    Args:
        opened: the installation.
        recipe: the method.
        corpus: name of its layout.
        source: where it lies.
        settings: the recipe's numbers; None: the paper's.
        run: seed and the like.
        people: how many to learn from, at least 2; None: all whom the corpus has for it.
        allow_seen: whether networks to begin with may know people who are validated or tested on, as those of some
            papers do; then the result counts as knowing them, and is not measured on them by the way.

    Raises:
        CorpusError: the corpus is not as its layout says, has too few people, or has somebody on two sides.
        TrainingError: networks to begin with know people who are validated or measured on, and may not.
        ValueError: a number that the recipe does not take.
    """
    try:
        test: Manifest | None = read_corpus(corpus, source, Split.TEST)
    except NobodyForSplit:
        test = None
    apart = replace(source, test={*source.test, *(test.identities if test else ())})
    training, validation = (read_corpus(corpus, apart, split) for split in (Split.TRAIN, Split.VALIDATION))
    if people is not None:
        training = of_fewer_people(training, people)
    run = run_here(opened, run)
    wanted = settings_begun(recipe.Settings() if settings is None else settings, run).fitting(len(training.identities))
    order = CorpusOrder(recipe, wanted, training, validation, test, run)
    _ = order.preparation  # a wrong one is said before anything is read
    require_weights(recipe.stages(wanted, frozen=False), order.preparation, order.run)
    if not allow_seen:
        judged = {*validation.identities, *(test.identities if test else ())}
        refuse_known((order.run.initial_face, order.run.initial_voice), judged, ALLOWED)
    return order


def train_corpus(opened: Installation, order: CorpusOrder, told: Told, workers: int | None = None) -> Outcome:
    """Do whatever is not done yet of an order; an interrupted call leaves what the next one goes on with.

    Args:
        opened: where everything is kept, and through whose index it is measured.
        order: what to do.
        told: see :data:`deploy.training.Told`.
        workers: processes that read samples; 0: this one; None: as many as processors.

    Raises:
        CorpusError, PreparationError, TrainingError, CheckpointError, PublishError, ProtocolError, EncoderError,
        StoreError, OSError: a stage cannot be done; the message says why.
    """
    began = time.monotonic()
    home = opened.settings.home
    run_folder = home / RUNS / f"{recipe_name(order.recipe)}-{order.key}"
    together = join_processes(order.run.processes, order.run.device)
    with together.in_turn():
        trials, unmeasured = _trials(home, order.test)  # before hours of learning, as it says what cannot be measured
    encoder = published_folder(run_folder, home / ENCODERS)
    if encoder is not None and (report := read_report(encoder)) is not None:
        return Outcome(encoder, report, time.monotonic() - began, before=True)
    if encoder is None:
        workers = min(MOST_WORKERS, processors()) if workers is None else workers
        encoder = _learn(home, order, run_folder, told, workers)
    if encoder is None or not together.first:
        return Outcome(run_folder, {}, time.monotonic() - began, before=False, unmeasured=NOT_FIRST)
    made = Encoder.load(encoder, device=opened.settings.device, precision="auto")
    if trials is not None and (seen := read_protocol(trials).test_people_among(made.identities)):
        trials, unmeasured = None, SEEN.format(len(seen))
    if trials is None:
        return Outcome(encoder, {}, time.monotonic() - began, before=False, unmeasured=unmeasured)
    report, _ = measure(opened, made, trials, told)
    record_report(encoder, report)
    return Outcome(encoder, report, time.monotonic() - began, before=False)


def _learn(home: Path, order: CorpusOrder, run_folder: Path, told: Told, workers: int) -> Path | None:
    """Prepare, train and publish; None in a process that only trains along."""
    preparation, together = order.preparation, join_processes(order.run.processes, order.run.device)
    with together.in_turn():
        training, validating = (
            prepare(
                manifest,
                home / PREPARED,
                preparation,
                workers=workers,
                on_progress=partial(tell_prepared, told, manifest.split),
            )
            for manifest in (order.training, order.validation)
        )
    whom = f"people of {order.training.domain}"
    origin = Origin(
        domain=order.training.domain,
        trained_on=f"{counted(training, whom)} ({order.training.name})",
        validated_on=counted(validating, f"other {whom}"),
        preparation=preparation,
        golden=golden_samples(order.validation),
    )
    data = TrainingData(training, validating)
    trained = train(order.recipe, order.settings, data, run_folder, order.run, partial(tell_training, told))
    if not together.first:
        return None
    told("publishing", 0, 1, "")
    encoder = publish(order.recipe, order.settings, data, trained, origin, home / ENCODERS)
    write_json(run_folder / PUBLISHED_FILE, {"encoder": encoder.name})
    return encoder


def _trials(home: Path, test: Manifest | None) -> tuple[Path | None, str]:
    """The protocol folder of the test people, or why there is none."""
    if test is None:
        return None, NO_TEST
    (home / TRIALS).mkdir(parents=True, exist_ok=True)
    folder = home / TRIALS / f"{re.sub('[^A-Za-z0-9]+', '-', test.name)}-{media_digest(test)[:12]}"
    try:
        return write_trials(test, folder), ""
    except CorpusError as error:
        return None, str(error)
