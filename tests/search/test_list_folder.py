"""Tables of lists: read by the column as they are read by the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.list_folder import ListFolder, ProtocolError, even_cells

HEADERS = [("a b", "c")]


@pytest.mark.parametrize("separator", [",", "\t", " "])
def test_cells_of_even_lines_come_one_line_after_the_other(separator: str) -> None:
    assert even_cells([separator.join("ab"), separator.join("cd")], separator, 2) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("lines", "separator"),
    [
        (["a,b", "c"], ","), (["a,b,c"], ","), (["a,", "c,d"], ","), (["a, b"], ","), (["a,b", ""], ","),
        (["a,b\t"], ","), (["a,b\u00a0"], ","), (["a  b", "c"], " "), ([" a b"], " "), (["a\tb c"], " "),
        (["a b\t"], " "), (["a\tb "], "\t"), (["a\t\tb"], "\t"), ([], ","), ([""], ","),
    ],
)  # fmt: skip
def test_lines_that_are_not_plain_are_left_to_whoever_looks_closer(lines: list[str], separator: str) -> None:
    assert even_cells(lines, separator, 2) is None


@pytest.mark.parametrize("body", ["x\ty\nz\tw\n", "x \t y\nz\tw\n", "x\ty\n\nz\tw", "x\ty\r\nz\tw\r\n"])
def test_columns_are_those_of_the_table(tmp_path: Path, body: str) -> None:
    path = tmp_path / "list"
    path.write_text("a b\tc\n" + body, newline="")
    folder = ListFolder(tmp_path)
    assert list(map(tuple, folder.columns(path, "\t", HEADERS))) == [("x", "z"), ("y", "w")]
    assert list(zip(*(cells for _, cells in folder.table(path, "\t", HEADERS)), strict=True)) == [
        ("x", "z"),
        ("y", "w"),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a\tb\nx\ty\n", "line 1: begins with"),
        ("a b\tc\nx\ty\nz\n", "line 3: needs 2 cells"),
        ("", "line 1: begins with"),
    ],
)
def test_what_is_no_such_table_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "list").write_text(text)
    with pytest.raises(ProtocolError, match=told):
        ListFolder(tmp_path).columns(tmp_path / "list", "\t", HEADERS)
