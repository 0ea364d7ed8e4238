"""Markdown for generated pages."""

from __future__ import annotations

from collections.abc import Sequence

_NOTE = "<!-- Written by `make docs` from the code. Do not edit. -->"


def page(title: str, *parts: str) -> str:
    """A page whose parts stand apart, with a note that it is generated."""
    return "\n\n".join([f"# {title}", _NOTE, *parts]) + "\n"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts. Not padded: a longer cell changes one line, and a test compares these lines."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [headers, ["---"] * len(headers), *escaped]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(text: str) -> str:
    """``text`` as code; nothing stays nothing."""
    return f"`{text}`" if text else ""
