"""Where the samples of a protocol lie on disk, and their vectors by an encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoders.probe_centres import ARRAY
from encoders.space import Modality
from search.list_folder import ProtocolError, refuse_outside
from search.measurement import Unusable
from search.points import CrossModalEncoder, Readers, embed_files
from search.sample_vectors import SampleVectors, vectors_digest
from search.scores import Similarity
from search.trial_lists import VALIDATION, Rows, TrialLists

# Folders below the given one in which corpora come: as they are unpacked, or laid together.
_ROOTS = (
    "", "wav", "faces", "unzippedFaces", "unzippedIntervalFaces", "vox1_dev_wav/wav", "vox1_test_wav/wav",
    "dev/wav", "test/wav",
)  # fmt: skip
VALIDATION_SAMPLES = 20
"""Samples of each modality of each validation person, for the threshold."""

Files = Mapping[Modality, Mapping[str, Path]]


def find_files(
    lists: TrialLists, media: Path, *, allow_missing: bool = False, within: Sequence[str] | None = None
) -> Files:
    """Where each sample lies, by canonical path; also some of validation people, if they are there.

    Args:
        lists: which samples are needed.
        media: holds ``idXXXXX/…`` and ``Name/1.6/…``, or the folders in which VoxCeleb1 is unpacked.
        allow_missing: leave out what is not there.
        within: folders that no file may lie outside of, links followed; None: wherever it lies.

    Raises:
        ProtocolError: there is no such folder, or a sample is not there or lies outside.
    """
    if not media.is_dir():
        raise ProtocolError(media, "there is no such folder of media")
    roots = [media / name for name in _ROOTS if (media / name).is_dir()]
    found: dict[Modality, dict[str, Path]] = {modality: {} for modality in Modality}
    missing: list[str] = []
    for modality in Modality:
        for name in lists.catalogues[modality].paths:
            place = next((root / name for root in roots if (root / name).is_file()), None)
            if place is None:
                missing.append(name)
            else:
                found[modality][name] = place
        for name, place in _of_validation(lists, roots, modality):
            found[modality].setdefault(name, place)
        for place in found[modality].values() if within is not None else ():
            refuse_outside(place, within)
    if missing and not allow_missing:
        total = sum(len(lists.catalogues[modality].paths) for modality in Modality)
        raise ProtocolError(
            media, f"lacks {len(missing)} of the {total} files that the lists of {lists.name} name, such as "
            f"{missing[0]}: give them, or leave their trials out with --allow-missing",
        )  # fmt: skip
    return found


def _of_validation(lists: TrialLists, roots: list[Path], modality: Modality) -> Iterator[tuple[str, Path]]:
    """As many samples of each as are needed, spread evenly over what is there."""
    people = lists.people
    voice = modality is Modality.VOICE
    for person in np.flatnonzero(people.split == VALIDATION).tolist():
        for root in roots:
            place = root / (people.ids if voice else people.names)[person]
            names = sorted(place.glob("*/*.wav" if voice else "1.6/*/*.jpg")) if place.is_dir() else []
            for path in names[:: max(1, -(-len(names) // VALIDATION_SAMPLES))]:
                yield path.relative_to(root).as_posix(), path


def embed_lists(
    lists: TrialLists,
    files: Files,
    encoder: CrossModalEncoder,
    readers: Readers,
    similarity: Similarity = Similarity.COSINE,
    on_sample: Callable[[int, int, int], None] = lambda seen, total, unusable: None,
) -> tuple[SampleVectors, tuple[Unusable, ...]]:
    """Read and encode every file, and what could not be used.

    Raises:
        ProtocolError: nothing could be used.
    """
    found, unusable = embed_files(files, encoder, readers, on_sample)
    names = [name for modality in Modality for name in found[modality]]
    if not names:
        raise ProtocolError(Path(lists.name), "none of its samples could be read and encoded")
    vectors = np.stack([found[modality][name] for modality in Modality for name in found[modality]])
    rows: dict[Modality, Rows] = {}
    validation: dict[Modality, tuple[Rows, Rows]] = {}
    start = 0
    for modality in Modality:
        place = {name: start + number for number, name in enumerate(found[modality])}
        start += len(place)
        catalogue = lists.catalogues[modality]
        rows[modality] = np.array([place.get(name, -1) for name in catalogue.paths], dtype=np.int32)
        aside = [
            (row, lists.people.number[name.split("/")[0]]) for name, row in place.items() if name not in catalogue.row
        ]
        table: NDArray[np.int32] = np.array(aside, dtype=np.int32).reshape(-1, 2)
        validation[modality] = table[:, 0], table[:, 1]
    space, centres = encoder.space, encoder.probe_centres
    digest = vectors_digest(names, vectors)
    told = SampleVectors(
        vectors, rows, digest, space.name, space.digest, encoder.identities, validation, similarity, centres
    )
    return told, unusable


def export_vectors(path: Path, vectors: SampleVectors, lists: TrialLists) -> None:
    """Write what was scored: ``path``, ``person``, ``modality`` and ``vector``, to be read as embeddings again.

    ``space`` and ``space_digest`` stand beside them where they are known, and the centres of probes if there are any.
    """
    chosen = {one: np.flatnonzero(vectors.rows[one] >= 0) for one in Modality}
    catalogues = lists.catalogues
    arrays = {
        "path": np.array([catalogues[one].paths[row] for one in Modality for row in chosen[one].tolist()]),
        "person": np.array([
            lists.people.names[person] for one in Modality for person in catalogues[one].person[chosen[one]].tolist()
        ]),
        "modality": np.array([str(one) for one in Modality for _ in chosen[one]]),
        "vector": vectors.vectors[np.concatenate([vectors.rows[one][chosen[one]] for one in Modality])],
    }  # fmt: skip
    if vectors.space_digest:
        arrays |= {"space": np.array(vectors.space), "space_digest": np.array(vectors.space_digest)}
    arrays |= {ARRAY[one]: np.asarray(centre) for one, centre in vectors.probe_centres.items()}
    np.savez(path, **arrays)
