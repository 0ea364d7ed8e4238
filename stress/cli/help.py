"""Help in sections: options carry a section, and a command lists them under it, all in the same columns."""

from __future__ import annotations

from typing import Any, Final

import click

#: Options without a section of their own.
GENERAL: Final = "Options"

_WIDEST: Final = 30  # a longer option has its help on the next line


class SectionOption(click.Option):
    """An option that knows its section of the help."""

    def __init__(self, *arguments: Any, section: str = GENERAL, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.section = section


class SectionCommand(click.Command):
    """A command whose help has a heading per section, as they first occur; options without one come last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write all options."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                sections.setdefault(getattr(parameter, "section", GENERAL), []).append(record)
        sections[GENERAL] = sections.pop(GENERAL)
        width = max(len(first) for records in sections.values() for first, _ in records)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl([(first.ljust(min(width, _WIDEST)), text) for first, text in records])
