"""A protocol's report as one HTML page that needs nothing else, and as Markdown."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from search.report_pictures import Example, Picture
from search.report_tables import LEGEND, WAYS, Table, facts, tables

Thumbnail = Callable[[str], bytes | None]
"""A small JPEG of a sample by its path in the lists, or None where there is none to show."""


def nothing_to_see(_path: str) -> bytes | None:
    """The thumbnail of whatever nobody gave media for."""
    return None


_STYLE = """
:root { color-scheme: light; --ink: #1b1f24; --faint: #5c6570; --line: #d5dae0; --right: #0a7d3c; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; } h3 { font-size: 1rem; margin-bottom: .3rem; }
table { border-collapse: collapse; margin: .4rem 0; } caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: .2rem .8rem .2rem 0; text-align: right; }
th:first-child, td:first-child { text-align: left; } .wide { overflow-x: auto; }
.note, dd, figcaption { color: var(--faint); font-size: .9rem; } dt { font-weight: 600; } dd { margin: 0 0 .4rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(22rem, 1fr)); gap: 1rem; }
figure { margin: 0; } figure svg { width: 100%; height: auto; }
.search { display: flex; flex-wrap: wrap; gap: .4rem; align-items: flex-start; margin-bottom: 1rem; }
.sample { border: 3px solid transparent; font-size: .75rem; padding: .2rem; width: 7rem; overflow-wrap: anywhere; }
.sample img { display: block; width: 100%; }
.probe { border-color: var(--line); } .right { border-color: var(--right); }
"""


def as_markdown(report: Mapping[str, Any]) -> str:
    """A report of :func:`search.protocol_report.report_on` as Markdown."""
    lines = [f"# {_title(report)}", ""]
    lines += [f"- **{_cell(name)}**: {_cell(words)}" for name, words in facts(report)]
    for table in tables(report):
        lines += ["", f"## {_cell(table.title)}", "", *_markdown_rows(table)]
        lines += ["", table.note] if table.note else []
    lines += ["", "## How to read it", "", *(f"- **{name}**: {words}" for name, words in LEGEND)]
    return "\n".join(lines) + "\n"


def as_html(
    report: Mapping[str, Any], drawn: Sequence[Picture], searches: Sequence[Example] = (),
    thumbnail: Thumbnail = nothing_to_see,
) -> str:  # fmt: skip
    """The same with pictures and examples as one page; nothing is fetched from anywhere, nothing runs.

    Args:
        report: of :func:`search.protocol_report.report_on`.
        drawn: of :func:`search.report_pictures.pictures`.
        searches: of :func:`search.report_pictures.examples`.
        thumbnail: what a sample looks like; those of people are in the page, so keep it as you keep their photos.
    """
    title = escape(_title(report))
    parts = [
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1><dl>",
        *(f"<dt>{escape(name)}</dt><dd>{escape(words)}</dd>" for name, words in facts(report)),
        "</dl><h2>Figures</h2>", *map(_html_table, tables(report)), "<h2>Pictures</h2><div class=pictures>",
        *map(_html_picture, drawn), "</div>", *_html_searches(searches, thumbnail), "<h2>How to read it</h2><dl>",
        *(f"<dt>{escape(name)}</dt><dd>{escape(words)}</dd>" for name, words in LEGEND), "</dl></body></html>",
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def _title(report: Mapping[str, Any]) -> str:
    return f"Voices and faces of {report['protocol']['name']}"


def _cell(words: str) -> str:
    """Words that do not end a cell of a Markdown table, nor become anything but words."""
    plain = escape(" ".join(words.split()), quote=False)
    return "".join(f"\\{one}" if one in "|\\`*_[]#" else one for one in plain)


def _markdown_rows(table: Table) -> Iterator[str]:
    yield "| " + " | ".join(map(_cell, table.head)) + " |"
    yield "|" + "|".join([" --- ", *(" ---: " for _ in table.head[1:])]) + "|"
    for row in table.rows:
        yield "| " + " | ".join(map(_cell, row)) + " |"


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.head)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    caption = f"<caption>{escape(table.title)}</caption>"
    return f'<div class="wide"><table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{note}'


def _html_picture(picture: Picture) -> str:
    caption = escape(". ".join(one.rstrip(".") for one in (picture.title, picture.note) if one) + ".")
    return f"<figure>{picture.svg}<figcaption>{caption}</figcaption></figure>"


def _html_searches(searches: Sequence[Example], thumbnail: Thumbnail) -> Iterator[str]:
    if not searches:
        return
    yield "<h2>Searches drawn at random</h2><p class=note>The first answers of each; right ones are boxed in green.</p>"
    for example in searches:
        yield f"<h3>{escape(WAYS[example.way])}: {escape(example.person)}</h3><div class=search>"
        yield _html_sample(example.probe, "sample probe", thumbnail)
        for found in example.found:
            yield _html_sample(found.path, "sample right" if found.right else "sample", thumbnail)
        yield "</div>"


def _html_sample(path: str, kind: str, thumbnail: Thumbnail) -> str:
    picture = thumbnail(path)
    shown = ""
    if picture is not None:
        shown = f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(picture).decode()}">'
    return f'<div class="{kind}">{shown}{escape(path)}</div>'
