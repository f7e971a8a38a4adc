import json
import shutil
import subprocess
import sys
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save

from encoders.encoder import Encoder, EncoderError, Unusable, packaged_encoders
from encoders.face import FaceCrop, load_face_detector
from encoders.folder import FolderFile, write_description
from encoders.packaging import drawn_face, drawn_voice
from encoders.space import Embedding, Modality
from encoders.weights import sha256_of
from tests.encoders.shared_encoder import GOLDEN, make_shared_encoder, shared_description


@pytest.fixture
def copied(tmp_path):
    """A copy of the packaged voice encoder's folder, to spoil."""
    return Path(shutil.copytree(packaged_encoders()["voice_identity"], tmp_path / "copied"))


def vectors(encoder, modality, samples):
    return np.stack([answer.vector for answer in encoder.encode(modality, samples)])


@pytest.mark.parametrize("name", ["face_identity", "voice_identity"])
def test_a_packaged_encoder_still_gives_its_golden_vectors(name):
    assert Encoder.load(packaged_encoders()[name]).verify_golden() >= 0.9999


def test_two_encoders_are_packaged():
    assert set(packaged_encoders()) == {"face_identity", "voice_identity"}


def test_an_encoder_says_what_it_is(voice_encoder):
    assert voice_encoder.space.name == "voice_identity" and voice_encoder.space.dimension == 256
    assert voice_encoder.modalities == {Modality.VOICE}
    assert voice_encoder.domain == "real people"
    assert "VoxCeleb" in voice_encoder.trained_on


def test_answers_keep_the_order_of_samples_and_mark_the_unusable(voice_encoder):
    samples = [drawn_voice(1, 1.0), np.zeros(16000, np.float32), np.zeros(10, np.float32), drawn_voice(2, 2.0)]
    answers = voice_encoder.encode(Modality.VOICE, samples)
    assert [type(answer) for answer in answers] == [Embedding, Unusable, Unusable, Embedding]
    assert [answers[1].reason, answers[2].reason] == ["silent", "too_short"]
    alone = vectors(voice_encoder, Modality.VOICE, samples[3:])[0]
    assert float(alone @ answers[3].vector) >= 0.99999


def test_no_samples_give_no_answers(voice_encoder):
    assert voice_encoder.encode(Modality.VOICE, []) == []


def some(modality):
    """Five samples of different sizes."""
    if modality is Modality.FACE:
        return [drawn_face(seed, side=100 + 20 * seed) for seed in range(5)]
    return [drawn_voice(seed, 0.5 + 0.8 * seed) for seed in range(5)]


@pytest.mark.parametrize("modality", list(Modality))
@pytest.mark.parametrize("kind", ["identity", "shared"])
def test_a_vector_does_not_depend_on_what_else_is_in_the_batch(kind, modality, request):
    encoder = request.getfixturevalue("shared_encoder" if kind == "shared" else f"{modality}_encoder")
    samples = some(modality)
    together = vectors(encoder, modality, samples)
    alone = np.concatenate([vectors(encoder, modality, [sample]) for sample in samples])
    assert (together * alone).sum(axis=1).min() >= 0.99999


def test_many_samples_are_encoded_in_chunks_without_mixing_them(voice_encoder, monkeypatch):
    samples = [drawn_voice(seed, 0.5) for seed in range(5)]
    expected = vectors(voice_encoder, Modality.VOICE, samples)
    monkeypatch.setattr("encoders.encoder._CHUNK", 2)
    np.testing.assert_allclose(vectors(voice_encoder, Modality.VOICE, samples), expected, atol=1e-6)


def test_a_modality_it_lacks_is_refused(voice_encoder):
    with pytest.raises(ValueError, match="voice_identity encodes voice, not face"):
        voice_encoder.encode(Modality.FACE, [drawn_face(1)])


def test_a_vector_of_zeros_is_no_direction_rather_than_nan(voice_encoder, monkeypatch):
    backbone = voice_encoder.backbones[Modality.VOICE]
    monkeypatch.setattr(type(backbone), "embed", lambda self, mels: np.zeros((len(mels), 256), np.float32))
    (answer,) = voice_encoder.encode(Modality.VOICE, [drawn_voice(1, 1.0)])
    assert answer.reason == "no_direction"


def test_an_encoder_saved_by_reference_is_the_same_space(voice_encoder, tmp_path):
    saved = voice_encoder.save(tmp_path / "saved")
    assert saved.space == voice_encoder.space
    assert not (tmp_path / "saved" / "voice.safetensors").exists()
    assert saved.verify_golden() >= 0.99999


