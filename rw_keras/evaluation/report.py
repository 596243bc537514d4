"""The report: tables and figures as files, and one page that holds all of them."""

import dataclasses
import pathlib
from collections.abc import Sequence

from rw_keras.evaluation.table import Table
from rw_keras.files import written_whole
from rw_keras.views.pages import data_url, render


@dataclasses.dataclass(frozen=True)
class _Part:
    """A section of the page: a table, a picture as a URL that holds it, or both."""

    name: str
    title: str
    table: Table | None = None
    picture: str | None = None
    caption: str = ""


class Report:
    """A folder of tables and figures, and `index.html`, which needs no other file.

    Args:
        folder: made where it does not exist.
        title: of the page.
        facts: sentences above everything, and below each table: the settings.
        data: how much of the sets was there, which stands in every file.
    """

    def __init__(self, folder: pathlib.Path, title: str, facts: Sequence[str], data: str) -> None:
        self._folder, self._title, self._facts, self._data = folder, title, facts, data
        self._parts: list[_Part] = []

    def add_table(self, table: Table, drawn: bytes | None = None) -> None:
        """Writes NAME.md, NAME.csv and, of what is drawn of it, NAME.png."""
        whole = dataclasses.replace(table, notes=[*table.notes, f"{self._data}.", *self._facts])
        self._write(f"{table.name}.md", _bytes(whole.markdown()))
        rows = [[*row, self._data] for row in table.rows]
        whole = dataclasses.replace(table, columns=[*table.columns, "data"], rows=rows)
        self._write(f"{table.name}.csv", _bytes(whole.csv()))
        if drawn is not None:
            self._write(f"{table.name}.png", drawn)
        self._parts.append(_Part(table.name, table.title, table, None if drawn is None else data_url(drawn, "png")))

    def add_figure(self, name: str, title: str, picture: bytes, kind: str, caption: str) -> None:
        """Writes a figure, NAME.png or NAME.jpg."""
        self._write(f"{name}.{'jpg' if kind == 'jpeg' else kind}", picture)
        self._parts.append(_Part(name, title, None, data_url(picture, kind), caption))

    def finish(self) -> pathlib.Path:
        """Writes `index.html`, and returns where."""
        page = render("report", title=self._title, facts=[f"{self._data}.", *self._facts], parts=self._parts)
        self._write("index.html", page.encode())
        return self._folder / "index.html"

    def _write(self, name, content):
        with written_whole(self._folder / name) as file:
            file.write(content)


def _bytes(text):
    """As UTF-8; a byte of a file name that is no text, which Python keeps as half a character, stands as an escape."""
    return text.encode(errors="backslashreplace")
