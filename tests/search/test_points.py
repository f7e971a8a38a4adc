"""Samples as points of one space: embedded, exported, brought along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders.encoder import Unusable, UnusableReason
from encoders.probe_centres import ProbeCentres
from encoders.space import Embedding, Modality, Space
from ingest.media import MediaError
from ingest.samples import NoSample
from search.points import BATCH, Points, PointsError, SeenInTraining, embed_protocol, read_points
from search.protocols import Protocol, read_protocol
from tests.search.small_protocol import points_of, write_small_protocol

SPACE = Space("shared", 4, "5" * 64)


@dataclass
class Spelling:
    """An encoder whose point of a sample follows from the sample's own text."""

    space: Space = SPACE
    domain: str = "spelled people"
    trained_on: str = "nobody"
    identities: frozenset[str] = frozenset()
    batches: list[int] = field(default_factory=list)
    probe_centres: ProbeCentres = field(default_factory=dict)

    def encode(self, modality: Modality, samples: Sequence[str]) -> list[Embedding | Unusable]:
        self.batches.append(len(samples))
        return [
            Unusable(UnusableReason.TOO_SHORT, "only a moment of sound")
            if text.endswith("voice_02.flac")
            else Embedding.of(self.space, modality, np.frombuffer(text.encode().ljust(64)[:4], np.uint8) + len(text))
            for text in samples
        ]


@pytest.fixture
def protocol(tmp_path: Path) -> Protocol:
    return read_protocol(write_small_protocol(tmp_path / "small"))


def read(path: Path) -> str:
    """A sample whose content is its own path; the first person's first face and last voice cannot be had."""
    if path.name == "face_00.jpg" and "Person_000" in str(path):
        raise MediaError(path, "is damaged")
    if path.name == "face_01.jpg" and "Person_000" in str(path):
        raise NoSample(path, "shows no face")
    return str(path)


READERS: dict[Modality, Any] = {Modality.FACE: read, Modality.VOICE: read}


def test_every_file_is_read_once_and_a_bad_one_stops_nothing(protocol: Protocol) -> None:
    opened: list[Path] = []
    told: list[tuple[int, int, int]] = []

    def watched(path: Path) -> str:
        opened.append(path)
        return read(path)

    points = embed_protocol(protocol, Spelling(), dict.fromkeys(Modality, watched), lambda *counts: told.append(counts))
    assert len(opened) == len(set(opened)) == 36 and opened[0].is_relative_to(protocol.media)
    reasons = {one.path: (one.reason, one.readable) for one in points.unusable}
    assert reasons["Person_000_00000000/face_00.jpg"] == ("is damaged", False)
    assert reasons["Person_000_00000000/face_01.jpg"] == ("shows no face", True)
    assert reasons["Person_003_00000003/voice_02.flac"] == ("only a moment of sound", True)
    assert len(points.paths[Modality.FACE]) == 16 and len(points.paths[Modality.VOICE]) == 12
    assert sorted({seen for seen, _, _ in told}) == list(range(1, 37)) and told[-1] == (36, 36, 8)


def test_vectors_stand_beside_their_own_paths(protocol: Protocol) -> None:
    encoder = Spelling()
    points = embed_protocol(protocol, encoder, READERS)
    for modality in Modality:
        texts = [str(protocol.media / path) for path in points.paths[modality]]
        expected = [one.vector for one in encoder.encode(modality, texts) if isinstance(one, Embedding)]
        assert np.array_equal(points.vectors[modality], expected)


def test_samples_are_encoded_in_batches(tmp_path: Path) -> None:
    encoder = Spelling()
    embed_protocol(read_protocol(write_small_protocol(tmp_path, people=10, samples=7)), encoder, READERS)
    assert encoder.batches == [BATCH - 2, 70 - BATCH, BATCH, 70 - BATCH]


def test_an_encoder_that_has_seen_a_test_person_is_refused_before_anything_is_read(protocol: Protocol) -> None:
    def never(path: Path) -> str:
        raise AssertionError(f"{path} was read")

    encoder = Spelling(identities=frozenset({"Person_003_00000003", "Trained_aaaaaaaa"}))
    with pytest.raises(SeenInTraining, match=r"1 of the 6 people of small \(Person_003_00000003\)"):
        embed_protocol(protocol, encoder, dict.fromkeys(Modality, never))


