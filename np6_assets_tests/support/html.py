"""Read the tables and the text of an HTML page."""

from __future__ import annotations

from html.parser import HTMLParser


class Page(HTMLParser):
    """A page. `tables`: rows of cells of texts, headings first, by id or caption; `labels`: all ARIA labels."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text = ""
        self.tables: dict[str, list[list[list[str]]]] = {}
        self.addresses: list[str] = []
        self.labels: list[str] = []
        self._rows: list[list[list[str]]] = []
        self._name = ""
        self._cell: list[str] | None = None
        self._within: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "srcset", "xlink:href")]
        if label := given.get("aria-label"):
            self.labels.append(label)
        if tag in ("style", "script", "svg", "caption"):
            self._within.append(tag)
        if tag == "table":
            self._rows, self._name = [], given.get("id") or ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._cell = []
            self._rows[-1].append(self._cell)

    def handle_endtag(self, tag: str) -> None:
        if self._within and self._within[-1] == tag:
            self._within.pop()
        if tag == "table":
            self.tables[self._name] = self._rows
        elif tag in ("td", "th"):
            self._cell = None

    def handle_data(self, data: str) -> None:
        if "caption" in self._within and not self._name:
            self._name = data
        if self._within:
            return
        self.text += data
        if self._cell is not None and data.strip():
            self._cell.append(data.strip())