def test_an_encoder_saved_with_its_own_weights_gives_the_same_vectors(voice_encoder, tmp_path):
    saved = voice_encoder.save(tmp_path / "saved", own_weights=True)
    samples = [drawn_voice(7, 0.6), drawn_voice(8, 3.3)]
    expected = vectors(voice_encoder, Modality.VOICE, samples)
    np.testing.assert_array_equal(vectors(saved, Modality.VOICE, samples), expected)
    assert saved.space.digest != voice_encoder.space.digest
    assert saved.save(tmp_path / "again").space == saved.space


def test_changed_own_weights_are_refused(voice_encoder, tmp_path):
    folder = voice_encoder.save(tmp_path / "saved", own_weights=True).folder
    path = folder / "voice.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(EncoderError, match=r"voice\.safetensors has SHA-256"):
        Encoder.load(folder)


def test_an_encoder_does_not_overwrite_a_folder(voice_encoder, tmp_path):
    with pytest.raises(EncoderError, match="exists already"):
        voice_encoder.save(tmp_path)


def test_dlibs_network_saved_as_safetensors_gives_the_same_vectors(face_encoder, tmp_path):
    saved = face_encoder.save(tmp_path / "saved", own_weights=True)
    assert (saved.folder / "face.safetensors").is_file() and saved.space.digest != face_encoder.space.digest
    np.testing.assert_array_equal(
        vectors(saved, Modality.FACE, some(Modality.FACE)), vectors(face_encoder, Modality.FACE, some(Modality.FACE))
    )


def test_the_face_space_is_the_one_of_vectors_stored_long_ago(face_encoder):
    assert face_encoder.space.digest == "43ec1b2ab6c47bf0006284d2a00f9a4fb68c6db3fb6f657a5e6b89c33d9301a3"


@pytest.mark.parametrize("precision", ["auto", "bfloat16"])
def test_golden_vectors_come_out_in_every_precision(precision, shared_encoder):
    folders = [shared_encoder.folder, *packaged_encoders().values()]
    assert min(Encoder.load(folder, precision=precision).verify_golden() for folder in folders) >= 0.9999


@pytest.mark.parametrize("modality", list(Modality))
def test_a_vector_of_bfloat16_does_not_depend_on_what_else_is_in_the_batch(modality, shared_encoder):
    quick = Encoder.load(shared_encoder.folder, precision="bfloat16")
    together = vectors(quick, modality, some(modality))
    alone = np.concatenate([vectors(quick, modality, [sample]) for sample in some(modality)])
    assert (together * alone).sum(axis=1).min() >= 0.99999
    exact = (together * vectors(shared_encoder, modality, some(modality))).sum(axis=1)
    assert 0.9999 <= exact.min() < 0.99999999


def test_an_unknown_precision_is_refused(shared_encoder):
    with pytest.raises(EncoderError, match="no precision 'int4'; choose one of: auto, float32, bfloat16"):
        Encoder.load(shared_encoder.folder, precision="int4")


def test_a_calibration_is_read_and_kept_but_is_no_part_of_the_space(voice_encoder, copied, tmp_path):
    (copied / "calibration.json").write_text(json.dumps({"slope": 9.0}))
    encoder = Encoder.load(copied)
    assert encoder.calibration == {"slope": 9.0}
    assert encoder.space == voice_encoder.space
    assert encoder.save(tmp_path / "saved").calibration == {"slope": 9.0}


def test_a_model_card_may_be_edited(copied, voice_encoder):
    (copied / "MODEL_CARD.md").write_text("# edited")
    assert Encoder.load(copied).space == voice_encoder.space


def test_an_encoder_without_golden_samples_is_refused(voice_encoder, tmp_path):
    with pytest.raises(EncoderError, match="no golden voice"):
        Encoder.create(tmp_path, voice_encoder.description, {Modality.VOICE: []}, "# card")


def test_an_unusable_golden_sample_is_refused(face_encoder, tmp_path):
    blank = FaceCrop(np.zeros((99, 99, 3), np.uint8), drawn_face(1, side=99).landmarks)
    with pytest.raises(EncoderError, match="golden face has no vector: the crop is blank"):
        Encoder.create(tmp_path, face_encoder.description, {Modality.FACE: [blank]}, "# card")


def test_a_preparation_parameter_left_to_its_default_is_refused(voice_encoder, tmp_path):
    description = voice_encoder.description
    branch = description.branches[Modality.VOICE]
    fewer = {name: value for name, value in branch.preparation.items() if name != "step_frames"}
    changed = replace(description, branches={Modality.VOICE: replace(branch, preparation=fewer)})
    with pytest.raises(EncoderError, match="lacks preparation step_frames"):
        Encoder.create(tmp_path, changed, {Modality.VOICE: [drawn_voice(1, 1.0)]}, "# card")