def test_what_was_exported_comes_back(protocol: Protocol, tmp_path: Path) -> None:
    points = embed_protocol(protocol, Spelling(), READERS)
    points.export(tmp_path / "points.npz")
    back = read_points(tmp_path / "points.npz")
    assert (back.space, back.paths, back.people) == (points.space, points.paths, points.people)
    for modality in Modality:
        assert np.allclose(back.vectors[modality], points.vectors[modality], atol=1e-7)
    with np.load(tmp_path / "points.npz") as stored:
        assert {"path", "person", "modality", "vector"} <= set(stored.files) and stored["vector"].dtype == np.float32


def test_samples_ask_without_the_centre_of_their_modality(protocol: Protocol, tmp_path: Path) -> None:
    centre = np.array([0.1, 0.2, 0.3, 0.4])
    points = embed_protocol(protocol, Spelling(probe_centres={Modality.VOICE: centre}), READERS)
    assert points.asking(Modality.FACE) is points.vectors[Modality.FACE]
    moved = points.vectors[Modality.VOICE] - centre
    expected = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    assert np.allclose(points.asking(Modality.VOICE), expected, atol=1e-6)
    points.export(tmp_path / "points.npz")
    back = read_points(tmp_path / "points.npz")
    (told,) = back.probe_centres.items()
    assert told[0] is Modality.VOICE and told[1].tolist() == centre.tolist()
    with pytest.raises(ValueError, match="4 components"):
        replace(points, probe_centres={Modality.FACE: np.zeros(3)})


def test_points_that_do_not_say_whom_they_show_are_not_exported(protocol: Protocol, tmp_path: Path) -> None:
    points = replace(embed_protocol(protocol, Spelling(), READERS), people={})
    with pytest.raises(ValueError, match="whom they show"):
        points.export(tmp_path / "points.npz")


def brought(**changes: Any) -> dict[str, np.ndarray]:
    """Arrays as another program may have written them."""
    arrays = {
        "path": np.array(["a/1.jpg", "a/1.wav"]), "person": np.array(["a", "a"]),
        "modality": np.array(["face", "voice"]), "vector": np.array([[3.0, 4.0], [0.0, 0.5]]),
    }  # fmt: skip
    return {name: value for name, value in (arrays | changes).items() if value is not None}


def test_embeddings_of_another_program_are_brought_to_unit_length_in_a_space_of_their_own(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", **brought())
    np.savez(tmp_path / "two.npz", **brought(vector=np.array([[3.0, 4.0], [1.0, 0.5]])))
    one, two = read_points(tmp_path / "one.npz"), read_points(tmp_path / "two.npz")
    assert one.vectors[Modality.FACE].tolist() == [pytest.approx([0.6, 0.8])]
    assert one.vectors[Modality.VOICE].tolist() == [[0.0, 1.0]] and one.paths[Modality.VOICE] == ("a/1.wav",)
    assert one.space.digest != two.space.digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"person": None}, "lacks the array 'person'"),
        ({"vector": np.zeros((2, 2))}, "has no direction"),
        ({"vector": np.array([[np.nan, 1], [1, 1]])}, "has no direction"),
        ({"vector": np.ones((3, 2))}, "for each path"),
        ({"vector": np.array([["a", "b"], ["c", "d"]])}, "for each path"),
        ({"modality": np.array(["face", "hand"])}, "got 'hand'"),
        ({"modality": np.array(["face", "face"]), "path": np.array(["a", "a"])}, "comes twice"),
        ({"dimension": np.array([2, 1])}, "must share one space"),
        ({"person": np.array([{}, {}])}, "without objects"),
        ({"space_digest": np.array("short")}, "64 hex digits"),
    ],
)
def test_embeddings_that_do_not_fit_together_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "odd.npz", **brought(**changes))
    with pytest.raises(PointsError, match=message):
        read_points(tmp_path / "odd.npz")


def test_what_is_no_npz_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no arrays")
    for name in ("text.npz", "missing.npz"):
        with pytest.raises(PointsError, match=name):
            read_points(tmp_path / name)


def test_points_are_checked_at_birth(protocol: Protocol) -> None:
    good = points_of(protocol, {path: np.ones(4) for one in Modality for path in protocol.samples(one).paths})
    for wrong in (np.ones((18, 4)), np.full((18, 4), np.nan), np.ones((18, 3)), np.ones((17, 4)) / 2):
        with pytest.raises(ValueError, match="vectors must be"):
            Points(good.space, good.paths, {Modality.FACE: good.vectors[Modality.FACE], Modality.VOICE: wrong})
