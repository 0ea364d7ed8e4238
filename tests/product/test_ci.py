"""What a CI system is told: JUnit XML of the right structure, and GitHub's annotations."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from commands import Command, FakeExecutor, command_line, refused
from suites import made_up, suite_in
from synthetic import head_to_head

from stress.cli.ci import workflow_commands
from stress.errors import ExitCode, MachineError
from stress.results.checks import Check, Status, of_document
from stress.results.data import Violation
from stress.results.document import build
from stress.results.junit import junit

#: Ant's schema (JUnit.xsd) and Jenkins' (junit-10.xsd) together: required attributes, all attributes, and the sequence
#: of children; ``?`` at most one, ``*`` any number.
SCHEMA = {
    "testsuites": ("", "name tests failures errors time", "testsuite*"),
    "testsuite": (
        "id package name hostname timestamp tests failures errors time",
        "id package name hostname timestamp tests failures errors time skipped",
        "properties testcase* system-out system-err",
    ),
    "properties": ("", "", "property*"),
    "property": ("name value", "name value", ""),
    "testcase": ("classname name time", "classname name time", "skipped? error? failure?"),
    "failure": ("type", "type message", ""),
    "error": ("type", "type message", ""),
    "skipped": ("", "message", ""),
    "system-out": ("", "", ""),
    "system-err": ("", "", ""),
}


def valid(element: ET.Element) -> None:
    """Fail unless the element and all below it are as the schemas want them."""
    required, allowed, children = SCHEMA[element.tag]
    assert set(required.split()) <= element.attrib.keys() <= set(allowed.split()), element.tag
    pattern = "".join(f"({each.rstrip('?*')} ){each[len(each.rstrip('?*')) :]}" for each in children.split())
    assert re.fullmatch(pattern, "".join(f"{child.tag} " for child in element)), element.tag
    for child in element:
        valid(child)


def cases(path: Path) -> dict[str, tuple[str, str]]:
    """Of each test case by name: the element in it with its type, and its message."""
    root = ET.fromstring(path.read_bytes())
    valid(root)
    (suite,) = root
    found = {}
    for case in suite.iter("testcase"):
        (about,) = [*case] or [ET.Element("passed")]
        assert case.get("classname", "") == str(suite.get("name")).replace(" ", ".")
        found[case.get("name", "")] = (f"{about.tag} {about.get('type', '')}".strip(), about.get("message", ""))
    for attribute, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert suite.get(attribute) == str(len(list(suite.iter(tag))))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp", ""))
    return found


@pytest.fixture
def stress(capsys: pytest.CaptureFixture[str]) -> Command:
    return command_line(capsys)


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> FakeExecutor:
    return FakeExecutor.installed(monkeypatch)


@pytest.fixture
def on_github(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return tmp_path / "junit.xml"


def test_a_comparison_has_a_case_per_order(executor: FakeExecutor, stress: Command, report: Path) -> None:
    code, out, err = stress("compare", "unmap-first", "block-first", "--ci", f"junit={report}")
    assert code == 0, err
    assert cases(report) == {"unmap-first": ("passed", ""), "block-first": ("passed", "")}
    assert "::" not in out + err


@pytest.mark.usefixtures("on_github")
def test_a_run_that_failed_is_told_too(executor: FakeExecutor, stress: Command, report: Path) -> None:
    executor.raises = MachineError("/dev/shm is too small: 50% of it,\nsay")
    code, out, _ = stress("run", "--order", "block-first", "--ci", f"junit={report}")
    assert (code, out) == (
        ExitCode.MACHINE,
        "::error title=stress run%3A stress run::/dev/shm is too small: 50%25 of it, say\n",
    )
    assert cases(report) == {"stress run": ("error machine", "/dev/shm is too small: 50% of it, say")}
    code, out, _ = stress("run", "--vcpus", "0", "--ci", f"junit={report}")
    assert code == ExitCode.USAGE
    ((name, (kind, message)),) = cases(report).items()
    assert (name, kind) == ("stress run", "error usage")
    assert "--vcpus" in message
    assert "--vcpus" in out
    executor.raises = ZeroDivisionError("\x00")
    assert stress("run", "--ci", f"junit={report}")[0] == ExitCode.BROKEN
    assert cases(report) == {"stress run": ("error internal-error", "ZeroDivisionError: \\x00")}


@pytest.mark.usefixtures("on_github")
def test_annotations_never_stand_in_a_document(executor: FakeExecutor, stress: Command) -> None:
    executor.complete, executor.exit_code = False, ExitCode.INTERRUPTED
    code, out, err = stress("run", "--json")
    assert (code, json.loads(out)["verdict"]) == (ExitCode.INTERRUPTED, "interrupted")
    assert "\n::error title=stress run%3A block-first::no verdict, interrupted\n" in err
    code, out, err = stress("run")
    assert "\n::error title=stress run%3A block-first::no verdict, interrupted\n" in out
    assert "::" not in err


@pytest.mark.usefixtures("on_github")
def test_every_verdict_of_the_gate(
    stress: Command, tmp_path: Path, report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, baseline = made_up(monkeypatch), str(tmp_path / "baseline.json")
    common = ("bench", "--suite", str(suite_in(tmp_path)), "--ci", f"junit={report}")
    code, out, _ = stress(*common, "--save-baseline", baseline)
    assert (code, "::error" in out) == (ExitCode.OK, False)
    assert {kind for kind, _ in cases(report).values()} == {"skipped"}
    code, out, _ = stress(*common, "--baseline", baseline)
    assert (code, "::error" in out) == (ExitCode.OK, False)
    assert {*cases(report).values()} == {("passed", "")}
    figure = "no-fwb: window of block-first"
    answer["samples"][figure] = [9.0]
    code, out, _ = stress(*common, "--baseline", baseline)
    assert code == ExitCode.CHECK_FAILED
    kind, message = cases(report)[figure]
    assert (kind, message.split(": 2.51")[0]) == ("failure regression", f"REGRESSION {figure}")
    (line,) = re.findall(r"^::error .*$", out, re.M)
    assert line.startswith(
        "::error title=stress bench%3A no-fwb%3A window of block-first::REGRESSION no-fwb: window of"
    )
    assert "worse by 258.2%25 (limit 10%25" in line
    assert sorted(kind for kind, _ in cases(report).values()) == ["failure regression", "passed", "passed"]


def test_what_is_undecided_or_missing_is_no_pass(
    stress: Command, tmp_path: Path, report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stress.bench import measure

    answer, baseline = made_up(monkeypatch), str(tmp_path / "baseline.json")
    common = ("bench", "--suite", str(suite_in(tmp_path)), "--ci", f"junit={report}")
    stress(*common, "--save-baseline", baseline)
    figure = "no-fwb: window of block-first"
    launches = iter([(2.0, True), (3.5, True), (3.5, True), (3.5, True), (2.5, True), (2.5, False)])

    def launch(*_: object, **__: object) -> str:
        ratio, whole = next(launches)
        return json.dumps(answer | {"samples": answer["samples"] | {figure: [ratio]}, "complete": whole})

    monkeypatch.setattr(measure, "_process", launch)
    assert stress(*common, "--baseline", baseline)[0] == ExitCode.BROKEN
    assert cases(report)[figure][0] == "error undecided"
    assert stress(*common, "--baseline", baseline)[0] == ExitCode.BROKEN
    kinds = {name: kind for name, (kind, _) in cases(report).items()}
    assert kinds.pop("1 of 4 launches") == "error broken"
    assert set(kinds.values()) == {"skipped"}
    assert stress(*common, "--baseline", str(tmp_path / "none.json"))[0] == ExitCode.USAGE
    assert cases(report)["stress bench"][0] == "error usage"


def test_verdicts_of_documents() -> None:
    """Which of two orders broke the table they share is not known; what was not tested is no pass."""
    data = head_to_head(np.random.default_rng(1), rebuilds=20)
    data.violations = [Violation("bbm", 9, [{"detail": "old\nnew"}])]
    checks = of_document(build(data))
    assert {(each.status, each.kind) for each in checks} == {(Status.FAILED, "violations")}
    assert checks[0].message.startswith("the oracle found bbm 9 in a run of unmap-first, block-first (seed ")
    assert "\n" not in checks[0].detail
    (line,) = workflow_commands("compare", checks)
    assert line.startswith("::error title=stress compare%3A unmap-first%2C block-first::the oracle found bbm 9")
    data.violations = []
    data.untested = ("no rebuild by block-first", "no overlap")
    (check, _) = of_document(build(data))
    assert (check.status, check.kind) == (Status.ERROR, "nothing-tested")
    assert check.message == "no verdict, nothing-tested: no rebuild by block-first; no overlap"
    data.failure = {"process": "vcpu 1", "what": "died"}
    assert of_document(build(data))[0].message == "no verdict, broken: process vcpu 1, what died"


def test_hostile_words_end_neither_a_line_nor_the_document(tmp_path: Path) -> None:
    words = "a,b:c\r\n::warning::x%0A </failure>]]>\x00\x1b\ud800\ufffe\U0001f600"
    check = Check(words, Status.FAILED, "violations", words, words)
    (line,) = workflow_commands("run", [check])
    assert "\n" not in line
    assert "\r" not in line
    assert line.startswith("::error title=stress run%3A a%2Cb%3Ac%0D%0A%3A%3Awarning%3A%3Ax%250A ")
    assert "::a,b:c%0D%0A::warning::x%250A" in line
    root = ET.fromstring(junit("run", [check], 1.0))
    valid(root)
    (failure,) = root.iter("failure")
    assert failure.text == "a,b:c\n\n::warning::x%0A </failure>]]>\\x00\\x1b\\ud800\\ufffe\U0001f600".replace(
        "\n\n", "\n"
    )


def test_where_the_report_cannot_go(executor: FakeExecutor, stress: Command, tmp_path: Path) -> None:
    assert "no directory" in refused(stress("run", "--ci", f"junit={tmp_path}/none/x.xml"))
    for value in ("x.xml", "junit=", "tap=x"):
        assert "is not junit=FILE" in refused(stress("run", "--ci", value))
    same = str(tmp_path / "x")
    assert "would replace" in refused(stress("run", "--ci", f"junit={same}", "--output", same))
    assert not executor.configs
    # The run's own verdict is worth more than that it cannot be told.
    code, out, err = stress("run", "--ci", "junit=/dev/full")
    assert (code, out.split(":")[0]) == (ExitCode.BROKEN, "CORRECT")
    assert "no space left" in err
    executor.exit_code = ExitCode.CHECK_FAILED
    assert stress("run", "--ci", "junit=/dev/full")[0] == ExitCode.CHECK_FAILED


def test_no_exit_code_comes_with_a_report_of_passed_alone(
    executor: FakeExecutor, stress: Command, report: Path
) -> None:
    code, _, _ = stress("run", "--output", "/dev/full", "--ci", f"junit={report}")
    assert code == ExitCode.BROKEN
    found = cases(report)
    assert found["block-first"] == ("passed", "")
    assert found["stress run"] == ("error broken", "it ended with exit code 4; standard error says why")


@pytest.mark.timeout(200)
def test_a_real_violation_on_github(report: Path) -> None:
    command = ["run", "--order", "block-first", "--inject", "missing-tlbi", "--block-size", "2M", "--duration", "2s"]
    done = subprocess.run(
        [sys.executable, "-m", "stress", *command, "--ci", f"junit={report}"],
        env={**os.environ, "GITHUB_ACTIONS": "true"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == ExitCode.CHECK_FAILED, done.stderr
    kind, message = cases(report)["block-first"]
    assert kind == "failure violations"
    assert f"::error title=stress run%3A block-first::{message}\n" in done.stdout
