"""Sets the operating thresholds of the identity encoders: ``python -m deploy.calibrate MEDIA``.

Half of the people of a folder of real media set the numbers (the list is ``encoders/identity/calibration_people.txt``),
the other half measures them; both go into each encoder's ``calibration.json``. Only plain numbers are kept. How far
the threshold must rise with the number of people enrolled is fitted and measured by the same halves, and the law that
it follows is tried on more people where vectors of theirs lie beside the media (another network's: ``features/``).
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.settings import load_settings
from deploy.wiring import Installation
from encoders.space import Modality
from ingest.media import MEDIA_EXTENSIONS
from search import metrics
from search.evaluation import Sample, Samples, collect
from search.gallery import Asked, Gallery, Tail, by_size, likeness
from search.probes import Prober
from search.scores import Similarity, equal_error_threshold, fit_calibration, pooled, similarity_matrix
from search.store import MemoryStore

IDENTITY = Path(__file__).resolve().parents[1] / "encoders" / "identity"
PEOPLE_LIST = IDENTITY / "calibration_people.txt"
# one person from two sources, and two labels that may be one person: kept on one side of the split
SAME_PERSON = {
    "av/talking/obama": "faces/face_recognition/obama",
    "av/vox2_pcavs/vox2_u_00002": "av/vox2_pcavs/id05176",
}
SOURCES = ("voices/*/*", "faces/*/*", "av/*/*")
# How many strangers in a hundred may be named, however many people are enrolled.
OPERATING_LEVEL = 0.01
LEVELS = (OPERATING_LEVEL, 0.001)
GALLERY_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 1000)
# Vectors of more people than the media show: beside the media folder.
MORE_VOICES = Path("features") / "train_xvect.npz"


@dataclass(frozen=True)
class Trials:
    """What ``who`` would see: each sample asked of a gallery of people, each the mean of their samples.

    Args:
        own: (n,) scores of samples against the rest of their own person's samples.
        others: scores of all samples against everybody else, flat.
        strangers: (m,) best score of each sample among everybody else: what a stranger must not reach.
        first: (n,) whether the own person came first.
    """

    own: NDArray[np.float64]
    others: NDArray[np.float64]
    strangers: NDArray[np.float64]
    first: NDArray[np.bool_]


def people_of(media: Path) -> dict[str, list[Path]]:
    """Files by person label (``kind/source/person``) of a media folder laid out as ``kind/source/person/file``."""
    endings = {ending.lstrip(".") for ending in MEDIA_EXTENSIONS}
    found: dict[str, list[Path]] = defaultdict(list)
    for pattern in SOURCES:
        for folder in sorted(path for path in media.glob(pattern) if path.is_dir() and path.name != "_doc"):
            files = sorted(file for file in folder.rglob("*") if file.suffix.lower().lstrip(".") in endings)
            label = folder.relative_to(media).as_posix()
            found[SAME_PERSON.get(label, label)] += files
    return {label: files for label, files in found.items() if files}


def split(labels: Iterable[str]) -> list[str]:
    """Every second person of each source: the half that sets the thresholds."""
    by_source: dict[str, list[str]] = defaultdict(list)
    for label in sorted(labels):
        by_source[label.rsplit("/", 1)[0]].append(label)
    return [label for source in sorted(by_source) for label in by_source[source][::2]]


def trials(samples: Sequence[Sample], kind: Similarity) -> Trials:
    """Ask every sample of everybody, its own person without it."""
    by_person: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_person[sample.person].append(sample)
    names = sorted(by_person)
    centres = np.stack([pooled([one.embedding for one in by_person[name]]).vector for name in names])
    own, others, strangers, first = [], [], [], []
    for sample in samples:
        scores = similarity_matrix(sample.embedding.vector[None], centres, kind)[0]
        else_scores = scores[[name != sample.person for name in names]]
        others.append(else_scores)
        strangers.append(else_scores.max())
        rest = [one.embedding for one in by_person[sample.person] if one is not sample]
        if rest:
            mine = similarity_matrix(sample.embedding.vector[None], pooled(rest).vector[None], kind)[0, 0]
            own.append(mine)
            first.append(mine > else_scores.max())
    return Trials(np.array(own), np.concatenate(others), np.array(strangers), np.array(first))


def pairs(samples: Sequence[Sample], kind: Similarity) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of all pairs of samples, of one person and of two: what ``verify`` and ``match`` see."""
    vectors = np.stack([sample.embedding.vector for sample in samples])
    people = np.array([sample.person for sample in samples])
    first, second = np.triu_indices(len(samples), k=1)
    scores = similarity_matrix(vectors, vectors, kind)[first, second]
    same = people[first] == people[second]
    return scores[same], scores[~same]


