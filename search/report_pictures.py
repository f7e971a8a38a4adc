"""The pictures of a protocol's report, and examples of what its searches found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.space import Modality
from search import plots
from search.figures import Curve, chosen_people, det, map_embeddings, roc, score_histogram
from search.report_tables import GROUPS, ORACLES, SPLITS, WAYS
from search.sample_vectors import SampleVectors
from search.trial_lists import DIRECTIONS, UNSEEN, PairList, TrialLists

MAP_PEOPLE = 8
MAP_SAMPLES = 40
"""Of each person and modality in a map, as bi_quintuple's authors drew it (Table and figure of eight people)."""
EXAMPLES = 6
HITS_SHOWN = 8
_MAPS = (
    ("People", "PCA", tuple(Modality)),
    ("People", "t-SNE", tuple(Modality)),
    ("The voices alone", "t-SNE", (Modality.VOICE,)),  # S0 draws these
)
_APART = (
    "Networks whose vectors differ in width have no direction in common: there every face is as far from every voice."
)
_MAP_NOTE = "A colour is a person, circles are faces, triangles voices; distances between groups mean little in t-SNE."


@dataclass(frozen=True)
class Picture:
    """A drawing for a page.

    Args:
        title: what it shows.
        svg: an svg element.
        note: how to read it, a sentence, or empty.
    """

    title: str
    svg: str
    note: str = ""


@dataclass(frozen=True)
class Found:
    """One answer of a search: its path, and whether it is right."""

    path: str
    right: bool


@dataclass(frozen=True)
class Example:
    """A search and its first answers.

    Args:
        way: ``voice_to_face`` or ``face_to_voice``.
        probe: path of what was asked with.
        person: whom it shows.
        found: the first answers, best first.
    """

    way: str
    probe: str
    person: str
    found: tuple[Found, ...]


def pictures(
    report: Mapping[str, Any], lists: TrialLists, vectors: SampleVectors, before: SampleVectors | None = None
) -> list[Picture]:
    """All pictures of a report, in the order in which they are looked at.

    Args:
        report: of :func:`search.protocol_report.report_on`.
        lists: its lists.
        vectors: that were measured.
        before: another model's, to draw its map of the same people beside: what training or a loss changed.
    """
    trials = lists.usable(vectors.present)
    drawn = [*_verification(trials, vectors), *_retrieval(report), *_matching(report)]
    models = {"this model": vectors} | ({} if before is None else {"the other model": before})
    return [*drawn, *_maps(lists, models, _people_of_maps(trials))]


def _verification(trials: TrialLists, vectors: SampleVectors) -> Iterator[Picture]:
    for split, groups in trials.verification.items():
        scored = {name: (vectors.pairs(pairs.voices, pairs.faces), pairs.genuine) for name, pairs in groups.items()
                  if _both_kinds(pairs)}  # fmt: skip
        if not scored:
            continue
        words = SPLITS[split]
        curves = {GROUPS.get(name, name).partition(",")[0]: roc(*one) for name, one in scored.items()}
        yield Picture(f"ROC, {words}", plots.roc_picture(curves, f"ROC, {words}"))
        curves = {name: det(*one) for name, one in scored.items()}
        title = f"DET, {words}"
        yield Picture(title, plots.det_picture(curves, title), "Nearer to the lower left corner is better.")
        for name in ("U", "G"):
            if split == UNSEEN and name in scored:
                title = f"Scores of pairs, {GROUPS[name]}"
                note = "The less the two overlap, the better they are told apart."
                yield Picture(title, plots.histogram_picture(score_histogram(*scored[name]), title), note)


def _both_kinds(pairs: PairList) -> bool:
    return bool(pairs.genuine.any() and not pairs.genuine.all())


def _retrieval(report: Mapping[str, Any]) -> Iterator[Picture]:
    curves = {}
    for way, figures in report["retrieval"].items():
        trees = {"model": figures} | {words: report["oracles"][one]["retrieval"][way] for one, words in ORACLES.items()}
        for name, tree in trees.items():
            if tree["cmc"]:
                places = np.arange(1, len(tree["cmc"]) + 1, dtype=np.float64)
                curves[f"{WAYS[way]}, {name}"] = Curve(places, np.array(tree["cmc"], dtype=np.float64))
    if curves:
        yield Picture("Cumulative match", plots.cmc_picture(curves, "Cumulative match"))


def _matching(report: Mapping[str, Any]) -> Iterator[Picture]:
    for way, groups in report["matching_1_to_n"].items():
        curves = {}
        for group, sizes in groups.items():
            known = {int(number): one["accuracy"] for number, one in sizes.items() if one["accuracy"] is not None}
            if known:
                numbers = sorted(known)
                curves[group] = Curve(np.array(numbers, dtype=np.float64), np.array([known[one] for one in numbers]))
        if curves:
            title = f"Matching 1:N, {WAYS[way]}"
            yield Picture(title, plots.matching_picture(curves, title))


def _people_of_maps(trials: TrialLists) -> tuple[str, ...]:
    people = {
        modality: [trials.people.names[one] for one in trials.catalogues[modality].person[rows].tolist()]
        for modality, rows in trials.retrieval.items()
    }
    return chosen_people(people, MAP_PEOPLE)


