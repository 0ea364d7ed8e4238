"""Checks as JUnit XML, which CI systems read."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from xml.etree import ElementTree as ET

from stress import __version__
from stress.results.checks import Check, Status

#: Characters that XML 1.0 cannot hold, not even escaped.
_UNSPEAKABLE: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
#: Status -> the element that stands for it inside a test case; a passed check has none.
_ELEMENTS: Final = {Status.FAILED: "failure", Status.ERROR: "error", Status.SKIPPED: "skipped"}


def junit(command: str, checks: Sequence[Check], elapsed_s: float) -> bytes:
    """One test suite with a case per check, in the dialect that both Jenkins' schema and Ant's allow."""
    counted = {status: sum(each.status is status for each in checks) for status in Status}
    suite = {
        "tests": str(len(checks)),
        "failures": str(counted[Status.FAILED]),
        "errors": str(counted[Status.ERROR]),
        "time": f"{elapsed_s:.3f}",
    }
    root = ET.Element("testsuites", {"name": "stress", **suite})
    about = {"id": "0", "package": "stress", "name": f"stress {command}", "hostname": _speakable(socket.gethostname())}
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")  # the schemas know no time zone
    tests = ET.SubElement(
        root, "testsuite", {**about, "timestamp": now, **suite, "skipped": str(counted[Status.SKIPPED])}
    )
    ET.SubElement(ET.SubElement(tests, "properties"), "property", {"name": "version", "value": __version__})
    each_s = f"{elapsed_s / max(1, len(checks)):.3f}"
    for each in checks:
        case = {"classname": f"stress.{command}", "name": _speakable(each.name), "time": each_s}
        element = ET.SubElement(tests, "testcase", case)
        if each.status is Status.SKIPPED:
            ET.SubElement(element, "skipped", {"message": _speakable(each.message)})
        elif each.status in _ELEMENTS:
            told = {"type": each.kind, "message": _speakable(each.message)}
            ET.SubElement(element, _ELEMENTS[each.status], told).text = _speakable(each.detail or each.message)
    for name in ("system-out", "system-err"):
        ET.SubElement(tests, name)
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _speakable(text: str) -> str:
    return _UNSPEAKABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
