import json
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from encoders.encoder import packaged_encoders
from encoders.folder import (
    EncoderError,
    FolderFile,
    HeadDescription,
    check_file,
    read_description,
    read_identities,
    weights_path,
    write_description,
)
from encoders.space import Modality


@pytest.fixture
def copied(tmp_path):
    """A copy of the packaged voice encoder's folder, to spoil."""
    return Path(shutil.copytree(packaged_encoders()["voice_identity"], tmp_path / "copied"))


@pytest.fixture
def shared(shared_encoder, tmp_path):
    """A copy of a shared encoder's folder, to spoil."""
    return Path(shutil.copytree(shared_encoder.folder, tmp_path / "shared"))


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


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("face_identity", "43ec1b2ab6c47bf0006284d2a00f9a4fb68c6db3fb6f657a5e6b89c33d9301a3"),
        ("voice_identity", "32f78dee964d96bceed06b38331c559bdb2d3c2717fe236c7222bd1765f48d47"),
    ],
)
def test_the_packaged_spaces_stay_what_indexes_were_built_with(name, digest):
    description = read_description(packaged_encoders()[name])
    assert description.digest() == digest
    assert description.head is None


def test_a_description_without_head_is_written_without_mention_of_heads(copied):
    before = (copied / "encoder.json").read_text()
    write_description(copied, read_description(copied))
    assert (copied / "encoder.json").read_text() == before and '"head"' not in before


def test_a_description_with_head_comes_back_as_it_was_written(shared):
    description = read_description(shared)
    write_description(shared, description)
    assert read_description(shared) == description
    assert description.head == HeadDescription(
        "weighted_residual",
        {"dimension": 128, "hidden": 64},
        FolderFile("head.safetensors", sha256((shared / "head.safetensors").read_bytes()).hexdigest()),
    )


def test_the_digest_follows_the_head_in_every_part(shared):
    description = read_description(shared)
    head = description.head
    others = [
        None,
        replace(head, kind="other"),
        replace(head, parameters={"dimension": 128, "hidden": 65}),
        replace(head, weights=FolderFile("head.safetensors", "0" * 64)),
    ]
    digests = {replace(description, head=other).digest() for other in others}
    assert len(digests) == 4 and description.digest() not in digests
    renamed = replace(head, weights=replace(head.weights, file="other.safetensors"))
    assert replace(description, head=renamed).digest() == description.digest()


def test_a_head_taken_out_of_the_description_is_noticed(shared):
    change(shared, head=None)
    with pytest.raises(EncoderError, match="changed what determines the vectors"):
        read_description(shared)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"kind": "weighted_residual"}, "a head needs exactly kind, parameters, weights, got kind"),
        ({"kind": "a", "parameters": {}, "weights": {"file": "head.safetensors"}}, "weights need exactly file, sha256"),
        ([], "is not valid"),
    ],
)
def test_a_spoilt_head_is_refused_and_says_why(shared, head, message):
    change(shared, head=head)
    with pytest.raises(EncoderError, match=message):
        read_description(shared)


def test_a_head_cannot_lie_in_a_package(shared, copied):
    packaged = json.loads((copied / "encoder.json").read_text())["branches"]["voice"]["weights"]
    change(shared, head={"kind": "weighted_residual", "parameters": {}, "weights": packaged})
    with pytest.raises(EncoderError, match="lie in the folder, not in a package"):
        read_description(shared)


def test_identities_are_read_from_the_folder(shared, copied):
    expected = {"Ada_Brun_00000001", "Sonasa_Torian_1a2b3c4d"}
    assert read_identities(shared, read_description(shared)) == expected
    assert read_identities(copied, read_description(copied)) == frozenset()


def test_changed_identities_are_refused(shared):
    (shared / "identities.txt").write_text("Ada_Brun_00000001\n")
    with pytest.raises(EncoderError, match=r"identities\.txt has SHA-256"):
        read_description(shared)


def test_missing_identities_are_refused(shared):
    (shared / "identities.txt").unlink()
    with pytest.raises(EncoderError, match=r"identities\.txt is missing"):
        read_description(shared)


def test_identities_that_nobody_vouches_for_are_refused(copied):
    (copied / "identities.txt").write_text("Ada_Brun_00000001\n")
    with pytest.raises(EncoderError, match=r"identities\.txt is not among the files of encoder\.json"):
        read_description(copied)


@pytest.mark.parametrize("content", [b"b\na\n", b"a\na\n", b"a\n\nb\n", b" a\n", b"\xff\xfe\n"])
def test_identities_that_are_not_sorted_lines_are_refused(shared, content):
    description = replace(read_description(shared), files={"identities.txt": sha256(content).hexdigest()})
    (shared / "identities.txt").write_bytes(content)
    with pytest.raises(EncoderError, match=r"identities\.txt is"):
        read_identities(shared, description)