def verification(set_on: Sequence[Sample], measured_on: Sequence[Sample], kind: Similarity) -> dict[str, Any]:
    """Threshold and slope for pairs of samples, with how they did on both halves."""
    threshold = equal_error_threshold(*pairs(set_on, kind))
    told: dict[str, Any] = {
        "threshold": round(threshold, 4),
        "slope": round(fit_calibration(*pairs(set_on, kind), threshold).slope, 3),
    }
    for name, samples in (("set", set_on), ("measured", measured_on)):
        genuine, impostor = pairs(samples, kind)
        told[name] = {
            "genuine_pairs": len(genuine),
            "impostor_pairs": len(impostor),
            "genuine_missed": float(np.mean(genuine < threshold)),
            "impostor_accepted": float(np.mean(impostor >= threshold)),
            "auc": metrics.auc(genuine, impostor),
            "eer": metrics.equal_error_rate(genuine, impostor),
        }
    return told


def figures(asked: Trials, threshold: float) -> dict[str, Any]:
    """How a threshold does on a set of trials, as fractions."""
    return {
        "known_asked": len(asked.own),
        "known_first": float(asked.first.mean()),
        "known_named": float(np.mean(asked.first & (asked.own >= threshold))),
        "strangers_asked": len(asked.strangers),
        "strangers_unknown": float(np.mean(asked.strangers < threshold)),
        "auc": metrics.auc(asked.own, asked.others),
        "eer": metrics.equal_error_rate(asked.own, asked.others),
    }


def calibrate(set_on: Sequence[Sample], measured_on: Sequence[Sample]) -> dict[str, Any]:
    """Numbers for every purpose and similarity, with how they did on the half that set them and on the other."""
    numbers: dict[str, Any] = {"identify": {}, "verify": {}}
    for kind in Similarity:
        here, there = trials(set_on, kind), trials(measured_on, kind)
        threshold = equal_error_threshold(here.own, here.strangers)
        slope = fit_calibration(here.own, here.others, threshold).slope
        numbers["verify"][str(kind)] = verification(set_on, measured_on, kind)
        numbers["identify"][str(kind)] = {
            "threshold": round(threshold, 4),
            "slope": round(slope, 3),
            "set": figures(here, threshold),
            "measured": figures(there, threshold),
        }
    numbers["identify"][str(Similarity.COSINE)]["gallery"] = by_gallery(
        asked_of(set_on), asked_of(measured_on), alike(set_on)
    )
    return numbers


def asked_of(samples: Sequence[Sample]) -> Asked:
    """Every sample asked of everybody."""
    vectors = np.stack([sample.embedding.vector for sample in samples])
    return Asked.of(vectors, np.array([sample.person for sample in samples]))


def alike(samples: Sequence[Sample]) -> float | None:
    """How alike the people are, each the mean of their samples."""
    people = sorted({sample.person for sample in samples})
    own = [[one.embedding for one in samples if one.person == person] for person in people]
    return likeness(np.stack([pooled(points).vector for points in own]))


