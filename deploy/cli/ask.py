"""``find``, ``who``, ``verify``, ``match``: questions about files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.cli.output import Json, NothingDone, UsageError, answer, console, errors_translated, progress_console

if TYPE_CHECKING:
    from deploy.wiring import Installation
    from search.answers import WhoTurn

Similarity = Annotated[str, typer.Option(help="cosine, euclidean or correlation.")]


# Hits of this space are leads: never by themselves a name.
LEADS = "shared"


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    for command in (find, who, verify, match):
        app.command()(command)


def find(
    file: Annotated[Path, typer.Argument(help="Film, sound or photo to ask with.")],
    want: Annotated[str, typer.Option(help="face or voice: what to find.")],
    top: Annotated[int, typer.Option(min=1, max=1000, help="Most hits.")] = 10,
    enrolled: Annotated[
        bool | None,
        typer.Option("--enrolled/--unnamed", help="Only enrolled people's samples, or only unnamed tracks."),
    ] = None,
    json: Json = False,
) -> None:
    """Find faces or voices of whom a file shows."""
    if want not in ("face", "voice"):
        raise UsageError(f"--want is face or voice, not {want!r}")
    _must_exist(file)
    with errors_translated():
        from deploy.wiring import installation
        from encoders.space import Modality
        from search.store import Filter

        with installation() as opened:
            _mend(opened)
            found = opened.engine.find(file, Modality(want), top, Filter(enrolled=enrolled))

    def show() -> None:
        for hit in found.hits:
            where = "photo" if hit.start is None else f"{hit.start:.1f}–{hit.end:.1f} s"
            probability = "     ?" if hit.probability is None else f"{hit.probability:6.1%}"
            name = hit.person or "(unnamed)"
            console.print(
                f"{probability}  {hit.score:.3f}  {hit.modality:5}  {_lead(name) if hit.space == LEADS else name}  "
                f"{where}  medium {hit.media[:12]}  by {hit.space}",
            )
        if not found.hits:
            console.print("no hits")
        if found.note:
            console.print(f"note: {found.note}")

    answer(found, json, show)


def _mend(opened: Installation) -> None:
    """Encode what is stored for a model that VISAVOX_MODEL names and that has seen nothing of it."""
    if opened.shared_is_empty:
        progress_console.print("the model that serves has no rows yet: encoding what is stored")
        opened.archive.mend()


def _lead(name: str) -> str:
    """A name that is only a lead, as one."""
    return f"lead: {name}{'' if name.startswith('(') else '?'}"


def who(file: Annotated[Path, typer.Argument(help="Film or sound.")], json: Json = False) -> None:
    """Say who speaks when in a file."""
    _must_exist(file)
    with errors_translated():
        from deploy.wiring import installation

        with installation() as opened:
            _mend(opened)
            heard = opened.engine.who(file)

    def show() -> None:
        for turn in heard.turns:
            best = f" ({turn.people[0].name} {turn.people[0].probability:.0%})" if turn.people else ""
            console.print(f"{turn.start:7.1f} – {turn.end:7.1f} s  {turn.answer}{best}{_marks(turn)}")
        if not heard.turns:
            console.print("nobody speaks")

    answer(heard, json, show)


def _marks(turn: WhoTurn) -> str:
    """What is odd about a turn: its speaker is not seen, or somebody else speaks too."""
    marks = ["off screen"] if turn.off_screen else []
    if turn.overlap:
        marks.append(f"somebody else too for {sum(end - start for start, end in turn.overlap):.1f} s")
    return f"  [{', '.join(marks)}]" if marks else ""


def verify(
    a: Annotated[Path, typer.Argument(metavar="FILE", help="One file.")],
    b: Annotated[Path, typer.Argument(metavar="FILE", help="The other.")],
    similarity: Similarity = "cosine",
    json: Json = False,
) -> None:
    """Say whether two files show one person."""
    _must_know(similarity)
    _must_exist(a, b)
    with errors_translated():
        from deploy.wiring import installation

        with installation() as opened:
            verdict = opened.engine.verify(a, b, similarity)

    def show() -> None:
        told = "the same person" if verdict.same else "two different people"
        console.print(
            f"{told}: {verdict.probability:.1%} ({verdict.space}, {verdict.score:.3f} at {verdict.threshold:.3f})",
        )
        if verdict.note:
            console.print(f"note: {verdict.note}")

    answer(verdict, json, show)


def match(
    probe: Annotated[Path, typer.Argument(help="File to ask with.")],
    candidates: Annotated[list[Path], typer.Argument(metavar="CANDIDATE…", help="Files to choose from.")],
    similarity: Similarity = "cosine",
    json: Json = False,
) -> None:
    """Say which candidate shows the person of the probe."""
    _must_know(similarity)
    _must_exist(probe, *candidates)
    with errors_translated():
        from deploy.wiring import installation

        with installation() as opened:
            told = opened.engine.match(probe, candidates, similarity)

    def show() -> None:
        for candidate in told.candidates:
            mark = "→" if candidate.path == told.answer else " "
            console.print(
                f"{mark} {candidate.probability:6.1%}  {candidate.score:.3f}  {candidate.path}",
            )
        if told.note:
            console.print(f"note: {told.note}")

    answer(told, json, show)


def _must_exist(*paths: Path) -> None:
    for path in paths:
        if not path.exists():
            raise NothingDone("not_found", f"{path}: there is no such file")


def _must_know(similarity: str) -> None:
    if similarity not in ("cosine", "euclidean", "correlation"):
        raise UsageError(f"--similarity is cosine, euclidean or correlation, not {similarity!r}")
