import numpy as np

from encoders.encoder import packaged_encoders
from encoders.packaging import build, drawn_face, drawn_voice


def test_building_again_gives_the_committed_folders(tmp_path):
    agreement = build(tmp_path)
    assert set(agreement) == set(packaged_encoders())
    for name, folder in packaged_encoders().items():
        assert agreement[name] >= 0.9999
        assert (tmp_path / name / "MODEL_CARD.md").read_text() == (folder / "MODEL_CARD.md").read_text()


def test_a_card_says_where_from_under_which_licence_and_what_not_to_trust():
    for folder in packaged_encoders().values():
        text = (folder / "MODEL_CARD.md").read_text()
        for part in ("## Source and licence", "SHA-256", "## Trained on", "## Measured", "May not be trusted with"):
            assert part in text


def test_drawings_are_the_same_for_the_same_seed_and_differ_between_seeds():
    np.testing.assert_array_equal(drawn_face(1).pixels, drawn_face(1).pixels)
    np.testing.assert_array_equal(drawn_voice(1, 0.5), drawn_voice(1, 0.5))
    assert (drawn_face(1).pixels != drawn_face(2).pixels).any()
    assert (drawn_voice(1, 0.5) != drawn_voice(2, 0.5)).any()


def test_a_drawn_voice_has_the_asked_length_and_stays_within_range():
    sound = drawn_voice(3, 1.25)
    assert sound.shape == (20000,) and sound.dtype == np.float32
    assert 0.2 < np.abs(sound).max() <= 1
