"""The report: tables and figures as files, and one page that holds all of them."""

import base64
import dataclasses
import html
import pathlib
from collections.abc import Sequence

from rw_keras.evaluation.tables import Table
from rw_keras.files import written_whole

_STYLE = """
:root{color-scheme:light dark;--ink:#18181b;--paper:#fff;--line:#d9d9de;--quiet:#5c5c66;--band:#f5f5f7}
@media (prefers-color-scheme:dark){:root{--ink:#e8e8ec;--paper:#161618;--line:#3a3a40;--quiet:#a3a3ad;--band:#1f1f23}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1240px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.6rem}
nav{display:flex;flex-wrap:wrap;gap:.2rem 1rem}nav a{white-space:nowrap}a{color:inherit}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:13.5px}
th,td{padding:.28rem .6rem;border-bottom:1px solid var(--line);text-align:left;white-space:nowrap}
td.long{white-space:normal;min-width:20rem}
th{vertical-align:bottom;white-space:normal;min-width:4.2rem}tbody tr:nth-child(even){background:var(--band)}
p,li{max-width:80ch}.quiet{color:var(--quiet);font-size:13.5px}img{max-width:100%;height:auto;background:#fff}
figure{margin:1.2rem 0}figcaption{color:var(--quiet);font-size:13.5px}
""".strip()


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
        self._parts: list[tuple[str, str, str]] = []

    def add_table(self, table: Table, drawn: bytes | None = None) -> None:
        """Writes NAME.md, NAME.csv and, of what is drawn of it, NAME.png."""
        whole = dataclasses.replace(table, notes=[*table.notes, f"{self._data}.", *self._facts])
        self._write(f"{table.name}.md", whole.markdown().encode())
        rows = [[*row, self._data] for row in table.rows]
        whole = dataclasses.replace(table, columns=[*table.columns, "data"], rows=rows)
        self._write(f"{table.name}.csv", whole.csv().encode())
        head = "".join(f"<th>{_text(column)}</th>" for column in table.columns)
        rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in table.rows)
        body = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table></div>'
        body += "".join(f'<p class="quiet">{_text(note)}</p>' for note in table.notes)
        if drawn is not None:
            self._write(f"{table.name}.png", drawn)
            body += _picture(drawn, "png", table.title, "")
        self._parts.append((table.name, table.title, body))

    def add_figure(self, name: str, title: str, picture: bytes, kind: str, caption: str) -> None:
        """Writes a figure, NAME.png or NAME.jpg."""
        self._write(f"{name}.{'jpg' if kind == 'jpeg' else kind}", picture)
        self._parts.append((name, title, _picture(picture, kind, title, caption)))

    def finish(self) -> pathlib.Path:
        """Writes `index.html`, and returns where."""
        links = "".join(f'<a href="#{name}">{_text(title.partition(":")[0])}</a>' for name, title, _ in self._parts)
        facts = "".join(f"<li>{_text(fact)}</li>" for fact in (f"{self._data}.", *self._facts))
        parts = "".join(f'<section id="{name}"><h2>{_text(title)}</h2>{body}</section>\n' for name, title, body in self._parts)
        page = (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f"<title>{_text(self._title)}</title><style>{_STYLE}</style></head><body><h1>{_text(self._title)}</h1>"
            f"<ul>{facts}</ul><nav>{links}</nav>\n{parts}</body></html>\n"
        )
        self._write("index.html", page.encode())
        return self._folder / "index.html"

    def _write(self, name, content):
        with written_whole(self._folder / name) as file:
            file.write(content)


def _picture(content, kind, alt, caption):
    data = base64.b64encode(content).decode()
    words = f"<figcaption>{_text(caption)}</figcaption>" if caption else ""
    return f'<figure><img alt="{_text(alt)}" src="data:image/{kind};base64,{data}">{words}</figure>'


def _cell(text):
    return f'<td class="long">{_text(text)}</td>' if len(text) > 24 else f"<td>{_text(text)}</td>"


def _text(text):
    return html.escape(str(text))
