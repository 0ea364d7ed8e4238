"""The page: everything in one file, nothing from anywhere else."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from stress import __version__
from stress.errors import UsageError
from stress.report.counterexample_section import counterexample_section
from stress.report.run_section import Section, overview, run_section
from stress.report.search_section import search_section
from stress.report.sweep_section import sweep_section
from stress.report.theme import CONFIG
from stress.results.stored import Stored

#: Rebuilds marked in all plots of a page together, per order.
_MARKS: Final = 1200
_MOST_MARKS: Final = 200
_FEWEST_MARKS: Final = 20


@dataclass(frozen=True, slots=True)
class _Part:
    """A section with its plots as JSON."""

    section: Section
    plots: list[str]


def render(sources: list[Stored], title: str | None = None) -> str:
    """The HTML of a report on ``sources``; without a ``title`` the page's says what the sources are.

    Raises `UsageError` if a document is no whole result.
    """
    most_marks = max(_FEWEST_MARKS, min(_MOST_MARKS, _MARKS // max(1, len(sources))))
    parts = [_part(source, most_marks) for source in sources]
    sections = [part.section for part in parts]
    if title is None:
        title = sections[0].what if len(sections) == 1 else f"{len(sections)} results"
    plots = ",".join(plot for part in parts for plot in part.plots)
    scripts = [_vega(), _asset("page.js")]
    environment = Environment(
        loader=PackageLoader("stress.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("page.html.j2").render(
        title=title,
        version=__version__,
        sections=sections,
        overview=overview(sections) if len(sections) > 1 else None,
        style=Markup(_asset("page.css")),
        scripts=[Markup(script) for script in scripts],
        script_hashes=[_hash(script) for script in scripts],
        data=Markup(f'{{"config":{_embedded(CONFIG)},"plots":[{plots}]}}'),
    )
    # A character that UTF-8 cannot write is shown as its escape.
    return text.encode(errors="backslashreplace").decode()


def _section(source: Stored, most_marks: int) -> Section:
    if source.sweep is not None:
        return sweep_section(source.name, source.sweep)
    if source.search is not None:
        return search_section(source.name, source.search)
    if source.counterexamples is not None:
        return counterexample_section(source.name, source.counterexamples)
    return run_section(source.name, source.document or {}, most_marks)


def _part(source: Stored, most_marks: int) -> _Part:
    try:
        section = _section(source, most_marks)
        return _Part(section, [_embedded(plot) for figure in section.figures for plot in figure.plots])
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError) as error:
        message = f"cannot report on {source.name}: it is no whole result ({type(error).__name__}: {error})"
        raise UsageError(message, "run again with --output") from error


def _embedded(value: Any) -> str:
    """JSON that no HTML parser takes for an end of its script element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _asset(name: str) -> str:
    return files("stress.report").joinpath(name).read_text("utf-8")


@cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    import vl_convert

    bundle = str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))
    # The bundle becomes a function, so that none of its names gets in the way of the page's own script.
    return "(() => {" + bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--") + "})();"


def _hash(script: str) -> str:
    """The source expression by which a content security policy allows a script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