def test_a_dimension_that_is_not_the_networks_is_refused(voice_encoder, tmp_path):
    changed = replace(voice_encoder.description, dimension=128)
    with pytest.raises(EncoderError, match="ge2e gives 256 components, the space has 128"):
        Encoder.create(tmp_path, changed, {Modality.VOICE: [drawn_voice(1, 1.0)]}, "# card")


def test_automatic_choice_of_device_works_anywhere():
    assert Encoder.load(packaged_encoders()["voice_identity"], device="auto").verify_golden() >= 0.999


def test_a_device_that_does_not_exist_is_refused():
    with pytest.raises(EncoderError, match="'abacus' is no torch device; use cpu"):
        Encoder.load(packaged_encoders()["voice_identity"], device="abacus")


def test_cuda_where_there_is_none_is_refused_with_the_alternative(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(EncoderError, match="no CUDA device here; use cpu or auto"):
        Encoder.load(packaged_encoders()["voice_identity"], device="cuda")


def test_a_shared_encoder_puts_both_modalities_into_one_space(shared_encoder):
    assert shared_encoder.modalities == set(Modality)
    for modality in Modality:
        for answer in shared_encoder.encode(modality, some(modality)):
            assert answer.space == shared_encoder.space and answer.modality is modality
            assert answer.vector.shape == (128,)


@pytest.mark.parametrize("modality", list(Modality))
def test_a_shared_vector_is_the_heads_answer_to_the_networks_features(modality, shared_encoder):
    samples, backbone = some(modality), shared_encoder.backbones[modality]
    features = torch.from_numpy(backbone.embed([backbone.prepare(sample) for sample in samples]))
    weights = load_file(shared_encoder.folder / "head.safetensors")
    residual = torch.tanh(features @ weights["inner.weight"].T) @ weights["outer.weight"].T
    expected = torch.tanh(features + weights["eta"] * residual)
    expected = torch.nn.functional.normalize(expected, dim=1).numpy()
    np.testing.assert_allclose(vectors(shared_encoder, modality, samples), expected, atol=1e-5)
    bare = torch.nn.functional.normalize(torch.tanh(features), dim=1).numpy()
    assert (bare * expected).sum(axis=1).max() < 0.999  # the head's weights matter


def test_a_shared_encoder_marks_the_unusable_of_both_modalities(shared_encoder):
    faces = [drawn_face(1), FaceCrop(np.zeros((99, 99, 3), np.uint8), drawn_face(1, side=99).landmarks)]
    voices = [np.zeros(16000, np.float32), drawn_voice(1, 0.5)]
    face, blank = shared_encoder.encode(Modality.FACE, faces)
    silent, voice = shared_encoder.encode(Modality.VOICE, voices)
    assert isinstance(face, Embedding) and isinstance(voice, Embedding)
    assert (blank.reason, silent.reason) == ("flat", "silent")


def test_a_shared_encoder_knows_whom_it_was_trained_on(shared_encoder, face_encoder):
    assert shared_encoder.identities == {"Sonasa_Torian_1a2b3c4d", "Ada_Brun_00000001"}
    assert shared_encoder.domain == "invented people"
    assert face_encoder.identities == frozenset() and face_encoder.head is None


def test_the_space_follows_the_weights_but_not_the_identities(shared_encoder, tmp_path):
    same = make_shared_encoder(tmp_path / "same", calibration={"slope": 2.0})
    assert same.space == shared_encoder.space and same.identities == frozenset()
    assert same.calibration == {"slope": 2.0}
    assert make_shared_encoder(tmp_path / "other", seed=1).space.digest != shared_encoder.space.digest


@pytest.mark.parametrize("own_weights", [False, True])
def test_a_saved_shared_encoder_is_the_same_in_everything(own_weights, tmp_path):
    original = make_shared_encoder(tmp_path / "original", identities=["Ada_Brun_00000001"], calibration={"slope": 2.0})
    saved = original.save(tmp_path / "saved", own_weights=own_weights)
    assert saved.description == original.description
    assert (saved.space, saved.identities, saved.calibration) == (original.space, original.identities, {"slope": 2.0})
    assert {path.name for path in saved.folder.iterdir()} == {path.name for path in original.folder.iterdir()}
    for modality in Modality:
        np.testing.assert_array_equal(
            vectors(saved, modality, some(modality)), vectors(original, modality, some(modality))
        )


@pytest.mark.parametrize("name", ["head.safetensors", "face.safetensors", "voice.safetensors", "identities.txt"])
def test_a_shared_encoder_with_an_altered_file_is_refused(name, shared_encoder, tmp_path):
    folder = Path(shutil.copytree(shared_encoder.folder, tmp_path / "copied"))
    (folder / name).write_bytes((folder / name).read_bytes()[:-1] + b"x")
    with pytest.raises(EncoderError, match=f"{name} has SHA-256"):
        Encoder.load(folder)


def test_golden_vectors_notice_another_head(shared_encoder, tmp_path):
    folder = Path(shutil.copytree(shared_encoder.folder, tmp_path / "copied"))
    description = shared_encoder.description
    weights = load_file(folder / "head.safetensors")
    (folder / "head.safetensors").write_bytes(save(weights | {"eta": torch.tensor(0.0)}))
    changed = FolderFile("head.safetensors", sha256_of(folder / "head.safetensors"))
    write_description(folder, replace(description, head=replace(description.head, weights=changed)))
    assert shared_encoder.verify_golden() >= 0.99999
    assert Encoder.load(folder).verify_golden() < 0.999


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "gate"}, "the head cannot be loaded: there is no head 'gate'"),
        ({"parameters": {"dimension": 64, "hidden": 64}}, "the head cannot be loaded: .*does not hold the weights"),
        ({"parameters": {}}, "the head cannot be loaded: .*cannot be made with"),
    ],
)
def test_a_head_that_cannot_be_made_is_refused(change, message, shared_encoder):
    description = shared_encoder.description
    changed = replace(description, head=replace(description.head, **change))
    with pytest.raises(EncoderError, match=message):
        Encoder.create(shared_encoder.folder, changed, GOLDEN, "# card")


