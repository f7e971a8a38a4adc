"""Measures how well encoders tell people apart: files → the pipeline → the index → the metrics.

The scores come twice: exactly, from all pairs, and through the index. Their difference is what approximate
search costs, and the report says it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.encoder import Encoder
from encoders.space import Embedding, Modality
from ingest.media import MediaError
from ingest.track import media_id
from search import metrics
from search.archive import NO_SPAN
from search.intervals import bootstrap_interval
from search.measurement import BOOTSTRAP_DRAWS as BOOTSTRAP_DRAWS
from search.measurement import BOOTSTRAP_SEED as BOOTSTRAP_SEED
from search.measurement import NothingToMeasure as NothingToMeasure
from search.measurement import Unusable as Unusable
from search.probes import Prober, ProbeUnusable
from search.ranking import RECALL_AT, judge
from search.scores import similarity_matrix
from search.store import MOST_HITS, Filter, Row, Store, row_key

# Probes are asked in blocks, so that the answers held at once stay few.
PROBES_AT_ONCE = 200


@dataclass(frozen=True, eq=False)
class Sample:
    """One file's face or voice: where it came from, whom it shows, and its point."""

    path: Path
    person: str
    media: str
    embedding: Embedding


@dataclass
class Samples:
    """What is scored: at most one face and one voice per file, each content once."""

    samples: list[Sample] = field(default_factory=list)
    unusable: list[Unusable] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)

    def of(self, modality: Modality) -> list[Sample]:
        """The samples of one modality."""
        return [sample for sample in self.samples if sample.embedding.modality is modality]

    def export(self, path: Path) -> None:
        """Write ``path``, ``person``, ``modality`` (str arrays) and ``vector`` (object-free float32) to npz.

        Spaces differ in dimension, so vectors are padded with zeros to the widest; ``dimension`` tells how
        many components count.
        """
        width = max(sample.embedding.space.dimension for sample in self.samples)
        vectors = np.zeros((len(self.samples), width), dtype=np.float32)
        for row, sample in enumerate(self.samples):
            vectors[row, : sample.embedding.space.dimension] = sample.embedding.vector
        np.savez(
            path,
            path=np.array([str(sample.path) for sample in self.samples]),
            person=np.array([sample.person for sample in self.samples]),
            modality=np.array([str(sample.embedding.modality) for sample in self.samples]),
            dimension=np.array([sample.embedding.space.dimension for sample in self.samples]),
            vector=vectors,
        )


def collect(
    prober: Prober,
    files: Mapping[str, Sequence[Path]],
    *,
    on_sample: Callable[[int, int, int], None] = lambda seen, total, unusable: None,
) -> Samples:
    """Read every file of every person as a probe is read: its largest face, its longest-speaking voice.

    Args:
        prober: reads and encodes.
        files: paths by person.
        on_sample: called with (files seen, files in all, unusable so far) after each.

    Returns:
        The samples; unusable files are listed with their reason and stop nothing.
    """
    found = Samples()
    seen: dict[str, str] = {}
    total = sum(len(paths) for paths in files.values())
    everything = [(person, path) for person, paths in files.items() for path in paths]
    for number, (person, path) in enumerate(everything, start=1):
        try:
            media = media_id(path)
            if media in seen:
                found.duplicates.append(f"{path} is {seen[media]}")
                continue
            seen[media] = str(path)
            probe = prober.probe(path)
        except (MediaError, ProbeUnusable, OSError) as error:
            readable = isinstance(error, ProbeUnusable)
            found.unusable.append(Unusable(str(path), getattr(error, "reason", str(error)), readable))
        else:
            points = [point for point in (probe.face, probe.voice) if point is not None]
            found.samples += [Sample(path, person, media, point) for point in points]
        on_sample(number, total, len(found.unusable))
    return found


def enrolled_samples(store: Store, encoders: Mapping[str, Encoder], names: Mapping[str, str]) -> Samples:
    """The samples of the people who are enrolled, as the index holds them: of each medium the best of a person.

    Several looks at one face in one film would find each other for the film's sake.

    Args:
        store: the index.
        encoders: by space; those of one modality are asked.
        names: of people by id.
    """
    best: dict[tuple[str, str, str], Row] = {}
    for encoder in encoders.values():
        if len(encoder.modalities) > 1:
            continue
        for row in store.rows(encoder.space, Filter(enrolled=True)):
            place = (encoder.space.name, row.person, row.media)
            if row.person in names and (place not in best or _rank(row) > _rank(best[place])):
                best[place] = row
    chosen = [best[place] for place in sorted(best)]
    return Samples([Sample(Path(row.evidence), names[row.person], row.media, row.embedding) for row in chosen])


def _rank(row: Row) -> tuple[float, str]:
    """The better sample is greater; of equal ones the same in every run."""
    return row.quality, row.key


