"""Following faces: with a detector that reads the answers from the pictures, and with the real one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from encoders.encoder import Encoder, packaged_encoders
from encoders.face import FaceCrop, load_face_detector
from encoders.space import Embedding, Modality
from ingest.faces import FaceSettings, find_face_tracks, find_photo_faces
from ingest.media import MEDIA_EXTENSIONS, probe, read_frames, read_photo
from ingest.track import Span
from tests.ingest.squares import SIDE, SquareDetector, describe, film, scene


def times(track):
    return [(round(span.start, 2), round(span.end, 2)) for span in track.seen]


def test_a_face_that_moves_is_one_track():
    tracks = find_face_tracks(film(*[scene((1, 10 + 12 * k, 50)) for k in range(10)]), SquareDetector())
    assert len(tracks) == 1
    assert tracks[0].span == Span(0.0, 2.0)
    assert tracks[0].area == SIDE * SIDE


def test_two_faces_at_once_are_two_tracks_in_order_of_appearance():
    alone, both = scene((2, 200, 50)), scene((2, 200, 50), (1, 20, 50))
    tracks = find_face_tracks(film(alone, both, both), SquareDetector(), describe)
    assert [track.index for track in tracks] == [0, 1]
    assert [track.span.start for track in tracks] == [0.0, 0.2]


def test_two_faces_at_once_are_never_one_track_however_alike():
    twins = scene((1, 200, 50), (2, 20, 50))
    tracks = find_face_tracks(film(twins, twins), SquareDetector(), lambda crops: [np.eye(4)[0]] * len(crops))
    assert len(tracks) == 2


def test_a_short_gap_is_closed_and_a_long_one_is_seen():
    here, gone = scene((1, 50, 50)), scene()
    short = find_face_tracks(film(here, here, gone, gone, here, here), SquareDetector(), describe)
    long = find_face_tracks(film(here, here, *[gone] * 10, here, here), SquareDetector(), describe)
    assert [times(track) for track in short] == [[(0.0, 1.2)]]
    assert [times(track) for track in long] == [[(0.0, 0.4), (2.4, 2.8)]]
    assert long[0].span == Span(0.0, long[0].seen[-1].end)


def test_a_face_is_followed_across_a_cut_by_its_vector():
    pictures = [scene((1, 20, 50))] * 3 + [scene((1, 240, 150), background=200)] * 3
    tracks = find_face_tracks(film(*pictures), SquareDetector(), describe)
    assert [times(track) for track in tracks] == [[(0.0, 1.2)]]


def test_two_people_at_one_place_before_and_after_a_cut_are_two_tracks():
    pictures = [scene((1, 100, 50))] * 3 + [scene((2, 100, 50), background=200)] * 3
    tracks = find_face_tracks(film(*pictures), SquareDetector(), describe)
    assert [times(track) for track in tracks] == [[(0.0, 0.6)], [(0.6, 1.2)]]


def test_without_vectors_a_cut_ends_a_track():
    pictures = [scene((1, 100, 50))] * 3 + [scene((1, 100, 50), background=200)] * 3
    assert len(find_face_tracks(film(*pictures), SquareDetector())) == 2


def test_shot_and_reverse_shot_give_one_track_per_person():
    one, other = scene((1, 100, 50)), scene((2, 100, 50), background=200)
    pictures = ([one] * 5 + [other] * 5) * 2
    tracks = find_face_tracks(film(*pictures), SquareDetector(), describe)
    assert [times(track) for track in tracks] == [[(0.0, 3.0)], [(1.0, 4.0)]]


def test_a_chance_find_in_one_picture_is_left_out():
    pictures = [scene()] * 3 + [scene((1, 100, 50))] + [scene()] * 3
    assert find_face_tracks(film(*pictures), SquareDetector(score=0.2)) == ()
    assert len(find_face_tracks(film(*pictures), SquareDetector(score=2.0))) == 1


def test_a_film_of_one_picture_keeps_a_doubtful_face():
    assert len(find_face_tracks(film(scene((1, 100, 50))), SquareDetector(score=0.2))) == 1


def test_up_to_three_shots_are_kept_spread_in_time():
    track = find_face_tracks(film(*[scene((1, 50, 50))] * 20), SquareDetector())[0]
    moments = sorted(shot.time for shot in track.shots)
    assert len(moments) == 3
    assert min(later - earlier for earlier, later in pairwise(moments)) >= 0.5 - 1e-6


def test_a_film_without_pictures_has_no_faces():
    assert find_face_tracks([], SquareDetector(), describe) == ()


def test_pictures_too_small_for_a_face_are_passed_over():
    assert find_face_tracks(film(np.zeros((8, 8, 3), np.uint8)), SquareDetector()) == ()


def test_no_span_passes_the_end_of_the_film():
    track = find_face_tracks(film(*[scene((1, 50, 50))] * 3), SquareDetector(), until=0.5)[0]
    assert track.span == Span(0.0, 0.5)


def test_many_sightings_of_one_person_are_still_one_track():
    here, gone = scene((1, 50, 50)), scene()
    pictures = [here, here, *[gone] * 7] * 70  # more sightings than are held unjoined
    tracks = find_face_tracks(film(*pictures), SquareDetector(), describe)
    assert len(tracks) == 1
    assert len(tracks[0].seen) == 70
    assert len(tracks[0].shots) == 3


def test_a_lost_face_is_searched_for_near_its_last_place():
    class Shy(SquareDetector):
        """Sees faces in a whole picture only when it looks closely."""

        def detect(self, picture, *, smallest=30):
            if picture.shape[1] == 320 and smallest > 40:
                return []
            return super().detect(picture, smallest=smallest)

    settings = FaceSettings(thorough_every=100.0)
    tracks = find_face_tracks(film(*[scene((1, 100, 80))] * 10), Shy(), None, settings)
    assert [times(track) for track in tracks] == [[(0.0, 2.0)]]


def test_faces_of_a_photo_come_largest_first():
    picture = scene((1, 10, 10), (2, 200, 100))
    picture[100 : 100 + 80, 200 : 200 + 80, 0] = 40
    faces = find_photo_faces(picture, SquareDetector())
    assert [face.area for face in faces] == [6400.0, 3600.0]
    assert faces[0].span is None and faces[0].seen == () and faces[0].shots[0].time is None


def test_a_photo_without_a_face_has_none():
    assert find_photo_faces(scene(), SquareDetector()) == ()


# -- the real detector and encoder ------------------------------------------------------------------


@pytest.fixture(scope="module")
def detector():
    return load_face_detector()


@pytest.fixture(scope="module")
def real_describe():
    encoder = Encoder.load(packaged_encoders()["face_identity"])

    def vectors(crops: list[FaceCrop]):
        found = encoder.encode(Modality.FACE, crops)
        return [one.vector if isinstance(one, Embedding) else None for one in found]

    return vectors


TALKING = [
    "av/grid/grid_s1/bbaf2n.mpg",
    "av/vox2_pcavs/vox2_u_00002/00002.mp4",
    "av/talking/AlexandriaOcasioCortez/3.mp4",
    "edge/no_audio_stream/x/mouth_source.mp4",
]


@pytest.mark.parametrize("name", TALKING)
def test_a_real_talking_clip_is_one_track(shared_media, detector, real_describe, name):
    path = shared_media / name
    (track,) = find_face_tracks(read_frames(path, 2), detector, real_describe, FaceSettings(fps=2))
    assert track.span.duration > 0.8 * probe(path).duration
    assert all(0 < shot.quality <= 1 and max(shot.pixels.shape) <= 512 for shot in track.shots)


def test_a_clip_with_cuts_between_two_people_has_two_tracks(shared_media, detector, real_describe):
    path = shared_media / "av/multi/hamilton/short_hamilton_clip.mp4"
    assert len(find_face_tracks(read_frames(path, 5), detector, real_describe)) == 2


@pytest.mark.parametrize("name", ["orl/s1/1.pgm", "lfw", "faceapi"])
def test_the_face_of_a_real_photo_is_found(shared_media, detector, name):
    place = shared_media / "faces" / name
    path = place if place.is_file() else next(one for one in sorted(place.rglob("*")) if one.is_file())
    assert len(find_photo_faces(read_photo(path), detector)) == 1


@pytest.mark.long
def test_every_real_talking_clip_has_a_face(shared_media, detector, real_describe):
    paths = [path for path in sorted((shared_media / "av").rglob("*")) if path.suffix in (".mp4", ".mpg")]
    for path in paths:
        tracks = find_face_tracks(read_frames(path, 5), detector, real_describe)
        assert len(tracks) == (2 if "hamilton" in path.name else 1), path
    assert len(paths) == 29


@pytest.mark.long
def test_nearly_every_real_photo_has_a_face(shared_media, detector):
    paths = [path for path in sorted((shared_media / "faces").rglob("*")) if path.suffix[1:] in MEDIA_EXTENSIONS]
    found = sum(bool(find_photo_faces(read_photo(path), detector)) for path in paths)
    assert len(paths) == 171
    assert found >= 168
