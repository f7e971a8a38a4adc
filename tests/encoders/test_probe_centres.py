"""Probes without the mean of their modality: what is asked for then, and what a folder may say of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders.encoder import Encoder
from encoders.folder import PROBES_FILE, EncoderError, read_description, read_probe_centres
from encoders.probe_centres import asking, check_centre, without_centre
from encoders.space import Embedding, Modality, Space
from tests.encoders.shared_encoder import DIMENSION, make_shared_encoder, say_of_probes

FACE, VOICE = Modality.FACE, Modality.VOICE
CENTRE = np.linspace(-0.02, 0.03, DIMENSION)


def unit(count: int, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(count, 5))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(5))
def test_candidates_are_ordered_by_what_they_have_with_the_probe_beyond_what_they_have_with_all(seed: int) -> None:
    probes, gallery = unit(6, seed), unit(40, seed + 100)
    centre = probes.mean(axis=0)
    moved = without_centre(probes, centre)
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1.0)
    for probe, asked in zip(probes, moved, strict=True):
        expected = [
            sum(a * b for a, b in zip(probe, one, strict=True)) - sum(a * b for a, b in zip(centre, one, strict=True))
            for one in gallery
        ]
        assert np.argsort(gallery @ asked).tolist() == np.argsort(expected).tolist()


def test_only_probes_of_a_modality_that_has_a_centre_are_moved() -> None:
    space = Space("shared", 3, "5" * 64)
    face, voice = (Embedding.of(space, one, np.array([0.6, 0.8, 0.0])) for one in (FACE, VOICE))
    centres = {FACE: np.array([0.6, 0.0, 0.0])}
    assert asking(voice, centres) is voice and asking(face, {}) is face
    np.testing.assert_allclose(asking(face, centres).vector, [0.0, 1.0, 0.0], atol=1e-7)
    assert asking(face, centres).modality is FACE and asking(face, centres).space == space


WRONG = [
    *(np.zeros(4), np.full(3, np.nan), np.zeros(3, complex)),
    *(np.array(["a"] * 3), np.array([0.9, 0.0, 0.0]), np.zeros((3, 1))),
]


@pytest.mark.parametrize("centre", WRONG)
def test_what_leaves_nothing_of_a_probe_or_is_of_another_size_is_no_centre(centre: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"3 components and is shorter than 0\.9|a centre is of numbers"):
        check_centre(centre, 3)
    check_centre(np.array([0.89, 0.0, 0.0]), 3)


def told_of_probes(folder: Path, document: Any) -> Path:
    """An encoder folder whose ``probes.json`` says this."""
    make_shared_encoder(folder)
    return say_of_probes(folder, document)


def test_an_encoder_has_what_its_folder_says_and_so_has_a_copy_of_it(tmp_path: Path) -> None:
    folder = told_of_probes(tmp_path / "one", {"face": {"centre": CENTRE.tolist(), "people": 20}})
    encoder = Encoder.load(folder)
    assert set(encoder.probe_centres) == {FACE} and encoder.probe_centres[FACE].tolist() == CENTRE.tolist()
    with pytest.raises(ValueError, match="read-only"):
        encoder.probe_centres[FACE][0] = 1.0
    copy = encoder.save(tmp_path / "copy")
    assert copy.probe_centres[FACE].tolist() == CENTRE.tolist() and copy.space == encoder.space
    plain = make_shared_encoder(tmp_path / "plain")
    assert plain.probe_centres == {} and plain.space == encoder.space  # how one asks is no part of the space


def test_probes_that_nobody_vouches_for_or_that_were_changed_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    make_shared_encoder(folder)
    (folder / PROBES_FILE).write_text("{}")
    with pytest.raises(EncoderError, match=r"probes\.json is not among the files of encoder\.json"):
        Encoder.load(folder)
    (folder / PROBES_FILE).unlink()
    told_of_probes(tmp_path / "two", {"face": {"centre": CENTRE.tolist()}})
    (tmp_path / "two" / PROBES_FILE).write_text("{}")
    with pytest.raises(EncoderError, match=r"probes\.json has SHA-256"):
        Encoder.load(tmp_path / "two")


@pytest.mark.parametrize(
    "document",
    [
        {"face": {}},
        {"face": None},
        {"face": {"centre": CENTRE.tolist()[1:]}},
        {"face": {"centre": "near"}},
        {"face": {"centre": ["0.01"] * DIMENSION}},
        {"face": {"centre": [10**400] * DIMENSION}},
        {"face": {"centre": [1.0] * DIMENSION}},
        {"smell": {"centre": CENTRE.tolist()}},
    ],
)
def test_what_is_no_centre_is_said(tmp_path: Path, document: Any) -> None:
    folder = told_of_probes(tmp_path / "one", document)
    with pytest.raises(EncoderError, match=rf"probes\.json has no centre of '{next(iter(document))}' .*publish"):
        read_probe_centres(folder, read_description(folder))
