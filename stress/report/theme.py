"""The looks of plots. Colours are CSS variables, so that a plot follows the page to dark mode and to paper."""

from __future__ import annotations

from typing import Any, Final

#: Number of series told apart, by colour (``--series-1`` on) and by dash or shape; further series repeat them.
SERIES: Final = 8

_DASHES: Final[list[list[int]]] = [[1, 0], [7, 3], [2, 2], [9, 3, 2, 3], [12, 4], [4, 4], [1, 3], [6, 2, 2, 2]]
_SHAPES: Final = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "stroke"]

_FONT: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

#: Vega's configuration for every plot of a page.
CONFIG: Final[dict[str, Any]] = {
    "background": "transparent",
    "font": _FONT,
    "view": {"stroke": None},
    "axis": {
        "domainColor": "var(--rule)",
        "tickColor": "var(--rule)",
        "gridColor": "var(--grid)",
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": 500,
        "titlePadding": 10,
        "labelPadding": 5,
        "tickSize": 4,
    },
    "axisY": {"domain": False, "ticks": False},
    "legend": {
        "orient": "top",
        "labelColor": "var(--text)",
        "titleColor": "var(--muted)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": 500,
        "labelLimit": 420,
        "symbolSize": 90,
        "symbolStrokeWidth": 2,
        "symbolOpacity": 1,
        "columnPadding": 18,
        "offset": 8,
    },
    "header": {"labelColor": "var(--text)", "titleColor": "var(--muted)"},
    "text": {"color": "var(--text)", "fontSize": 12},
    "rule": {"color": "var(--rule)"},
    "line": {"strokeWidth": 2},
}

#: Vega expression that writes an axis's nanoseconds in the unit that fits.
TIME_LABEL: Final = (
    "datum.value == 0 ? '0' : abs(datum.value) < 1e3 ? format(datum.value, '~r') + ' ns'"
    " : abs(datum.value) < 1e6 ? format(datum.value / 1e3, '~r') + ' us'"
    " : abs(datum.value) < 1e9 ? format(datum.value / 1e6, '~r') + ' ms'"
    " : format(datum.value / 1e9, '~r') + ' s'"
)


def colour(index: int) -> str:
    """The colour of a series."""
    return f"var(--series-{index % SERIES + 1})"


def scale(names: list[str], values: list[Any]) -> dict[str, Any]:
    """A scale that gives each name the value in its place; if there are more names the values repeat."""
    return {"domain": names, "range": [values[index % len(values)] for index in range(len(names))]}


def by_series(field: str, names: list[str], *, shape: bool = False, drawn: list[str] | None = None) -> dict[str, Any]:
    """Encodings that tell marks of series apart, with a legend of those ``drawn`` (all if left out)."""
    legend: dict[str, Any] = {"title": None, "columns": 1 if max(map(len, names), default=0) > 40 else 4}
    if drawn is not None:
        legend["values"] = drawn
    channels: dict[str, list[Any]] = {"color": [colour(index) for index in range(SERIES)]}
    channels |= {"shape": _SHAPES} if shape else {}
    return {
        channel: {"field": field, "type": "nominal", "scale": scale(names, values), "legend": legend}
        for channel, values in channels.items()
    }


def tooltip(titles: dict[str, str]) -> list[dict[str, str]]:
    """The fields that a mark shows when it is pointed at, each with its title."""
    return [{"field": field, "title": title} for field, title in titles.items()]


def lines(
    points: list[dict[str, Any]], field: str, names: list[str], encoding: dict[str, Any], **mark: Any
) -> list[dict[str, Any]]:
    """A layer per series, told apart by colour and dash; the legend comes from marks that `by_series` encodes.

    If the dashes came from a scale, the legend's small shapes would be dashed, too.
    """
    return [
        {
            "data": {"values": chosen},
            "mark": {"type": "line", "color": colour(index), "strokeDash": _DASHES[index % SERIES], "aria": False}
            | mark,
            "encoding": encoding,
        }
        for index, name in enumerate(names)
        if (chosen := [_without(point, field) for point in points if point[field] == name])
    ]


def _without(point: dict[str, Any], field: str) -> dict[str, Any]:
    return {key: value for key, value in point.items() if key != field}


def spec(description: str, height: int, **parts: Any) -> dict[str, Any]:
    """A Vega-Lite specification as wide as the page allows."""
    return {
        "description": description,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        **parts,
    }
