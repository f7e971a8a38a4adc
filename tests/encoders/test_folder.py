import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from encoders.encoder import packaged_encoders
from encoders.folder import EncoderError, FolderFile, check_file, read_description, weights_path, write_description
from encoders.space import Modality


@pytest.fixture
def copied(tmp_path):
    """A copy of the packaged voice encoder's folder, to spoil."""
    return Path(shutil.copytree(packaged_encoders()["voice_identity"], tmp_path / "copied"))


def change(folder, **entries):
    """Set entries of encoder.json; None removes one."""
    path = folder / "encoder.json"
    document = json.loads(path.read_text()) | entries
    path.write_text(json.dumps({name: value for name, value in document.items() if value is not None}))


def test_a_description_comes_back_as_it_was_written(copied, tmp_path):
    description = read_description(copied)
    write_description(copied, description)
    assert read_description(copied) == description


def test_the_digest_follows_what_determines_the_vectors_and_nothing_else(copied):
    description = read_description(copied)
    branch = description.branches[Modality.VOICE]
    same = replace(description, name="other", domain="other", trained_on="other", files={"a": "b"})
    prepared = replace(branch, preparation={**branch.preparation, "step_frames": 40})
    weighed = replace(branch, weights=FolderFile("voice.safetensors", "0" * 64))
    assert same.digest() == description.digest()
    for changed in (prepared, weighed):
        assert replace(description, branches={Modality.VOICE: changed}).digest() != description.digest()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"format": 2}, "has format 2, this version reads 1"),
        ({"colour": "red"}, "unknown entries colour"),
        ({"domain": None}, "lacks 'domain'"),
        ({"modalities": ["face"]}, "modalities and branches disagree"),
        ({"branches": []}, "is not valid"),
        ({"space": {"name": "voice_identity", "dimension": 256, "digest": "0" * 64}}, "somebody changed"),
    ],
)
def test_a_spoilt_description_is_refused_and_says_why(copied, entries, message):
    change(copied, **entries)
    with pytest.raises(EncoderError, match=message) as caught:
        read_description(copied)
    assert str(copied) in str(caught.value)


def test_a_changed_preparation_is_noticed_by_the_digest(copied):
    branches = json.loads((copied / "encoder.json").read_text())["branches"]
    branches["voice"]["preparation"]["level_dbfs"] = -20.0
    change(copied, branches=branches)
    with pytest.raises(EncoderError, match="changed what determines the vectors"):
        read_description(copied)


def test_weights_with_missing_entries_are_refused(copied):
    branches = json.loads((copied / "encoder.json").read_text())["branches"]
    del branches["voice"]["weights"]["licence"]
    change(copied, branches=branches)
    with pytest.raises(EncoderError, match="weights need exactly"):
        read_description(copied)


def test_a_changed_golden_file_is_refused_with_both_hashes(copied):
    (copied / "golden.safetensors").write_bytes(b"spoilt")
    with pytest.raises(EncoderError, match=r"golden\.safetensors has SHA-256 [0-9a-f]{64}, expected [0-9a-f]{64}"):
        read_description(copied)


def test_a_missing_file_is_refused(copied):
    (copied / "golden.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"golden\.safetensors is missing"):
        read_description(copied)


def test_a_folder_without_description_is_no_encoder_folder(tmp_path):
    with pytest.raises(EncoderError, match="is not an encoder folder"):
        read_description(tmp_path)


@pytest.mark.parametrize(("text", "message"), [("{", "not valid JSON"), ("[]", "must hold a JSON object")])
def test_a_description_that_is_no_json_object_is_refused(copied, text, message):
    (copied / "encoder.json").write_text(text)
    with pytest.raises(EncoderError, match=message):
        read_description(copied)


def test_a_file_name_cannot_leave_the_folder(copied):
    with pytest.raises(EncoderError, match="not the name of a file in this folder"):
        check_file(copied, "../elsewhere", "0" * 64)


def test_packaged_weights_of_another_hash_are_an_encoder_error(copied):
    weights = read_description(copied).branches[Modality.VOICE].weights
    with pytest.raises(EncoderError, match="pip install --no-deps resemblyzer"):
        weights_path(copied, replace(weights, sha256="0" * 64))
