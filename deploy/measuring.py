"""Measures an installation: its encoders on files, its shared space on invented people or lists, its own people."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploy.before_and_after import pictures_of_training
from deploy.models import check_model, find_folder, serving_folder
from deploy.protocols import Asked, measure_protocol
from deploy.report_files import ReportFiles
from deploy.training import Told, embed_measured, invite_measured, measure
from deploy.wiring import Installation
from encoders.encoder import Encoder
from ingest.walk import walk_media
from search.evaluation import NothingToMeasure, Samples, collect, enrolled_samples, evaluate_people
from search.measurement import ENROLLED, ON, PEOPLE, POPULATION, PROTOCOL, Measurement, NoModel
from search.population_page import as_lists_report
from search.protocol_report import Measured
from search.protocols import read_protocol
from search.published_lists import read_trial_lists
from search.sample_vectors import SampleVectors
from search.trial_lists import TrialLists

NO_MODEL = (
    "no shared-space encoder serves: train one with `visavox train bi_quintuple --population`, choose it with "
    "`visavox models use`, or name one with --model"
)


def take(opened: Installation, asked: Measurement, told: Told = lambda *_: None) -> dict[str, Any]:
    """Measure.

    Args:
        opened: the installation.
        asked: what to measure.
        told: hears of each stage and how much of it is done.

    Returns:
        The report, ready for JSON.

    Raises:
        NothingToMeasure: too few people, or samples of them. NoModel: there is nothing to measure.
        EncoderError, ProtocolError, SeenInTraining, StoreError, OSError: see there.
    """
    if asked.on == PROTOCOL:
        return measure_protocol(Asked.of(asked), told, opened.settings)
    if asked.on == POPULATION:
        report, scored = _on_population(opened, asked, told)
    else:
        samples = _on_files(opened, Path(str(asked.folder)), told) if asked.folder else enrolled_samples(
            opened.store, opened.encoders, opened.records.people.names()
        )  # fmt: skip
        report, scored = _of(opened, samples), samples.export
    if asked.export is not None:
        scored(Path(asked.export))
    return report


def _on_population(
    opened: Installation, asked: Measurement, told: Told
) -> tuple[dict[str, Any], Callable[[Path], None]]:
    settings, model = opened.settings, asked.model
    folder = find_folder(model, settings.home) if model is not None else serving_folder(settings)
    if folder is None:
        raise NoModel(NO_MODEL)
    encoder = check_model(folder, settings.device)
    beside = check_model(find_folder(asked.compare, settings.home), settings.device) if asked.compare else None
    population = invite_measured(opened, told)
    report, points = measure(opened, encoder, population, told)
    lists = read_trial_lists(population)
    other = None if beside is None else _measured(beside, population, lists, told)
    files = ReportFiles.named(asked.html, asked.markdown)
    if other is None and not files:
        return report, points.export
    told("drawing the report", 0, 1, "")
    page, vectors = as_lists_report(report, lists, points, encoder, other=other)
    report |= {"comparison": page["comparison"]} if other else {}
    if files:
        media = read_protocol(population).media
        further = []
        if files.html:
            paths = points.paths
            further = pictures_of_training(
                encoder, points.vectors, points.people, lambda one, row: media / paths[one][row], settings.home
            )
        files.write(page, lists, vectors, before=other.vectors if other else None, media=media, further=further)
    told("drawing the report", 1, 1, "")
    return report, points.export


def _measured(encoder: Encoder, population: Path, lists: TrialLists, told: Told) -> Measured:
    """Another encoder's vectors of the same people."""
    points = embed_measured(encoder, population, told)
    return Measured(SampleVectors.of_points(points, lists), encoder, points.unusable)


def _on_files(opened: Installation, people: Path, told: Told) -> Samples:
    folders = [folder for folder in sorted(people.iterdir()) if folder.is_dir()]
    files = {folder.name: walk_media([folder], opened.settings.home).media for folder in folders}

    def seen(done: int, total: int, unusable: int) -> None:
        told("reading files", done, total, f"{unusable} unusable" if unusable else "")

    return collect(opened.prober, files, on_sample=seen)


def _of(opened: Installation, samples: Samples) -> dict[str, Any]:
    with opened.scratch_store() as store:
        return evaluate_people(samples, store, opened.encoders)


__all__ = ["ENROLLED", "ON", "PEOPLE", "POPULATION", "PROTOCOL", "Measurement", "NoModel", "NothingToMeasure", "take"]
