"""How a trained head does on people held out, of whom there are vectors and no list: the questions are drawn here.

They are those that a corpus's test people are asked (:mod:`training.corpora.trials`), by a stated seed, and the report
is that of every protocol. Where nobody says of what sex people are, no question is about people of one sex, and what
an oracle that knows only the sex would reach is not said.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from encoders.encoder import Encoder
from encoders.heads import Head
from encoders.space import Modality, Space
from search.crossmodal import GENDER_ORACLE, evaluate_protocol
from search.points import Points
from search.protocols import Lists, Protocol, Samples, Trials
from search.store import Store
from training.corpora.trials import MOST_SAMPLES, Shown, draw_matching, draw_pairs
from training.label_agreement import agreement_of_labels
from training.vectors import Vectors

SEED = 0


def measure_vectors(
    encoder: Encoder, vectors: Vectors, name: str, store: Store | None = None, depth: int | None = None
) -> dict[str, Any]:
    """The report of a protocol on people of whom there are frozen vectors.

    Args:
        encoder: of the shared space, whose networks gave the vectors.
        vectors: of people that it was not trained on, two at least.
        name: of the protocol.
        store: an empty index, which is filled and asked; None: every search is exact.
        depth: hits that it is asked for per probe; None: as many as it gives.

    Raises:
        SeenInTraining: it was trained on some of them.
        ValueError: it has no head, or one of another dimension.
    """
    if encoder.head is None:
        raise ValueError(f"{encoder.folder} has no head that frozen vectors could be put into")
    shown = _shown(vectors)
    points = replace(_points(encoder.space, encoder.head, vectors, shown), probe_centres=encoder.probe_centres)
    protocol = _protocol(vectors, shown, name, encoder.domain)
    deep = {} if depth is None else {"depth": depth}
    report = evaluate_protocol(protocol, points, store, model=encoder, **deep)
    people = {modality: protocol.samples(modality).people for modality in Modality}
    report["label_agreement"] = agreement_of_labels(points.vectors, people)
    return report if any(vectors.sexes) else _without_oracle(report)


def _shown(vectors: Vectors) -> dict[Modality, dict[str, dict[str, int]]]:
    """Some samples of everybody, evenly from all they have: row by name, by person, by modality."""
    shown: dict[Modality, dict[str, dict[str, int]]] = {}
    for modality in Modality:
        people = vectors.face_people if modality is Modality.FACE else vectors.voice_people
        shown[modality] = {}
        for number, person in enumerate(vectors.identities):
            rows = np.flatnonzero(people == number)
            places = np.linspace(0, len(rows) - 1, min(len(rows), MOST_SAMPLES)).round().astype(int)
            shown[modality][person] = {
                f"{person}/{modality}_{place + 1:05d}": int(rows[place]) for place in dict.fromkeys(places.tolist())
            }
    return shown


def _points(
    space: Space, head: Head, vectors: Vectors, shown: Mapping[Modality, Mapping[str, Mapping[str, int]]]
) -> Points:
    """Where the head puts the samples."""
    paths, found = {}, {}
    for modality in Modality:
        rows = {path: row for mine in shown[modality].values() for path, row in mine.items()}
        raw = head.apply(vectors.of(modality)[list(rows.values())], modality).astype(np.float64)
        unit = raw / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-12)
        paths[modality], found[modality] = tuple(rows), unit.astype(np.float32)
    return Points(space, paths, found)


def _protocol(
    vectors: Vectors, shown: Mapping[Modality, Mapping[str, Mapping[str, int]]], name: str, domain: str
) -> Protocol:
    """The questions: everybody's samples are searched, paired and matched."""
    sexes = dict(zip(vectors.identities, vectors.sexes, strict=True))
    groups = {"U": [list(vectors.identities)]}
    alike = [[one for one in vectors.identities if sexes[one] == sex] for sex in ("f", "m")]
    if all(sexes.values()) and (alike := [some for some in alike if len(some) > 1]):
        groups["G"] = alike
    named: Shown = {modality: {one: list(rows) for one, rows in mine.items()} for modality, mine in shown.items()}
    verification, matching = {}, {}
    for place, (kind, some) in enumerate(groups.items()):
        random = np.random.default_rng([SEED, place])
        pairs = list(draw_pairs(some, named, random))
        verification[kind] = Trials(
            tuple(voice for _, _, voice, _ in pairs),
            tuple(face for _, _, _, face in pairs),
            tuple(one == other for one, other, _, _ in pairs),
        )
        for probe in (Modality.VOICE, Modality.FACE):
            rows = list(draw_matching(some, named, probe, random))
            matching[probe, kind] = Lists(tuple(row[0] for row in rows), tuple(tuple(row[1:]) for row in rows))
    digest = hashlib.sha256(f"{vectors.digest} {SEED} {MOST_SAMPLES}".encode()).hexdigest()
    return Protocol(
        name=name, domain=domain, digest=digest, lists_digest=digest, media=Path(),
        identities=frozenset(vectors.identities), training=frozenset(), validation=frozenset(), sex=sexes,
        also_called={}, retrieval={modality: _searched(mine) for modality, mine in named.items()},
        verification=verification, matching=matching,
    )  # fmt: skip


def _searched(named: Mapping[str, Any]) -> Samples:
    paths = tuple(path for mine in named.values() for path in mine)
    return Samples(paths, tuple(person for person, mine in named.items() for _ in mine))


def _without_oracle(report: dict[str, Any]) -> dict[str, Any]:
    """The report without what an oracle of sexes that nobody knows made of them."""

    def cleaned(part: Any) -> Any:  # noqa: ANN401 - of JSON
        if not isinstance(part, dict):
            return part
        told = {name: cleaned(value) for name, value in part.items()}
        unknown = {name for name in told if name.startswith(GENDER_ORACLE)}
        return {name: None if name in unknown else value for name, value in told.items()}

    told: dict[str, Any] = cleaned(report)
    for figures in told["retrieval"].values():
        del figures["baselines"][GENDER_ORACLE]
    return told
