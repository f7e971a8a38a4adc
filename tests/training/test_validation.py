from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from encoders.backbones.dimnet_voice import DimnetVoicePreparation
from encoders.backbones.small_face import chips_to_input
from encoders.backbones.small_picture import SmallPictureVoicePreparation
from encoders.backbones.small_voice import SmallVoice, SmallVoicePreparation
from encoders.backbones.speech_transformer import SpeechTransformerPreparation
from encoders.space import Modality
from search import metrics
from tests.training.small_run import small_given, small_people
from training.checkpoint import write_weights
from training.networks import longest_piece
from training.prepared import Prepared
from training.recipe import Batch, Task
from training.recipes import bi_quintuple
from training.validation import embed_prepared, right_of_two, validate


class Told(Task):
    """Knows whom a sample shows: its people's directions are given, a little noise is its own."""

    def __init__(self, prepared: Prepared, noise: float) -> None:
        super().__init__(small_given(len(prepared.identities)))
        random = np.random.default_rng(3)
        centres = random.normal(size=(len(prepared.identities), 16))
        people = {Modality.FACE: prepared.face_people, Modality.VOICE: prepared.voice_people}
        self.vectors = {
            modality: torch.from_numpy(centres[owners] + noise * random.normal(size=(len(owners), 16))).float()
            for modality, owners in people.items()
        }
        self.asked = dict.fromkeys(Modality, 0)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        raise NotImplementedError

    def embed(self, modality: Modality, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        first = self.asked[modality]
        self.asked[modality] += len(inputs)
        return self.vectors[modality][first : first + len(inputs)]


def people(**changed: Any) -> Prepared:
    return small_people("validated", **({"people": 20, "samples": 4} | changed))


def test_who_knows_everybody_gets_everything() -> None:
    validated = validate(Told(people(), noise=0.0), people())
    assert (validated.voice_to_face, validated.face_to_voice, validated.mean) == (1.0, 1.0, 1.0)
    assert (validated.voice_to_face_of_two, validated.face_to_voice_of_two) == (1.0, 1.0)


def test_it_is_the_map_of_every_sample_asked_of_the_other_modality() -> None:
    prepared, task = people(), Told(people(), noise=1.5)
    faces, voices = (
        torch.nn.functional.normalize(task.vectors[one]).numpy() for one in (Modality.FACE, Modality.VOICE)
    )
    same = prepared.voice_people[:, None] == prepared.face_people[None, :]
    validated = validate(task, prepared)
    asked = [metrics.average_precision(*line) for line in zip(voices @ faces.T, same, strict=True)]
    assert validated.voice_to_face == pytest.approx(np.mean(asked))
    asked = [metrics.average_precision(*line) for line in zip(faces @ voices.T, same.T, strict=True)]
    assert validated.face_to_voice == pytest.approx(np.mean(asked))
    assert validated.voice_to_face != validated.face_to_voice
    assert validated.mean == pytest.approx((validated.voice_to_face + validated.face_to_voice) / 2)
    for asked, scores, right in (
        (validated.voice_to_face_of_two, voices @ faces.T, same),
        (validated.face_to_voice_of_two, faces @ voices.T, same.T),
    ):
        chosen = [np.mean(line[mine][:, None] > line[~mine][None, :]) for line, mine in zip(scores, right, strict=True)]
        assert asked == pytest.approx(np.mean(chosen)) and 0.6 < asked < 0.99
    assert validated.voice_to_face_of_two != validated.face_to_voice_of_two


@pytest.mark.parametrize(
    ("scores", "right", "told"),
    [
        ([[0.5, 0.5], [0.5, 0.1]], [[1, 0], [1, 0]], 0.75),  # a tie is a guess
        ([[0.9, 0.8, 0.1]], [[0, 1, 0]], 0.5),
        ([[0.9, 0.8], [0.3, 0.2]], [[0, 1], [0, 0]], 0.0),  # who has no right answer is not asked
        ([[0.9, 0.8]], [[1, 1]], 0.5),  # nobody else to choose
    ],
)
def test_right_one_of_two_is_the_share_of_pairs_chosen_right(scores: Any, right: Any, told: float) -> None:
    assert right_of_two(np.array(scores), np.array(right, dtype=bool)) == pytest.approx(told)


def test_samples_come_out_in_their_order_each_on_its_own() -> None:
    prepared = people()
    task = bi_quintuple.build(bi_quintuple.POPULATION, small_given(4), 0).eval()
    found = embed_prepared(task, prepared)
    for number in (0, 17, 63, 64, 79):
        mel = torch.from_numpy(prepared.mels[prepared.offsets[number] : prepared.offsets[number + 1]]).float()
        with torch.inference_mode():
            voice = task.embed(Modality.VOICE, mel[None])[0]
            face = task.embed(Modality.FACE, chips_to_input(torch.from_numpy(prepared.faces[number : number + 1])))[0]
        np.testing.assert_allclose(found[Modality.VOICE][number], voice, atol=1e-5)
        np.testing.assert_allclose(found[Modality.FACE][number], face, atol=1e-5)


@pytest.mark.parametrize("modality", Modality)
def test_some_samples_of_one_modality_come_out_in_the_order_asked_for(modality: Modality) -> None:
    prepared = people()
    task = bi_quintuple.build(bi_quintuple.POPULATION, small_given(4), 0).eval()
    rows = np.array([*range(70, 2, -1), 0])
    found = embed_prepared(task, prepared, only={modality: rows})
    assert set(found) == {modality}
    np.testing.assert_allclose(found[modality], embed_prepared(task, prepared)[modality][rows], atol=1e-5)


def test_a_long_voice_is_what_serving_makes_of_its_windows(tmp_path: Path) -> None:
    told = {"least_seconds": 0.1, "most_seconds": 0.3}
    prepared = people()
    prepared = replace(prepared, preparation=replace(prepared.preparation, voice=SmallVoicePreparation(**told)))
    task = bi_quintuple.build(bi_quintuple.POPULATION, small_given(4), 0).eval()
    weights = {name: value.contiguous() for name, value in task.voice.state_dict().items()}
    write_weights(tmp_path / "voice.safetensors", weights)
    serving = SmallVoice(tmp_path / "voice.safetensors", told)
    mels = [torch.from_numpy(prepared.mels[start:end]).float() for start, end in pairwise(prepared.offsets)]
    lengths = {len(mel) for mel in mels}
    assert min(lengths) < longest_piece(prepared.preparation.voice) == 31 < max(lengths)
    features = serving.embed(mels)
    found = embed_prepared(task, prepared, headless=True)[Modality.VOICE]
    np.testing.assert_allclose(found, features, atol=1e-5)
    uncut = embed_prepared(task, people(), headless=True)[Modality.VOICE]
    assert not np.allclose(found, uncut, atol=1e-3)
    with torch.inference_mode():
        points = task.head(torch.from_numpy(features), Modality.VOICE).numpy()
    np.testing.assert_allclose(embed_prepared(task, prepared)[Modality.VOICE], points, atol=1e-5)


@pytest.mark.parametrize(
    ("preparation", "frames"),
    [
        (DimnetVoicePreparation(), 1001),
        (SpeechTransformerPreparation(most_seconds=2.0), 200),  # rows of samples
        (SmallPictureVoicePreparation(), None),
    ],
)
def test_the_longest_piece_is_that_of_serving(preparation: Any, frames: int | None) -> None:
    assert longest_piece(preparation) == frames


@pytest.mark.parametrize("training", [True, False])
def test_the_task_is_left_as_it_was(training: bool) -> None:
    task = bi_quintuple.build(bi_quintuple.POPULATION, small_given(4), 0).train(training)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    validate(task, people())
    assert task.training is training
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
