"""A figure that stands in several places of a page is the same in all of them, and a point lies on its own curve."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from pages import documents

from stress.report.page import render
from stress.results.stored import Stored

DOCUMENTS = documents()

#: (order, quantity): the texts of it, each with where it stands.
Found = dict[tuple[str, str], dict[str, str]]


class Tables(HTMLParser):
    """Every table of a page by its caption, and the sentences about the outcome."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.findings: list[str] = []
        self._rows: list[list[str]] = []
        self._into: list[str] | None = None
        self._in_findings = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self._rows = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._into = self._rows[-1]
            self._into.append("")
        elif tag == "caption":
            self._into = [""]
            self.tables[""] = [self._into]
        elif tag == "ul":
            self._in_findings = dict(attrs).get("class") == "findings"
        elif tag == "li" and self._in_findings:
            self._into = self.findings
            self._into.append("")

    def handle_data(self, data: str) -> None:
        if self._into is not None:
            self._into[-1] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "caption":
            ((caption,),) = self.tables.pop("")
            self.tables[caption] = self._rows
        if tag in ("td", "th", "caption", "li"):
            self._into = None

    def rows(self, caption: str) -> Iterator[dict[str, str]]:
        headers, *rows = self.tables[caption]
        return (dict(zip(headers, row, strict=True)) for row in rows)


def plots(page: str) -> list[dict[str, Any]]:
    embedded = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert embedded
    found: list[dict[str, Any]] = json.loads(embedded[1])["plots"]
    return found


def distributions(page: str) -> Iterator[tuple[str, list[list[dict[str, Any]]], list[dict[str, Any]]]]:
    """What each is of, its lines' vertices without their orders, layer by layer, and its points."""
    for plot in plots(page):
        if "cumulative distribution" in plot["description"]:
            *lines, points = (layer["data"]["values"] for layer in plot["layer"])
            yield plot["description"].split(": ")[1].split(",")[0], lines, points


#: Metrics of the ratios, and the quantity of an order that each divides.
DIVIDED = {
    "median invalid window": "window p50",
    "share of rebuilds hit": "hit",
    "window faults per rebuild": "window faults/rebuild",
    "p99 of window faults' stalls": "window stall p99",
    "accesses per second": "accesses/s",
}


def figures(page: str) -> Found:
    """Every figure of an order, wherever it stands on a page about one run."""
    found: Found = defaultdict(dict)
    read = Tables(page)
    for row in read.rows("Orders"):
        for quantity in ("rebuilds", "hit", "window faults/rebuild", "accesses/s"):
            found[row["order"], quantity]["orders"] = row[quantity]
    for row in read.rows("Invalid window"):
        found[row["order"], "rebuilds"]["windows"] = row["rebuilds"]
        for quantile in ("p50", "p90", "p99", "max"):
            found[row["order"], f"window {quantile}"]["windows"] = row[quantile]
    for row in read.rows("Stalls by class of fault"):
        for quantile in ("p50", "p90", "p99", "max"):
            found[row["order"], f"{row['class']} stall {quantile}"]["stalls"] = row[quantile]
    ratios, baseline = next((name, name.removeprefix("Ratios over ")) for name in read.tables if "Ratios" in name)
    for row in read.rows(ratios):
        quantity = DIVIDED[row["metric"]]
        found[row["order"], quantity]["ratios"] = row["its figure"]
        found[baseline, quantity][f"ratios, {row['order']}"] = row[baseline]
        found[row["order"], f"ratio of {quantity}"]["ratios"] = row["ratio [95% interval]"]
    for sentence in read.findings:
        told = re.fullmatch(r"(.*?): (.*?) ([\d.]+x \[.*\]) that of (.*) \((.*) against (.*)\).*", sentence)
        if told:
            order, metric, ratio, _, value, other = told.groups()
            found[order, f"ratio of {DIVIDED[metric]}"]["sentence"] = ratio
            found[order, DIVIDED[metric]]["sentence"] = value.removesuffix("/s")
            found[baseline, DIVIDED[metric]][f"sentence, {order}"] = other.removesuffix("/s")
    for what, _, points in distributions(page):
        name = "window" if what == "invalid window" else f"{what.split()[2]} stall"
        for point in points:
            found[point["order"], f"{name} {point['quantile']}"]["points"] = point["time"]
    return found


def test_a_figure_is_the_same_wherever_it_stands() -> None:
    page = render([Stored("run.json", document=DOCUMENTS["compared"])])
    found = figures(page)
    several = {where: places for where, places in found.items() if len(places) > 1}
    # Of three orders: four of the table, four quantiles of windows and of each of four classes of stalls; four ratios.
    assert len(several) == 3 * (4 + 4 + 4 * 4) + 4
    assert {where: places for where, places in several.items() if len(set(places.values())) > 1} == {}


@pytest.mark.parametrize("name", ["compared", "staged"])
def test_every_point_lies_on_the_line_of_its_order(name: str) -> None:
    drawn = 0
    for _, lines, points in distributions(render([Stored("run.json", document=DOCUMENTS[name])])):
        vertices = [[(vertex["ns"], vertex["share"]) for vertex in line] for line in lines]
        for line in vertices:
            shares = [share for _, share in sorted(line)]
            assert shares == sorted(shares)
        orders = list(dict.fromkeys(point["order"] for point in points))
        assert len(orders) == len(vertices)
        for point in points:
            assert (point["ns"], point["share"]) in vertices[orders.index(point["order"])]
            drawn += 1
    assert drawn > 20
