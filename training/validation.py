"""Validation is search: validation people's samples in an exact store, asked both ways, judged by mAP."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from encoders.backbones.small_voice import windows_of
from encoders.backbones.sound_pictures import mean_by_owner
from encoders.space import Embedding, Modality, Space
from search.archive import NO_SPAN
from search.ranking import judge
from search.store import MemoryStore, Row, row_key
from training.networks import GREY, longest_piece, trainable
from training.prepared import Prepared
from training.recipe import Task
from training.vectors import Vectors

# Validation has a space of its own: its vectors meet nobody else's.
SPACE_NAME, DIGEST = "validation", "0" * 64
_AT_ONCE = 64  # samples embedded at a time: bounds memory
_VECTORS_AT_ONCE = 4096
# Below any cosine: what a store does not return ranks last.
_NOT_FOUND = -2.0


@dataclass(frozen=True)
class Validated:
    """What validation people's samples find, each way, in [0, 1].

    Args:
        voice_to_face: mean average precision where a voice asks for the faces of its person.
        face_to_voice: where a face asks for the voices of its person.
        voice_to_face_of_two: how often a voice chooses right between a face of its person and one of somebody else,
            over all such pairs (1:2 matching; S0 follows it by epoch); 0.5 where there is nobody else.
        face_to_voice_of_two: how often a face does between two voices.
    """

    voice_to_face: float
    face_to_voice: float
    voice_to_face_of_two: float
    face_to_voice_of_two: float

    @property
    def mean(self) -> float:
        """What the best checkpoint is chosen by."""
        return (self.voice_to_face + self.face_to_voice) / 2


def validate(task: Task, prepared: Prepared | Vectors, device: str | torch.device = "cpu") -> Validated:
    """Ask every voice for its person's faces and every face for its person's voices.

    Args:
        task: in any mode; it is left in the mode it was in.
        prepared: validation people, whom the task was not trained on.
        device: where the task is.
    """
    vectors = embed_prepared(task, prepared, device)
    people = {Modality.FACE: np.asarray(prepared.face_people), Modality.VOICE: np.asarray(prepared.voice_people)}
    store, space = MemoryStore(), Space(SPACE_NAME, vectors[Modality.FACE].shape[1], DIGEST)
    points = {
        modality: [Embedding.of(space, modality, vector) for vector in rows] for modality, rows in vectors.items()
    }
    for modality, embeddings in points.items():
        store.upsert(space, [_row(space, number, one, modality) for number, one in enumerate(embeddings)])

    def found(probe: Modality, want: Modality) -> tuple[float, float]:
        scores = np.full((len(points[probe]), len(points[want])), _NOT_FOUND)
        for line, hits in enumerate(store.search(points[probe], len(points[want]), want=want)):
            for hit in hits:
                scores[line, hit.row.track] = hit.score
        right = people[probe][:, None] == people[want][None, :]
        return judge(scores, right).map, right_of_two(scores, right)

    voices, faces = found(Modality.VOICE, Modality.FACE), found(Modality.FACE, Modality.VOICE)
    return Validated(voices[0], faces[0], voices[1], faces[1])


def right_of_two(scores: NDArray[np.floating], right: NDArray[np.bool_]) -> float:
    """How often a probe chooses right between a right answer and a wrong one, over all such pairs; ties count half.

    Args:
        scores: (probes, gallery).
        right: (probes, gallery) whether each item is a right answer.

    Returns:
        The mean over the probes that have both, in [0, 1]; 0.5 where none has.
    """
    count = right.sum(axis=1)
    both = (count > 0) & (count < right.shape[1])
    if not both.any():
        return 0.5
    known, count = right[both], count[both]
    # the number of wrong ones below each right one, by the sum of the right ones' places (Mann and Whitney, 1947)
    above = (rankdata(scores[both], axis=1) * known).sum(axis=1) - count * (count + 1) / 2
    return float(np.mean(above / (count * (known.shape[1] - count))))


def embed_prepared(
    task: Task,
    prepared: Prepared | Vectors,
    device: str | torch.device = "cpu",
    *,
    headless: bool = False,
    only: Mapping[Modality, NDArray[np.intp]] | None = None,
) -> Mapping[Modality, NDArray[np.float32]]:
    """Embed samples as serving would, without augmentation; of a long voice, the mean of its windows' features.

    Args:
        task: in any mode; it is left in the mode it was in.
        prepared: the samples.
        device: where the task is.
        headless: whether the features before the head are wanted.
        only: by modality, which samples; others, and modalities that are not named, are left out. None: all.

    Returns:
        Per modality (samples, dimension) float32, before normalisation, in the order of ``prepared`` or ``only``.
    """
    chosen = dict.fromkeys(Modality) if only is None else only
    was_training = task.training
    task.eval()
    try:
        with torch.inference_mode():
            found = {
                modality: [
                    _embedded(task, modality, one, headless) for one in _inputs(prepared, modality, device, rows)
                ]
                for modality, rows in chosen.items()
            }
        return {modality: torch.cat(parts).float().cpu().numpy() for modality, parts in found.items()}
    finally:
        task.train(was_training)


def as_vectors(task: Task, samples: Prepared | Vectors, key: str, device: torch.device) -> Vectors:
    """Samples as the networks of a task see them; nothing of them is learned any further.

    Args:
        task: it is left on the device.
        samples: of some people.
        key: of the run that the task came out of, for the digest.
        device: a torch device.
    """
    vectors = embed_prepared(task.to(device), samples, device, headless=True)
    return Vectors(
        identities=samples.identities,
        sexes=samples.sexes,
        faces=vectors[Modality.FACE],
        face_people=samples.face_people,
        voices=vectors[Modality.VOICE],
        voice_people=samples.voice_people,
        digest=hashlib.sha256(f"{key} {samples.digest}".encode()).hexdigest(),
    )


@dataclass(frozen=True, eq=False)
class _Inputs:
    """A few samples as a task takes them; ``owners`` are the samples that pieces are of, if any had to be cut."""

    samples: Tensor
    lengths: Tensor | None = None
    owners: Tensor | None = None


def _embedded(task: Task, modality: Modality, inputs: _Inputs, headless: bool) -> Tensor:
    if inputs.owners is None or inputs.lengths is None:
        return (task.features if headless else task.embed)(modality, inputs.samples, inputs.lengths)
    each = torch.cat(
        [
            task.features(modality, inputs.samples[first : first + _AT_ONCE], inputs.lengths[first : first + _AT_ONCE])
            for first in range(0, len(inputs.samples), _AT_ONCE)
        ]
    )
    means = mean_by_owner(each, inputs.owners, int(inputs.owners[-1]) + 1)
    return means if headless else cast(Tensor, task.head(means, modality))


def _inputs(
    prepared: Prepared | Vectors, modality: Modality, device: str | torch.device, rows: NDArray[np.intp] | None
) -> Iterator[_Inputs]:
    """What a task takes of one modality, a few samples at a time."""
    if rows is None:
        rows = np.arange(len(prepared.face_people if modality is Modality.FACE else prepared.voice_people))
    at_once = _VECTORS_AT_ONCE if isinstance(prepared, Vectors) else _AT_ONCE
    for some in (rows[first : first + at_once] for first in range(0, len(rows), at_once)):
        if isinstance(prepared, Vectors):
            yield _Inputs(torch.from_numpy(prepared.of(modality)[some]).to(device))
        elif modality is Modality.FACE:
            spread = trainable(modality, prepared.preparation.face_backbone).spread
            chips = torch.from_numpy(prepared.faces[some]).to(device)
            yield _Inputs((chips.permute(0, 3, 1, 2).to(torch.float32) - GREY) / spread)
        else:
            yield _voices(prepared, some, device)


def _voices(prepared: Prepared, rows: NDArray[np.intp], device: str | torch.device) -> _Inputs:
    """Some voices, (n, frames, bands) float32 padded with zeros; those that are too long for one piece in several."""
    voices = [torch.from_numpy(prepared.mels[slice(*prepared.offsets[row : row + 2])]).float() for row in rows]
    most, owners = longest_piece(prepared.preparation.voice), None
    if most is not None and any(len(voice) > most for voice in voices):
        cut = [(owner, piece) for owner, voice in enumerate(voices) for piece in windows_of(len(voice), most)]
        voices = [voices[owner][start:end] for owner, (start, end) in cut]
        owners = torch.tensor([owner for owner, _ in cut]).to(device)
    padded, lengths = pad_sequence(voices, batch_first=True), torch.tensor([len(voice) for voice in voices])
    return _Inputs(padded.to(device), lengths.to(device), owners)


def _row(space: Space, number: int, embedding: Embedding, modality: Modality) -> Row:
    name = f"sample {number}"
    return Row(row_key(name, modality, NO_SPAN, name, space), embedding, name, number, NO_SPAN, name)
