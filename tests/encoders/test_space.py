import numpy as np
import pytest

from encoders.space import Embedding, Modality, Space, SpaceMismatch, require_same_space

SPACE = Space("voice_identity", 3, "a" * 64)


def test_the_other_of_face_is_voice_and_back():
    assert Modality.FACE.other is Modality.VOICE
    assert Modality.VOICE.other is Modality.FACE


@pytest.mark.parametrize(
    ("name", "dimension", "digest"),
    [("not a name", 3, "a" * 64), ("name", 0, "a" * 64), ("name", 3, "a" * 63), ("name", 3, "G" * 64)],
)
def test_a_space_refuses_impossible_values(name, dimension, digest):
    with pytest.raises(ValueError, match="space"):
        Space(name, dimension, digest)


@pytest.mark.parametrize("vector", [[1, 0], [0, 0, 0], [2, 0, 0], [np.nan, 0, 1], [np.inf, 0, 0]])
def test_an_embedding_is_finite_and_of_unit_length(vector):
    with pytest.raises(ValueError, match="voice_identity"):
        Embedding(SPACE, Modality.VOICE, np.array(vector, dtype=np.float32))


def test_an_embedding_copies_its_vector_and_keeps_it_from_changes():
    values = np.array([1, 0, 0], dtype=np.float32)
    embedding = Embedding(SPACE, Modality.VOICE, values)
    values[0] = 5
    assert embedding.vector[0] == 1
    with pytest.raises(ValueError, match="read-only"):
        embedding.vector[0] = 2


def test_of_brings_any_direction_to_unit_length():
    embedding = Embedding.of(SPACE, Modality.FACE, np.array([3.0, 0.0, 4.0]))
    np.testing.assert_allclose(embedding.vector, [0.6, 0, 0.8], rtol=1e-6)


def test_of_refuses_a_vector_without_direction():
    with pytest.raises(ValueError, match="no direction"):
        Embedding.of(SPACE, Modality.FACE, np.zeros(3))


def test_vectors_of_another_space_are_refused_by_digest_not_by_name():
    require_same_space(SPACE, Space("renamed", 3, "a" * 64))
    with pytest.raises(SpaceMismatch, match="re-encode"):
        require_same_space(SPACE, SPACE, Space("voice_identity", 3, "b" * 64))
