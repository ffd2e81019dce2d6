"""A page as a reader without JavaScript sees it, with its packed trajectories unpacked."""

from __future__ import annotations

import base64
import json
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from retool.reporting import Report, write_report


class Page(HTMLParser):
    """The parsed page: its elements, the scripts that run, the data beside them, and all text that a reader sees."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.data: dict[str, str] = {}
        self.styles: list[str] = []
        self.text = ""
        self._raw: list[str] | None = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        self._raw = [] if tag in ("script", "style") else None

    def handle_endtag(self, tag):
        if self._raw is None:
            return
        text, attributes, self._raw = "".join(self._raw), self.elements[-1][1], None
        if tag == "style":
            self.styles.append(text)
        elif "type" in attributes:
            self.data[attributes["id"]] = text
        else:
            self.scripts.append(text)

    def handle_data(self, data):
        if self._raw is None:
            self.text += data
        else:
            self._raw.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def classes(self, tag: str) -> list[str]:
        return [attributes.get("class") or "" for attributes in self.named(tag)]

    @property
    def drawings(self) -> dict:
        return json.loads(self.data["drawings"])

    def unpacked(self, name: str) -> Any:
        return unpacked(self.data[name])

    @property
    def columns(self) -> dict:
        return self.unpacked("columns")

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The list of trajectories, row by row."""
        return rows_of(self.columns)

    def read(self, row: dict[str, Any]) -> dict[str, Any]:
        """What the page shows of a row of the list when it is read."""
        return self.unpacked(row["chunk"])[row["place"]]

    def tokens(self, row: dict[str, Any]) -> dict[str, Any] | None:
        return None if row["token_chunk"] is None else self.unpacked(row["token_chunk"])[row["token_place"]]


def unpacked(data: str) -> Any:
    return json.loads(zlib.decompress(base64.b64decode(data, validate=True)))


def rows_of(columns: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(columns["rows"], row, strict=True)) for row in zip(*columns["rows"].values(), strict=True)]


def page_of(report: Report, folder: Path) -> Page:
    write_report(folder / "report.html", report)
    return Page((folder / "report.html").read_text(encoding="utf-8"))
