"""A training on frozen features (``visavox features``): vectors of the disk → head → encoder folder → report."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from deploy.models import ENCODERS
from deploy.reading import FACE_DETECTOR
from deploy.training import DEPTH, PUBLISHED_FILE, RUNS, Outcome, Told, published_folder, run_here, tell_training
from deploy.wiring import Installation
from encoders.encoder import Encoder, EncoderError, packaged_encoders
from encoders.folder import GOLDEN_FILE, read_description
from encoders.golden import load_golden
from encoders.space import Modality, Space
from training.beginnings import refuse_known
from training.checkpoint import write_json
from training.corpora import Split
from training.features import Features, FeaturesError
from training.held_out import measure_vectors
from training.loop import RunSettings, TrainingData, train
from training.publish import Origin, publish, read_report, record_report
from training.reading import Preparation
from training.recipe import Recipe, recipe_name
from training.runs import describe
from training.vectors import Vectors, vectors_of

NO_TEST = "the features hold no test people, so nothing was measured: visavox evaluate measures on others"


@dataclass(frozen=True)
class FeatureOrder:
    """What is to be trained on which features.

    Args:
        recipe: the method.
        settings: its numbers.
        folder: of the features.
        run: seed and the like.
    """

    recipe: Recipe
    settings: Any
    folder: Path
    run: RunSettings


def train_features(opened: Installation, order: FeatureOrder, told: Told) -> Outcome:
    """Do whatever is not done yet of an order; the same features again are answered at once.

    Args:
        opened: where everything is kept.
        order: what to do.
        told: see :data:`deploy.training.Told`.

    Raises:
        FeaturesError, TrainingError, CheckpointError, PublishError, EncoderError, StoreError, OSError: it cannot be
        done; the message says why.
    """
    began = time.monotonic()
    home = opened.settings.home
    features = Features.open(order.folder)
    data = TrainingData(vectors_of(features, Split.TRAIN), vectors_of(features, Split.VALIDATION))
    sources = {modality: encoder_of_space(home, features[modality].space) for modality in Modality}
    test = _test_people(features)
    refuse_known(sources.values(), {*data.validation.identities, *(test.identities if test else ())})
    run, settings = run_here(opened, order.run), order.settings.fitting(len(data.training.identities))
    decides = describe(order.recipe, settings, run, frozen=True) | {"domain": features.domain}
    decides |= {"learned": data.training.digest, "validated": data.validation.digest}
    key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
    run_folder = home / RUNS / f"{recipe_name(order.recipe)}-{key}"
    encoder = published_folder(run_folder, home / ENCODERS)
    if encoder is not None and ((report := read_report(encoder)) is not None or test is None):
        unmeasured = NO_TEST if report is None else ""
        return Outcome(encoder, report or {}, time.monotonic() - began, before=True, unmeasured=unmeasured)
    if encoder is None:
        trained = train(order.recipe, settings, data, run_folder, run, partial(tell_training, told))
        told("publishing", 0, 1, "")
        origin = _origin(features, data, sources)
        encoder = publish(order.recipe, settings, data, trained, origin, home / ENCODERS)
        write_json(run_folder / PUBLISHED_FILE, {"encoder": encoder.name})
    if test is None:
        return Outcome(encoder, {}, time.monotonic() - began, before=False, unmeasured=NO_TEST)
    told("measuring on unseen people", 0, 1, "")
    loaded = Encoder.load(encoder, device=opened.settings.device, precision="auto")
    with opened.scratch_store() as store:
        report = measure_vectors(loaded, test, f"test people of {features.corpus}", store, DEPTH)
    record_report(encoder, report)
    told("measuring on unseen people", 1, 1, "")
    return Outcome(encoder, report, time.monotonic() - began, before=False)


def encoder_of_space(home: Path, space: Space) -> Path:
    """The encoder folder whose vectors live in a space: a packaged one, or one of the home's.

    Raises:
        FeaturesError: there is none, so that nothing could serve what is learned from its vectors.
    """
    for folder in (*packaged_encoders().values(), *sorted((home / ENCODERS).glob("*"))):
        try:
            if read_description(folder).digest() == space.digest:
                return folder
        except EncoderError:
            continue
    raise FeaturesError(
        f"the features live in {space.name} ({space.digest[:12]}), and no encoder folder here makes them: bring the "
        f"one they were extracted with into {home / ENCODERS}"
    )


def _test_people(features: Features) -> Vectors | None:
    return vectors_of(features, Split.TEST) if len(features.both(Split.TEST)) > 1 else None


def _origin(features: Features, data: TrainingData, sources: Mapping[Modality, Path]) -> Origin:
    def counted(vectors: Any, whom: str) -> str:  # noqa: ANN401 - Vectors, as this data holds nothing else
        return (
            f"{len(vectors.identities)} {whom} of {features.corpus}, {len(vectors.face_people)} faces and "
            f"{len(vectors.voice_people)} voices of them as frozen features"
        )

    return Origin(
        domain=features.domain,
        trained_on=counted(data.training, "people"),
        validated_on=counted(data.validation, "other people"),
        preparation=Preparation(detector=FACE_DETECTOR),
        golden={modality: load_golden(folder / GOLDEN_FILE, modality)[0][:2] for modality, folder in sources.items()},
        frozen=sources,
    )
