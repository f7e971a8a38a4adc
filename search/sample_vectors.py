"""Vectors of a protocol's samples: read from a file or made here, checked, and scored as asked.

Scores are computed in double precision from the vectors as they were given: a cosine divides by lengths in double
precision too, so that no rounding of a unit vector moves one score past another.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from encoders.probe_centres import ARRAY, ProbeCentres, check_centre, without_centre
from encoders.space import Modality
from search.measurement import PointsError
from search.scores import Similarity
from search.trial_lists import VALIDATION, ListedPathError, Rows, TrialLists, canonical_path
from search.two_way import Ranked, Side, rank_both_ways

if TYPE_CHECKING:
    from search.points import Points  # which loads what encodes

MODALITY_OF_SUFFIX = {
    **dict.fromkeys(("wav", "flac", "m4a", "mp3", "ogg", "opus", "aac"), Modality.VOICE),
    **dict.fromkeys(("jpg", "jpeg", "png", "bmp", "webp", "pgm", "tif"), Modality.FACE),
}
_ARRAYS = {"path", "vector", "person", "modality", "dimension", "space", "space_digest", "identities", *ARRAY.values()}
_ROWS_AT_ONCE, _PAIRS_AT_ONCE = 8192, 1024
# Scores nearer than this are one score: sums of the same numbers in another order differ by less.
_DECIMALS = 13


@dataclass(frozen=True, eq=False)
class SampleVectors:
    """A vector for each sample of a protocol that has one.

    Args:
        vectors: (n, dimension) as given; finite, none of length zero.
        rows: by modality (samples of the catalogue,) row of ``vectors``; −1: none.
        digest: SHA-256 of the vectors and their paths.
        space: name of their space, or empty.
        space_digest: of their space, or empty where nobody said.
        identities: whom the model was trained on, where that was said.
        validation: by modality, rows of ``vectors`` and people of samples of validation people.
        similarity: how two of them are compared.
        probe_centres: what is taken from a probe of unit length before it asks for the other modality; see ``applied``.
    """

    vectors: NDArray[np.floating] = field(repr=False)
    rows: Mapping[Modality, Rows] = field(repr=False)
    digest: str = ""
    space: str = ""
    space_digest: str = ""
    identities: frozenset[str] = frozenset()
    validation: Mapping[Modality, tuple[Rows, Rows]] = field(default_factory=dict, repr=False)
    similarity: Similarity = Similarity.COSINE
    probe_centres: ProbeCentres = field(default_factory=dict, repr=False)

    @classmethod
    def nothing(cls, lists: TrialLists, dimension: int) -> SampleVectors:
        """No vector for any sample."""
        rows = {one: np.full(len(lists.catalogues[one].paths), -1, dtype=np.int32) for one in Modality}
        return cls(np.zeros((0, dimension), dtype=np.float32), rows)

    @classmethod
    def of_points(cls, points: Points, lists: TrialLists) -> SampleVectors:
        """The vectors of points that are called as the lists call them; others are left out."""
        rows, start = {}, 0
        for one in Modality:
            place = {
                canonical_path(one, path, lists.people)[0]: start + row for row, path in enumerate(points.paths[one])
            }
            rows[one] = np.array([place.get(path, -1) for path in lists.catalogues[one].paths], dtype=np.int32)
            start += len(place)
        vectors = np.concatenate([points.vectors[one] for one in Modality])
        names = [path for one in Modality for path in points.paths[one]]
        digest = vectors_digest(names, vectors)
        return cls(vectors, rows, digest, points.space.name, points.space.digest, probe_centres=points.probe_centres)

    @property
    def applied(self) -> ProbeCentres:
        """The centres, where cosines are asked for; none with another similarity, for which they were not found."""
        return self.probe_centres if self.similarity is Similarity.COSINE else {}

    @property
    def present(self) -> dict[Modality, NDArray[np.bool_]]:
        """By modality (samples of the catalogue,) whether each has a vector."""
        return {modality: rows >= 0 for modality, rows in self.rows.items()}

    def pairs(self, voices: Rows, faces: Rows) -> NDArray[np.float64]:
        """(n,) scores of rows of the catalogues, higher for nearer."""
        return self.compared(self.rows[Modality.VOICE][voices], self.rows[Modality.FACE][faces])

    def compared(self, first: Rows, second: Rows) -> NDArray[np.float64]:
        """(n,) scores of rows of ``vectors``."""
        scores = np.empty(len(first))
        for start in range(0, len(first), _PAIRS_AT_ONCE):
            part = slice(start, start + _PAIRS_AT_ONCE)
            if self.similarity is Similarity.COSINE:
                one, other = self.vectors[first[part]], self.vectors[second[part]]
                scores[part] = np.einsum("nd,nd->n", one, other, dtype=np.float64)
                scores[part] /= self._lengths[first[part]] * self._lengths[second[part]]
                continue
            one, other = self._prepared(first[part]), self._prepared(second[part])
            if self.similarity is Similarity.EUCLIDEAN:
                scores[part] = -np.sqrt(np.einsum("nd,nd->n", one - other, one - other))
            else:
                scores[part] = np.einsum("nd,nd->n", one, other)
        return np.round(scores, _DECIMALS)

    def both_ways(self, lists: TrialLists) -> Mapping[Modality, Ranked]:
        """What each sample of the retrieval lists gets as a probe, by modality."""
        if not all(len(rows) for rows in lists.retrieval.values()):
            nothing = {one: np.zeros(len(rows), dtype=np.int64) for one, rows in lists.retrieval.items()}
            empty = {one: np.full(len(rows), np.nan) for one, rows in lists.retrieval.items()}
            return {one: Ranked(empty[one], empty[one], *(nothing[one],) * 4, 0) for one in Modality}
        sides = self.sides(lists)
        asking = self.asking(sides)
        ranked: dict[Modality, Ranked] = {}
        if any(asking[modality] is sides[modality] for modality in Modality):
            voices, faces = rank_both_ways(sides[Modality.VOICE], sides[Modality.FACE])
            ranked = {Modality.VOICE: voices, Modality.FACE: faces}
        for modality in Modality:
            if asking[modality] is not sides[modality]:
                ranked[modality], _ = rank_both_ways(asking[modality], sides[modality.other])
        return ranked

    def sides(self, lists: TrialLists) -> dict[Modality, Side]:
        """The samples of the retrieval lists; dot products of the two sides rank as the scores do."""
        return {modality: self._side(lists, modality) for modality in Modality}

    def asking(self, sides: Mapping[Modality, Side]) -> dict[Modality, Side]:
        """The same samples as they ask: those of a modality that has a centre without it, the others as they are."""
        moved = {one: without_centre(sides[one].vectors, centre) for one, centre in self.applied.items()}
        return {one: replace(side, vectors=moved[one]) if one in moved else side for one, side in sides.items()}

    @cached_property
    def _lengths(self) -> NDArray[np.float64]:
        """(n,) length of each vector."""
        squares: NDArray[np.float64] = np.einsum("nd,nd->n", self.vectors, self.vectors, dtype=np.float64)
        return np.sqrt(squares)

    def _side(self, lists: TrialLists, modality: Modality) -> Side:
        rows, catalogue = lists.retrieval[modality], lists.catalogues[modality]
        prepared = self._prepared(self.rows[modality][rows])
        if self.similarity is Similarity.EUCLIDEAN:
            prepared = self._as_products(prepared, modality)
        return Side(prepared, catalogue.person[rows], catalogue.recording[rows])

    def _as_products(self, vectors: NDArray[np.float64], modality: Modality) -> NDArray[np.float64]:
        """−‖a − b‖² = 2 a·b − ‖a‖² − ‖b‖², scaled to lie within −1 and 0."""
        squares = np.einsum("nd,nd->n", vectors, vectors)
        largest = 2.0 * float(np.sqrt(np.einsum("nd,nd->n", self.vectors, self.vectors, dtype=np.float64).max()))
        ones = np.ones(len(vectors))
        tail = (-squares, ones) if modality is Modality.VOICE else (ones, -squares)
        return np.column_stack([np.sqrt(2.0) * vectors, *tail]) / largest

    def _prepared(self, rows: Rows) -> NDArray[np.float64]:
        vectors = self.vectors[rows].astype(np.float64)
        if self.similarity is Similarity.EUCLIDEAN:
            return vectors
        if self.similarity is Similarity.CORRELATION:
            vectors -= vectors.mean(axis=1, keepdims=True)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(float).tiny)
        return vectors


def read_sample_vectors(
    path: Path, lists: TrialLists, similarity: Similarity = Similarity.COSINE, *, allow_missing: bool = False
) -> SampleVectors:
    """Read an npz file that holds ``path`` and ``vector``: of every sample that a list names, and perhaps of others.

    Args:
        path: the file; also one that ``visavox evaluate --export`` wrote.
        lists: which samples are needed.
        similarity: how vectors are compared.
        allow_missing: leave out samples without a vector instead of refusing the file.

    Raises:
        PointsError: it is no such file, lacks samples, names people whom the protocol does not know, or holds a
            vector that is no point; the message is one sentence.
    """
    held = _load(path)
    vectors, paths = held["vector"], held["path"].astype(str)
    _check(path, vectors, paths, held)
    names = paths.tolist()
    kinds = held["modality"].astype(str) if "modality" in held else None
    # nearly every name is canonical, and no voice is called as a face is
    place = {one: _places(names, lists.catalogues[one].row) for one in Modality}
    if kinds is not None:
        for one in Modality:
            place[one][kinds != one] = -1
    aside: dict[Modality, list[tuple[int, int]]] = {one: [] for one in Modality}
    for number in np.flatnonzero((place[Modality.FACE] < 0) & (place[Modality.VOICE] < 0)).tolist():
        modality = _modality(path, names[number], "" if kinds is None else str(kinds[number]))
        canonical, person = _known(path, modality, names[number], lists)
        place[modality][number] = lists.catalogues[modality].row.get(canonical, -1)
        if place[modality][number] < 0 and lists.people.split[person] == VALIDATION:
            aside[modality].append((number, person))
    rows = {one: _rows(path, names, place[one], len(lists.catalogues[one].paths)) for one in Modality}
    _refuse_missing(path, rows, lists, allow_missing)
    return SampleVectors(
        vectors, rows, vectors_digest(names, vectors), *_stated(path, held), _identities(held),
        {one: _columns(aside[one]) for one in Modality}, similarity, _centres(path, held),
    )  # fmt: skip


def _load(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        raise PointsError(f"{path}: there is no such file")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            held = {name: np.asarray(stored[name]) for name in stored.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        # the library's own words would say how to load what must not be loaded
        raise PointsError(
            f"{path}: is no npz file of plain arrays: write `path` and `vector` by numpy.savez"
        ) from error
    if unknown := sorted(set(held) - _ARRAYS):
        raise PointsError(f"{path}: holds the unknown array {unknown[0]!r}; it may hold {', '.join(sorted(_ARRAYS))}")
    if missing := sorted({"path", "vector"} - set(held)):
        raise PointsError(f"{path}: lacks the array {missing[0]!r}; it holds {', '.join(sorted(held)) or 'nothing'}")
    return held


def _places(names: Sequence[str], known: Mapping[str, int]) -> Rows:
    """(n,) the row of each name, −1 where it has none."""
    return np.fromiter(map(known.get, names, repeat(-1)), dtype=np.int32, count=len(names))


def _rows(path: Path, names: Sequence[str], place: Rows, count: int) -> Rows:
    """(count,) which name has each row, −1 where none has."""
    given = np.flatnonzero(place >= 0)
    rows = np.full(count, -1, dtype=np.int32)
    rows[place[given]] = given
    for again in given[rows[place[given]] != given][:1]:
        raise PointsError(f"{path}: {names[again]} comes twice")
    return rows


def _check(path: Path, vectors: NDArray[Any], paths: NDArray[Any], held: Mapping[str, NDArray[Any]]) -> None:
    if vectors.ndim != 2 or not vectors.size or vectors.dtype.kind != "f" or paths.shape != vectors.shape[:1]:
        raise PointsError(
            f"{path}: needs a vector (n, dimension) of floats for each path (n,), got {vectors.dtype} {vectors.shape} "
            f"for {paths.shape}"
        )
    if "modality" in held and held["modality"].shape != paths.shape:
        raise PointsError(f"{path}: needs a modality for each path, got {held['modality'].shape} for {paths.shape}")
    if "dimension" in held and (held["dimension"] != vectors.shape[1]).any():
        raise PointsError(f"{path}: holds vectors of spaces of unlike dimension; faces and voices must share one space")
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        part = vectors[start : start + _ROWS_AT_ONCE]
        lengths = np.einsum("nd,nd->n", part, part, dtype=np.float64)
        for wrong in np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))[:1]:
            what = "is not finite" if not np.isfinite(lengths[wrong]) else "has length 0, so no direction"
            raise PointsError(f"{path}: the vector of {paths[start + wrong]} {what}")


def _modality(path: Path, name: str, kind: str) -> Modality:
    modality = MODALITY_OF_SUFFIX.get(name.rpartition(".")[2].lower()) if not kind else None
    if kind:
        if kind not in set(Modality):
            raise PointsError(f"{path}: a modality is face or voice, got {kind!r}")
        modality = Modality(kind)
    if modality is None:
        raise PointsError(f"{path}: {name!r} is neither a voice (.wav, …) nor a face (.jpg, …) by its name")
    return modality


def _known(path: Path, modality: Modality, name: str, lists: TrialLists) -> tuple[str, int]:
    try:
        canonical, person, _ = canonical_path(modality, name, lists.people)
    except ListedPathError as error:
        raise PointsError(f"{path}: {error}") from error
    return canonical, person


def _refuse_missing(path: Path, rows: Mapping[Modality, Rows], lists: TrialLists, allow_missing: bool) -> None:
    lacking = {one: np.flatnonzero(rows[one] < 0) for one in Modality}
    count = sum(map(len, lacking.values()))
    if count and not allow_missing:
        total = sum(map(len, rows.values()))
        first = next(lists.catalogues[one].paths[lacking[one][0]] for one in Modality if len(lacking[one]))
        raise PointsError(
            f"{path}: has no vector for {count} of the {total} samples that the lists of {lists.name} name, such as "
            f"{first}: give them, or leave their trials out with --allow-missing"
        )


def _stated(path: Path, held: Mapping[str, NDArray[Any]]) -> tuple[str, str]:
    told = []
    for name in ("space", "space_digest"):
        values = sorted(set(np.atleast_1d(held[name]).astype(str).tolist())) if name in held else [""]
        if len(values) != 1:
            raise PointsError(f"{path}: holds vectors of {len(values)} spaces ({name}: {', '.join(values[:3])})")
        told.append(values[0])
    return told[0], told[1]


def _identities(held: Mapping[str, NDArray[Any]]) -> frozenset[str]:
    return frozenset(np.atleast_1d(held["identities"]).astype(str).tolist()) if "identities" in held else frozenset()


def _centres(path: Path, held: Mapping[str, NDArray[Any]]) -> ProbeCentres:
    centres = {one: held[name] for one, name in ARRAY.items() if name in held}
    for one, centre in centres.items():
        try:
            check_centre(centre, held["vector"].shape[1])
        except (TypeError, ValueError) as error:
            raise PointsError(f"{path}: {ARRAY[one]} is no centre of probes: {error}") from error
    return centres


def _columns(pairs: list[tuple[int, int]]) -> tuple[Rows, Rows]:
    table = np.array(pairs, dtype=np.int32).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def vectors_digest(names: list[str], vectors: NDArray[Any]) -> str:
    """SHA-256 of vectors and of what they are called."""
    told = hashlib.sha256("\n".join(names).encode())
    told.update(np.ascontiguousarray(vectors).data)
    return told.hexdigest()