def test_a_head_behind_a_network_of_another_size_is_refused(shared_encoder, voice_encoder):
    branches = {Modality.VOICE: voice_encoder.description.branches[Modality.VOICE]}
    changed = replace(shared_encoder.description, branches=branches)
    with pytest.raises(EncoderError, match="ge2e gives 256 components, the head takes 128"):
        Encoder.create(shared_encoder.folder, changed, GOLDEN, "# card")


def test_a_head_that_gives_another_size_than_the_space_has_is_refused(shared_encoder):
    changed = replace(shared_encoder.description, dimension=64)
    with pytest.raises(EncoderError, match="the head gives 128 components, the space has 64"):
        Encoder.create(shared_encoder.folder, changed, GOLDEN, "# card")


def test_identities_in_the_folder_must_be_named_when_it_is_created(shared_encoder, tmp_path):
    folder = Path(shutil.copytree(shared_encoder.folder, tmp_path / "copied"))
    description = shared_description(folder)
    with pytest.raises(EncoderError, match=r"identities\.txt is not among the files"):
        Encoder.create(folder, description, GOLDEN, "# card")
    assert Encoder.create(folder, description, GOLDEN, "# card", ["identities.txt"]).identities


def test_a_further_file_that_is_not_there_is_refused(shared_encoder, tmp_path):
    folder = Path(shutil.copytree(shared_encoder.folder, tmp_path / "copied"))
    with pytest.raises(EncoderError, match=r"write the further files before creating the encoder: .*people\.txt"):
        Encoder.create(folder, shared_encoder.description, GOLDEN, "# card", ["people.txt"])


def test_encoders_need_no_media_clock_or_database():
    forbidden = {"av", "pymilvus", "celery", "redis", "fastapi", "sqlalchemy", "resemblyzer", "silero_vad"}
    program = f"import sys, encoders.encoder; print(sorted({forbidden} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def mean_average_precision(rows, people):
    """Leave one out: everyone asks, all the others are the gallery."""
    similarity, people = rows @ rows.T, np.array(people)
    np.fill_diagonal(similarity, -np.inf)
    order = np.argsort(-similarity, axis=1)[:, :-1]
    hits = people[order] == people[:, None]
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return float(((precision * hits).sum(axis=1) / hits.sum(axis=1)).mean())


def test_photographs_of_one_person_lie_together(face_encoder, shared_media):
    detector, crops, people = load_face_detector(), [], []
    for path in sorted((shared_media / "faces" / "lfw").glob("*/*"))[::2]:
        picture = np.asarray(Image.open(path).convert("RGB"))
        for face in detector.detect(picture)[:1]:
            crops.append(FaceCrop(picture, face.landmarks))
            people.append(path.parent.name)
    assert len(set(people)) == 6
    assert mean_average_precision(vectors(face_encoder, Modality.FACE, crops), people) >= 0.95


def test_recordings_of_one_speaker_lie_together(voice_encoder, shared_media):
    sounds, people = [], []
    for path in sorted((shared_media / "voices" / "speechbrain").glob("*/*.wav")):
        with wave.open(str(path)) as recording:
            frames = recording.readframes(recording.getnframes())
        sounds.append(np.frombuffer(frames, np.int16).astype(np.float32) / 32768)
        people.append(path.parent.name)
    assert len(set(people)) == 2
    assert mean_average_precision(vectors(voice_encoder, Modality.VOICE, sounds), people) >= 0.95
