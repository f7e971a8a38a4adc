"""Writes a protocol's report as a page with its pictures and as text; what draws is loaded only for that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.sample_vectors import SampleVectors
from search.trial_lists import TrialLists

if TYPE_CHECKING:
    from search.report_pictures import Picture


@dataclass(frozen=True)
class ReportFiles:
    """Where a report is written besides.

    Args:
        html: a file for it as a page; None: nowhere.
        markdown: a file for it as Markdown; None: nowhere.
    """

    html: Path | None = None
    markdown: Path | None = None

    @classmethod
    def named(cls, html: str | None, markdown: str | None) -> ReportFiles:
        """The same by name."""
        return cls(None if html is None else Path(html), None if markdown is None else Path(markdown))

    def __bool__(self) -> bool:
        """Whether anything is to be written."""
        return self.html is not None or self.markdown is not None

    def write(
        self,
        report: Mapping[str, Any],
        lists: TrialLists,
        vectors: SampleVectors,
        *,
        before: SampleVectors | None = None,
        media: Path | None = None,
        further: Sequence[Picture] = (),
    ) -> None:
        """Write them.

        Args:
            report: of :func:`search.protocol_report.report_on`.
            lists: on which.
            vectors: that were measured.
            before: another model's, compared with.
            media: folder of the files that the lists name; None: no sample is shown.
            further: pictures for the page that are not of the report alone.

        Raises:
            OSError: a file cannot be written.
        """
        from search.report_page import as_html, as_markdown, nothing_to_see
        from search.report_pictures import examples, pictures

        if self.markdown is not None:
            self.markdown.write_text(as_markdown(report), encoding="utf-8")
        if self.html is not None:
            drawn, searches = [*pictures(report, lists, vectors, before), *further], examples(lists, vectors)
            seen: Callable[[str], bytes | None] = nothing_to_see
            if media is not None:
                from search.thumbnails import thumbnails

                seen = thumbnails(lists, media)
            self.html.write_text(as_html(report, drawn, searches, seen), encoding="utf-8")