def by_gallery(set_on: Asked, measured_on: Asked, likeness_set: float | None = None) -> dict[str, Any]:
    """The threshold for every number of enrolled people, and how it does on people who had no part in it.

    Args:
        set_on: people whom the tail is fitted on.
        measured_on: the other people.
        likeness_set: how alike the people are whom it is fitted on.
    """
    tail = Tail.fit(set_on.others.ravel())
    return Gallery(OPERATING_LEVEL, tail, likeness_set).to_json() | {
        "rule": "a stranger is named with the probability `level`, however many people are enrolled",
        "measured": by_size(measured_on, tail, LEVELS, GALLERY_SIZES),
    }


def by_gallery_elsewhere(vectors: Path) -> dict[str, Any]:
    """The same on another network's vectors of many people: whether the law holds beyond the people of the media.

    Args:
        vectors: npz with ``x`` (n, dimension) and ``speaker`` (n,).
    """
    with np.load(vectors, allow_pickle=False) as stored:
        points, people = np.asarray(stored["x"], np.float64), stored["speaker"]
    chosen = np.isin(people, np.unique(people)[::2])
    # x-vectors share a direction that tells nobody apart; the people who set the numbers give it
    halves = [points[half] - points[chosen].mean(axis=0) for half in (chosen, ~chosen)]
    set_on, measured_on = Asked.of(halves[0], people[chosen]), Asked.of(halves[1], people[~chosen])
    return {"people": len(np.unique(people)), "samples": len(people)} | by_gallery(set_on, measured_on)


def main(arguments: Sequence[str]) -> None:
    """Collect, calibrate, write; prints what was measured."""
    media = Path(arguments[0])
    files = people_of(media)
    if not PEOPLE_LIST.exists():
        PEOPLE_LIST.write_text("\n".join(split(files)) + "\n")
    chosen = set(PEOPLE_LIST.read_text().split())
    opened = Installation(load_settings({"VISAVOX_DEVICE": "cpu"}))
    prober = Prober(opened.extractor.extract, opened.encoders, MemoryStore(), opened.records.people)
    samples = collect(prober, files, on_sample=_show)
    more = media.parent / MORE_VOICES
    for modality in Modality:
        elsewhere = {"x_vectors": by_gallery_elsewhere(more)} if modality is Modality.VOICE and more.is_file() else {}
        _write(modality, samples, chosen, opened, elsewhere)


def _write(
    modality: Modality, samples: Samples, chosen: set[str], opened: Installation, elsewhere: Mapping[str, Any]
) -> None:
    mine = samples.of(modality)
    set_on = [sample for sample in mine if sample.person in chosen]
    measured_on = [sample for sample in mine if sample.person not in chosen]
    encoder = opened.encoders[f"{modality}_identity"]
    document = {
        f"{modality}-{modality}": calibrate(set_on, measured_on),
        "provenance": {
            "space_digest": encoder.space.digest,
            "set_on": _described(set_on),
            "measured_on": _described(measured_on),
            "people_list_sha256": hashlib.sha256(PEOPLE_LIST.read_bytes()).hexdigest(),
            "gallery_elsewhere": elsewhere,
            "rules": {
                "identify": "a known person is missed as often as a stranger is named, asked of all in the half; "
                "where people are asked for by who speaks, the threshold is that of `gallery`",
                "verify": "as many genuine pairs are missed as impostor pairs are accepted (equal error)",
            },
        },
    }
    (encoder.folder / "calibration.json").write_text(json.dumps(document, indent=1) + "\n")
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


def _described(samples: Sequence[Sample]) -> Mapping[str, int]:
    return {"people": len({sample.person for sample in samples}), "samples": len(samples)}


def _show(seen: int, total: int, unusable: int) -> None:
    if seen % 25 == 0 or seen == total:
        sys.stderr.write(f"{seen} of {total} files, {unusable} unusable\n")


if __name__ == "__main__":
    main(sys.argv[1:])