def evaluate_people(samples: Samples, store: Store, encoders: Mapping[str, Encoder]) -> dict[str, Any]:
    """Retrieval and verification within each modality, leave-one-out, exact and through a store.

    Every sample of a person who has at least two is a probe; all other samples are its gallery.

    Args:
        samples: what to score.
        store: an empty index; it is filled.
        encoders: by space, for what they were trained on.

    Returns:
        A report ready for JSON: ``retrieval.{face_to_face,voice_to_voice}``, ``verification.{face,voice}``,
        fractions in [0, 1], with 95 % identity-bootstrap intervals.

    Raises:
        NothingToMeasure: no modality has two people and a person with two samples.
    """
    report: dict[str, Any] = {"retrieval": {}, "verification": {}, "models": {}}
    for modality in Modality:
        chosen = samples.of(modality)
        people = np.array([sample.person for sample in chosen])
        counts = {person: int((people == person).sum()) for person in people}
        if len(counts) < 2 or max(counts.values(), default=0) < 2:
            continue
        report["retrieval"][f"{modality}_to_{modality}"] = _retrieval(chosen, people, store)
        report["verification"][str(modality)] = _verification(chosen, people)
        space = chosen[0].embedding.space
        encoder = encoders[space.name]
        report["models"][space.name] = {
            "space_digest": space.digest, "domain": encoder.domain, "trained_on": encoder.trained_on
        }  # fmt: skip
    if not report["retrieval"]:
        raise NothingToMeasure(
            "a measurement needs at least two people with usable media, and one of them with two files"
        )
    report["unusable"] = [
        {"path": one.path, "reason": one.reason, "readable": one.readable} for one in samples.unusable
    ]
    report["duplicates"] = list(samples.duplicates)
    return report


def _retrieval(samples: Sequence[Sample], people: NDArray[np.str_], store: Store) -> dict[str, Any]:
    vectors = np.stack([sample.embedding.vector for sample in samples])
    same = people[:, None] == people[None, :]
    probes = np.flatnonzero(same.sum(axis=1) > 1)
    exact = similarity_matrix(vectors[probes], vectors)
    through = _through_store(samples, probes, store)
    for scores in (exact, through):
        scores[np.arange(len(probes)), probes] = -np.inf  # a probe is not in its own gallery
    judged = {"map": judge(through, same[probes]), "map_exact": judge(exact, same[probes])}
    found = judged["map"]
    figures: dict[str, Any] = {name: one.map for name, one in judged.items()}
    figures |= {f"recall_at_{k}": float(found.recall[k].mean()) for k in RECALL_AT}
    relevant = same[probes].sum(axis=1) - 1
    chance = [metrics.chance_average_precision(int(count), len(samples) - 1) for count in relevant]
    interval = bootstrap_interval(found.average_precision, people[probes], draws=BOOTSTRAP_DRAWS, seed=BOOTSTRAP_SEED)
    return figures | {
        "ci95": [interval.low, interval.high], "chance": float(np.mean(chance)),
        "probes": len(probes), "gallery": len(samples) - 1,
        "people": len(set(people)), "people_asked": len(set(people[probes])),
    }  # fmt: skip


def _through_store(samples: Sequence[Sample], probes: NDArray[np.intp], store: Store) -> NDArray[np.float64]:
    """(probes, samples) scores as the index gives them; what it does not return ranks last."""
    space = samples[0].embedding.space
    modality = samples[0].embedding.modality
    keys = [row_key(sample.media, modality, NO_SPAN, sample.media, space) for sample in samples]
    column = {key: number for number, key in enumerate(keys)}
    store.create(space)
    rows = [
        Row(key, sample.embedding, sample.media, 0, NO_SPAN, sample.media)
        for key, sample in zip(keys, samples, strict=True)
    ]
    store.upsert(space, rows)
    store.flush(space)
    scores = np.full((len(probes), len(samples)), -2.0)  # below any cosine
    for start in range(0, len(probes), PROBES_AT_ONCE):
        block = probes[start : start + PROBES_AT_ONCE]
        asked = [samples[index].embedding for index in block]
        for line, hits in enumerate(store.search(asked, min(len(samples), MOST_HITS), want=modality)):
            for hit in hits:
                scores[start + line, column[hit.row.key]] = hit.score
    return scores


def _verification(samples: Sequence[Sample], people: NDArray[np.str_]) -> dict[str, Any]:
    """All pairs of samples, each once."""
    vectors = np.stack([sample.embedding.vector for sample in samples])
    first, second = np.triu_indices(len(samples), k=1)
    scores = similarity_matrix(vectors, vectors)[first, second]
    genuine = people[first] == people[second]
    return {
        "auc": metrics.auc(scores[genuine], scores[~genuine]),
        "eer": metrics.equal_error_rate(scores[genuine], scores[~genuine]),
        "pairs": len(scores),
        "genuine_pairs": int(genuine.sum()),
    }
