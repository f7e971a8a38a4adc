"""Pictures of an evaluation as SVG text, drawn by matplotlib: no script, no font file, the same bytes every time."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from encoders.space import Modality
from search.figures import Curve, EmbeddingMap, Histogram

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (5.2, 4.0)
"""Inches."""
# Okabe and Ito's colours, told apart with every kind of colour vision; black is for what things are compared with.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D1F", "#5B3A9E")
_STYLES = ("-", "--", ":", "-.")
_MARKS = {Modality.FACE: "o", Modality.VOICE: "^"}
_RATES = (0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95)
_SHOWN_RATES = (0.0004, 0.99)
# Ids of the same drawing are the same; letters are lines, so that no font is needed.
_SETTINGS: Any = {"svg.hashsalt": "visavox", "svg.fonttype": "path"}


def roc_picture(curves: Mapping[str, Curve], title: str) -> str:
    """True over false acceptance of some lists, by name, beside chance."""
    figure, axes = _axes(title, "false acceptance", "true acceptance")
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":", label="chance")
    _lines(axes, curves)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    return _svg(figure, axes)


def det_picture(curves: Mapping[str, Curve], title: str) -> str:
    """False rejection over false acceptance, both as deviations of the normal distribution: straight if scores are."""
    figure, axes = _axes(title, "false acceptance", "false rejection")
    drawn = {name: Curve(_deviation(curve.x), _deviation(curve.y)) for name, curve in curves.items()}
    ticks = _deviation(np.array(_RATES))
    axes.plot(ticks, ticks, color="black", linewidth=0.8, linestyle=":", label="equal errors")
    _lines(axes, drawn)
    axes.set(xlim=tuple(_deviation(np.array(_SHOWN_RATES))), ylim=tuple(_deviation(np.array(_SHOWN_RATES))))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks.tolist(), [f"{rate:g}" for rate in _RATES])
    return _svg(figure, axes)


def cmc_picture(curves: Mapping[str, Curve], title: str) -> str:
    """Share of searches answered within the first k, with k on a logarithmic scale."""
    figure, axes = _axes(title, "first k answers", "searches with a right one among them")
    _lines(axes, curves)
    axes.set(xscale="log", ylim=(0, 1))
    return _svg(figure, axes)


def histogram_picture(histogram: Histogram, title: str) -> str:
    """The scores of pairs of one person and of two."""
    figure, axes = _axes(title, "score", "share of pairs")
    for shares, label, colour in (
        (histogram.different, "two people", COLOURS[1]), (histogram.same, "one person", COLOURS[0]),
    ):  # fmt: skip
        axes.stairs(shares, histogram.edges, fill=True, alpha=0.45, color=colour, label=label)
    return _svg(figure, axes)


def matching_picture(curves: Mapping[str, Curve], title: str) -> str:
    """Accuracy of 1:N matching over N, by name, beside chance."""
    figure, axes = _axes(title, "candidates", "picked out rightly")
    numbers = np.unique(np.concatenate([curve.x for curve in curves.values()]))
    axes.plot(numbers, 1 / numbers, color="black", linewidth=0.8, linestyle=":", label="chance")
    _lines(axes, curves, marks=True)
    axes.set(ylim=(0, 1), xticks=numbers)
    return _svg(figure, axes)


def map_picture(drawn: EmbeddingMap, title: str) -> str:
    """Faces (circles) and voices (triangles) in a plane, a colour for each person."""
    figure, axes = _axes(f"{title} ({drawn.method})", "", "")
    _marks(axes, drawn)
    return _svg(figure, axes)


def maps_picture(drawn: Mapping[str, EmbeddingMap], title: str) -> str:
    """Several maps beside each other, each in a plane of its own and under its name."""
    from matplotlib.figure import Figure  # heavy, and wanted for pictures only

    figure = Figure(figsize=(SIZE[0] * len(drawn), SIZE[1]), layout="constrained")
    figure.suptitle(title)
    row = figure.subplots(1, len(drawn), squeeze=False)[0]
    for axes, (name, one) in zip(row, drawn.items(), strict=True):
        axes.set(title=name)
        axes.grid(visible=True, alpha=0.3)
        _marks(axes, one)
    return _svg(figure, *row)


def _marks(axes: Axes, drawn: EmbeddingMap) -> None:
    """A mark for each embedding; a person is named once."""
    people, named = list(dict.fromkeys(drawn.people)), set[str]()
    of_whom, kinds = np.array(drawn.people), np.array([str(one) for one in drawn.modalities])
    for person, colour in zip(people, cycle(COLOURS), strict=False):
        for modality, mark in _MARKS.items():
            mine = (of_whom == person) & (kinds == str(modality))
            if not mine.any():
                continue
            x, y = drawn.places[mine].T
            label = None if person in named else person
            axes.scatter(x, y, s=14, marker=mark, color=colour, alpha=0.75, linewidths=0, label=label)
            named.add(person)
    axes.set(xticks=[], yticks=[])


def _axes(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # heavy, and wanted for pictures only

    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(visible=True, alpha=0.3)
    return figure, axes


def _lines(axes: Axes, curves: Mapping[str, Curve], *, marks: bool = False) -> None:
    looks: Sequence[tuple[str, str]] = [(colour, style) for style in _STYLES for colour in COLOURS]
    for (name, curve), (colour, style) in zip(curves.items(), cycle(looks), strict=False):
        axes.plot(curve.x, curve.y, color=colour, linestyle=style, marker="." if marks else "", label=name)


def _deviation(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.special import ndtri

    return np.asarray(ndtri(np.clip(rates, 1e-6, 1 - 1e-6)), dtype=np.float64)


def _svg(figure: Figure, *axes: Axes) -> str:
    """The picture as one svg element."""
    import matplotlib as mpl

    for one in axes:
        if one.get_legend_handles_labels()[1]:
            one.legend(fontsize=7.5, framealpha=0.6)
    told = io.StringIO()
    with mpl.rc_context(_SETTINGS):
        figure.savefig(told, format="svg", metadata={"Date": None, "Creator": None})
    text = told.getvalue()
    return text[text.index("<svg") :]
