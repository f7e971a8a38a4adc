import hashlib
import sys
from dataclasses import replace

import pytest

from encoders import face, voice
from encoders.weights import PackagedFile, WeightsError, find_row, packaged_path, sha256_of

TABLES = [*face.DETECTORS, *face.BACKBONES, *voice.DETECTORS, *voice.BACKBONES]


@pytest.fixture
def carrier(tmp_path, monkeypatch):
    """A package called ``carrier`` that must not be imported, with one weight file."""
    package = tmp_path / "carrier"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "weights.bin").write_bytes(b"numbers")
    monkeypatch.syspath_prepend(tmp_path)
    sha256 = hashlib.sha256(b"numbers").hexdigest()
    return PackagedFile("carrier", "carrier-on-pip", "1.2", "weights.bin", sha256, "CC0-1.0")


def test_a_packaged_file_is_found_without_importing_its_package(carrier):
    assert packaged_path(carrier).read_bytes() == b"numbers"
    assert "carrier" not in sys.modules


def test_a_changed_file_is_refused_with_both_hashes_and_the_remedy(carrier):
    with pytest.raises(WeightsError) as caught:
        packaged_path(replace(carrier, sha256="0" * 64))
    for part in ("weights.bin", carrier.sha256, "0" * 64, "pip install --no-deps carrier-on-pip==1.2"):
        assert part in str(caught.value)


def test_a_missing_file_is_refused(carrier):
    with pytest.raises(WeightsError, match=r"absent\.bin is missing"):
        packaged_path(replace(carrier, file="absent.bin"))


def test_a_missing_package_is_refused_with_the_remedy(carrier):
    with pytest.raises(WeightsError, match="not installed; install it with"):
        packaged_path(replace(carrier, package="no_such_package_here"))


@pytest.mark.parametrize("row", TABLES, ids=lambda row: row.name)
def test_the_files_of_every_row_are_installed_and_genuine(row):
    for file in row.files:
        assert sha256_of(packaged_path(file)) == file.sha256
        assert file.licence


def test_an_unknown_row_is_refused_naming_the_known_ones():
    with pytest.raises(ValueError, match="choose one of: dlib_hog, dlib_cnn"):
        find_row(face.DETECTORS, "yunet")


@pytest.mark.parametrize("table", [face.DETECTORS, face.BACKBONES, voice.DETECTORS, voice.BACKBONES])
def test_names_within_a_table_are_unique(table):
    assert len({row.name for row in table}) == len(table)
