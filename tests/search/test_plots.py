from __future__ import annotations

import xml.etree.ElementTree as Xml
from collections.abc import Callable

import numpy as np
import pytest

from encoders.space import Modality
from search import plots
from search.figures import Curve, EmbeddingMap, score_histogram

LINE = Curve(np.array([0.01, 0.2, 0.9]), np.array([0.5, 0.7, 0.95]))
SPREAD = score_histogram([1.0, 0.5, 0.2, 0.1], [True, True, False, False])
MAP = EmbeddingMap(np.arange(8.0).reshape(4, 2), ("ann", "ben") * 2, (Modality.FACE, Modality.VOICE) * 2, "PCA")
FACES = EmbeddingMap(np.arange(4.0).reshape(2, 2), ("ann", "ben"), (Modality.FACE,) * 2, "PCA")

PICTURES: dict[str, Callable[[], str]] = {
    "roc": lambda: plots.roc_picture({"U": LINE, "G": LINE}, "ROC"),
    "det": lambda: plots.det_picture({"U": LINE}, "DET"),
    "cmc": lambda: plots.cmc_picture({"voices": Curve(np.arange(1.0, 9), np.linspace(0.1, 1, 8))}, "CMC"),
    "histogram": lambda: plots.histogram_picture(SPREAD, "Scores"),
    "matching": lambda: plots.matching_picture({"U": Curve(np.arange(2.0, 11), np.linspace(0.9, 0.5, 9))}, "1:N"),
    "map": lambda: plots.map_picture(MAP, "People"),
    "maps": lambda: plots.maps_picture({"this": MAP, "that": FACES}, "People"),
}


def paths(picture: str) -> int:
    """How many lines and marks there are in a picture."""
    return sum(one.tag.endswith(("path", "use")) for one in Xml.fromstring(picture).iter())


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_one_svg_element_that_needs_nothing_else(name: str) -> None:
    picture = PICTURES[name]()
    root = Xml.fromstring(picture)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    tags = {one.tag.rpartition("}")[2] for one in root.iter()}
    assert not tags & {"script", "image", "foreignObject", "text", "a"}
    links = [value for one in root.iter() for key, value in one.attrib.items() if key.endswith("href")]
    assert all(link.startswith("#") for link in links)


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_has_the_same_bytes_twice(name: str) -> None:
    assert PICTURES[name]() == PICTURES[name]()


def test_each_curve_is_drawn() -> None:
    one, two = plots.roc_picture({"U": LINE}, "ROC"), plots.roc_picture({"U": LINE, "G": LINE}, "ROC")
    assert paths(two) > paths(one)


def test_each_embedding_is_a_mark() -> None:
    places = np.random.default_rng(0).normal(size=(40, 2))
    kinds = (Modality.FACE, Modality.FACE, Modality.VOICE, Modality.VOICE) * 10
    more = EmbeddingMap(places, ("ann", "ben") * 20, kinds, "PCA")
    assert paths(plots.map_picture(more, "People")) >= paths(PICTURES["map"]()) + 36


def test_maps_beside_each_other_show_each_its_own_embeddings_and_name_each_person() -> None:
    one, two = plots.maps_picture({"this": MAP}, "People"), plots.maps_picture({"this": MAP, "that": MAP}, "People")
    assert paths(two) > paths(one) >= paths(plots.maps_picture({"this": FACES}, "People")) + 2
    widths = [float(Xml.fromstring(one).attrib["width"].removesuffix("pt")) for one in (one, two)]
    assert widths[1] == 2 * widths[0]
