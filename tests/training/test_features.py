"""The reader of features: slices of memory maps by person and video, and clear words about what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from encoders.space import Modality, Space
from training.corpora import Split
from training.extraction import COLUMNS, _csv
from training.features import FeatureRow, Features, FeaturesError, Table

SPACE = Space("shared", 4, "a" * 64)
WHO = (("Ada", "", "train"), ("Ada", "may", "train"), ("Ada", "may", "train"), ("Bel", "may", "test"))


def row(number: int, person: str, video: str, split: str) -> FeatureRow:
    return FeatureRow(person, video, f"{number}.wav", 0.0, float("inf"), f"{number}.wav", split, "f", "", "", 9, 1, "k")


def write(folder: Path) -> Path:
    """Features 0, 1, 2, 3 of the four voices; a face of Ada only."""
    tables = {}
    for modality, who in (("voice", WHO), ("face", WHO[:1])):
        rows = [row(number, *one) for number, one in enumerate(who)]
        np.save(folder / f"{modality}-1.npy", np.arange(len(who), dtype=np.float32)[:, None].repeat(4, 1))
        cells = [[getattr(one, name) for name in COLUMNS] for one in rows]
        (folder / f"{modality}-1.csv").write_bytes(_csv(COLUMNS, cells))
        space = {"name": "shared", "dimension": 4, "digest": "a" * 64}
        tables[modality] = {"space": space, "vectors": f"{modality}-1.npy", "rows": f"{modality}-1.csv"}
    about = {"format": 1, "corpus": "small", "domain": "nobody", "split": "all", "tables": tables}
    (folder / "features.json").write_text(json.dumps(about))
    return folder


@pytest.fixture
def features(tmp_path) -> Features:
    return Features.open(write(tmp_path))


def test_somebody_s_features_are_a_slice_of_the_memory_map(features) -> None:
    table = features[Modality.VOICE]
    assert isinstance(table.vectors, np.memmap) and isinstance(table.of("Ada"), np.memmap)
    assert table.of("Ada")[:, 0].tolist() == [0, 1, 2] and table.of("Bel").shape == (1, 4)
    assert not table.of("Ada").flags.writeable


def test_so_are_those_of_a_video_which_another_person_may_share(features) -> None:
    table = features[Modality.VOICE]
    assert table.videos("Ada") == ("", "may")
    assert table.of("Ada", "may")[:, 0].tolist() == [1, 2] and table.of("Bel", "may")[:, 0].tolist() == [3]
    with pytest.raises(KeyError):
        table.of("Bel", "june")


def test_people_are_numbered_as_rows_stand(features) -> None:
    table = features[Modality.VOICE]
    assert table.people == ("Ada", "Bel") and table.person_numbers.tolist() == [0, 0, 0, 1]


def test_rows_and_people_of_a_split_can_be_asked_for(features) -> None:
    assert features[Modality.VOICE].of_split(Split.TRAIN).tolist() == [0, 1, 2]
    assert features[Modality.VOICE].of_split(Split.VALIDATION).tolist() == []
    assert features.both(Split.TRAIN) == ("Ada",) and features.both(Split.TEST) == ()
    assert features.identities == ("Ada", "Bel")


def test_a_modality_that_is_not_there_is_told(features) -> None:
    lacking = Features(features.folder, "small", "nobody", "all", {Modality.VOICE: features[Modality.VOICE]})
    with pytest.raises(FeaturesError, match="has no features of faces"):
        lacking[Modality.FACE]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda folder: (folder / "features.json").unlink(), "holds no features"),
        (lambda folder: (folder / "features.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "features.json").write_text('{"format": 9}'), "has format 9, this version reads 1"),
        (lambda folder: (folder / "voice-1.npy").unlink(), "extract the features again"),
        (lambda folder: np.save(folder / "voice-1.npy", np.zeros((3, 4), np.float32)), r"must be \(4, 4\) float32"),
        (lambda folder: np.save(folder / "voice-1.npy", np.zeros((4, 4))), r"float32, got \(4, 4\) float64"),
        (lambda folder: (folder / "voice-1.csv").write_text("person\nAda\n"), "extract the features again"),
        (lambda folder: np.save(folder / "voice-1.npy", np.array([{}])), "extract the features again"),
    ],
)
def test_a_folder_that_is_damaged_is_refused_in_words(tmp_path, change, told) -> None:
    change(write(tmp_path))
    with pytest.raises(FeaturesError, match=told):
        Features.open(tmp_path)


def test_rows_out_of_order_are_refused() -> None:
    rows = [row(0, "Bel", "", "train"), row(1, "Ada", "", "train")]
    with pytest.raises(FeaturesError, match="must stand in the order of person and video"):
        Table(SPACE, np.zeros((2, 4), np.float32), rows)