def _maps(lists: TrialLists, models: Mapping[str, SampleVectors], chosen: Sequence[str]) -> Iterator[Picture]:
    """The same people as each model lays them out, in planes of their own."""
    told = [_of_people(lists, vectors, chosen) for vectors in models.values()]
    names = [f"{name} {vectors.space_digest[:12]}".strip() for name, vectors in models.items()]
    for words, method, modalities in _MAPS:
        try:
            maps = [
                map_embeddings(
                    {one: places[one] for one in modalities}, people, chosen, each=MAP_SAMPLES, method=method
                )
                for places, people in told
            ]
        except ValueError:  # too few to draw
            continue
        if len(maps) == 1:
            yield Picture(f"{words} ({method})", plots.map_picture(maps[0], words), _MAP_NOTE)
        else:
            title = f"{words} ({method}), side by side in two models"
            yield Picture(title, plots.maps_picture(dict(zip(names, maps, strict=True)), title), _MAP_NOTE)


def _of_people(
    lists: TrialLists, vectors: SampleVectors, chosen: Sequence[str]
) -> tuple[dict[Modality, NDArray[np.float64]], dict[Modality, list[str]]]:
    """Unit vectors of a few people's samples, and whom each shows, by modality."""
    trials = lists.usable(vectors.present)
    places, people = {}, {}
    for modality, rows in trials.retrieval.items():
        of_whom = trials.catalogues[modality].person[rows]
        wanted = np.isin(of_whom, [trials.people.number[name] for name in chosen])
        places[modality] = _unit(vectors.vectors[vectors.rows[modality][rows[wanted]]])
        people[modality] = [trials.people.names[one] for one in of_whom[wanted].tolist()]
    return places, people


def before_and_after(
    before: Mapping[Modality, NDArray[np.floating]],
    after: Mapping[Modality, NDArray[np.floating]],
    people: Mapping[Modality, Sequence[str]],
    stood: Mapping[Modality, str],
) -> list[Picture]:
    """What training made of a few people's voices, of their faces, and of both together, on two planes each.

    S3's figure 4 shows voices of three people by their principal components; S2 faces and voices together, by t-SNE.

    Args:
        before: by modality (n, dimension) what a network gave before; voices and faces need not share a space.
        after: by modality (n, dimension) the same samples in the space that serves.
        people: by modality, whom each shows.
        stood: by modality, what its network was before, such as "untrained".

    Returns:
        A picture of each modality, and of both, of which there are samples enough to draw.
    """
    alone = "A colour is a person; each plane is of the two directions of largest variance of its own points."
    wanted = (
        ("voices", (Modality.VOICE,), "PCA", alone),
        ("faces", (Modality.FACE,), "PCA", alone),
        ("faces and voices together", tuple(Modality), "t-SNE", f"{_MAP_NOTE} {_APART}"),
    )
    drawn = []
    for words, modalities, method, note in wanted:
        chosen = tuple(dict.fromkeys(person for one in modalities for person in people[one]))
        owner = "The " + words if len(modalities) == 1 else words.capitalize()
        title = f"{owner} of {len(chosen)} people before and after training ({method})"
        was = ", ".join(dict.fromkeys(stood[one] for one in modalities))
        sides = {f"before: {was}": before, "after: as it serves": after}
        try:
            maps = {
                name: map_embeddings(_of_one_space(side, modalities), people, chosen, each=MAP_SAMPLES, method=method)
                for name, side in sides.items()
            }
        except ValueError:  # too few to draw
            continue
        drawn.append(Picture(title, plots.maps_picture(maps, title), note))
    return drawn


def _of_one_space(
    vectors: Mapping[Modality, NDArray[np.floating]], modalities: Sequence[Modality]
) -> dict[Modality, NDArray[np.float64]]:
    """Unit vectors; what is of spaces of another width each, which have no direction in common, side by side in one."""
    unit = {one: _unit(vectors[one]) for one in modalities}
    widths = [one.shape[1] for one in unit.values()]
    if len(set(widths)) == 1:
        return unit
    before = dict(zip(modalities, np.cumsum([0, *widths[:-1]]).tolist(), strict=True))
    return {
        one: np.pad(told, ((0, 0), (before[one], sum(widths) - before[one] - told.shape[1])))
        for one, told in unit.items()
    }


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    known = vectors.astype(np.float64)
    return np.asarray(known / np.maximum(np.linalg.norm(known, axis=1, keepdims=True), np.finfo(float).tiny))


def examples(
    lists: TrialLists, vectors: SampleVectors, *, count: int = EXAMPLES, shown: int = HITS_SHOWN, seed: int = 0
) -> list[Example]:
    """A few searches in each direction with their first answers; the probes are drawn by a seed, not chosen.

    Args:
        lists: of the protocol.
        vectors: that were measured.
        count: searches in each direction.
        shown: answers of each.
        seed: of the draw.
    """
    trials = lists.usable(vectors.present)
    if not all(len(rows) for rows in trials.retrieval.values()):
        return []
    sides, told = vectors.sides(trials), []
    probes = vectors.asking(sides)
    for probe, way in DIRECTIONS.items():
        asking, answering = probes[probe], sides[probe.other]
        mine, theirs = (_paths(trials, modality) for modality in (probe, probe.other))
        drawn = np.random.default_rng(seed).permutation(len(mine))[:count]
        for row in sorted(drawn.tolist()):
            scores = answering.vectors @ asking.vectors[row]
            best = np.argsort(-scores, kind="stable")[:shown].tolist()
            person = int(asking.person[row])
            found = tuple(Found(theirs[one], bool(answering.person[one] == person)) for one in best)
            told.append(Example(way, mine[row], trials.people.names[person], found))
    return told


def _paths(trials: TrialLists, modality: Modality) -> list[str]:
    paths = trials.catalogues[modality].paths
    return [paths[row] for row in trials.retrieval[modality].tolist()]
