"""``stress platforms``: the machine profiles that come with the program, or one of them figure by figure."""

from __future__ import annotations

import click

from stress.cli.completion import ARGUMENTS, completing
from stress.cli.lists import table
from stress.cli.output import emit
from stress.cli.result_options import format_option
from stress.platforms import Platform, load, names
from stress.results.text import joined, wrapped


@click.command()
@click.argument("name", required=False, metavar="[NAME]", shell_complete=completing(ARGUMENTS["platforms"]))
@format_option
def platforms(name: str | None, table_format: str) -> int:
    """List the machine profiles, or what each thing costs on the machine NAME, and how that is known.

    NAME is one of the list, or a TOML file.
    """
    emit(_figures(load(name), table_format) if name else _list(table_format))
    return 0


def _list(table_format: str) -> str:
    rows = [
        (
            each.name,
            each.description,
            ", ".join(f"{figure.key} {figure.value}" for figure in each.figures if figure.spun) or "none",
            _features(each),
            each.source,
        )
        for each in map(load, names())
    ]
    headers = ("platform", "is", "costs that a run spins", "features", "source")
    return table(headers, rows, table_format, {1: 22, 2: 26, 3: 12, 4: 22})


def _figures(platform: Platform, table_format: str) -> str:
    rows = [
        (each.key, each.means, each.value, "yes" if each.spun else "", each.origin or "not said", each.source)
        for each in platform.figures
    ]
    headers = ("cost", "of", "is", "spun\nby run", "known", "from")
    return joined(
        wrapped(
            f"{platform.name}: {platform.description} ({platform.source}). Features: {_features(platform) or 'none'}."
        ),
        table(headers, rows, table_format, {1: 24, 5: 28}) if rows else "It models no costs.",
    )


def _features(platform: Platform) -> str:
    cores = f"{platform.cores} core{'s'[: platform.cores != 1]}" if platform.cores else ""
    features = (
        ("FWB", platform.fwb),
        ("DIC", platform.dic),
        (f"BBM level {platform.bbm_level}", platform.bbm_level),
        (cores, cores),
    )
    return ", ".join(feature for feature, there in features if there)
