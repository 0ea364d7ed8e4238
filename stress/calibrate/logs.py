"""Logs of KVM's selftests, as they or ``stress run`` print them: the options of a run, and how long its stages took.

Formats: tools/testing/selftests/kvm/kvm_page_table_test.c and dirty_log_perf_test.c, Linux 5.11 to 6.12. The former
prints its options; the latter leaves out vCPUs and backing, which the command line has, or a TOML file beside the log.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

from stress.arch.geometry import MEMSLOT_BASE
from stress.config import RunConfig, Scenario, from_sources
from stress.config.loading import load_toml
from stress.errors import UsageError
from stress.reading import read_bytes

#: Reads the words behind the name of one of our commands, whose letters are the selftests', into keys of a
#: configuration (``block-size``); raises `UsageError`.
ReadOptions = Callable[[str, Sequence[str]], Mapping[str, Any]]

#: Plays the stages of a configuration under an order, as `stress.predict.passes.PASSES` do.
Play = Callable[..., Any]

_PAGE_TABLE_TEST: Final = "kvm_page_table_test"
_DIRTY_LOG_PERF: Final = "dirty_log_perf_test"

#: A command's name at the line's begin, behind a prompt or at the end of a path, and its options.
_COMMAND: Final = re.compile(
    rf"(?:^|[\s/])(?P<name>{_PAGE_TABLE_TEST}|{_DIRTY_LOG_PERF}|stress (?P<ours>run|compare|predict))"
    r"(?P<options>(?:\s.*)?)$"
)
_ORDER: Final = re.compile(r"^Under (\S+):$")

#: Lines that say an option: key -> pattern.
_OPTIONS: Final = {
    "mode": re.compile(r"Testing guest mode: PA-bits:(?P<bits>\w+),\s*VA-bits:\d+,\s*(?P<granule>\d+)K pages"),
    "backing": re.compile(r"Testing memory backing src type: (?P<value>\S+)"),
    "memory": re.compile(r"Testing memory size\(aligned\): (?P<value>0x[0-9a-fA-F]+)"),
    "phys-offset": re.compile(r"Guest physical test memory offset: (?P<value>0x[0-9a-fA-F]+)"),
    "vcpus": re.compile(r"Number of testing vCPUs: (?P<value>\d+)"),
    "iterations": re.compile(r"Test iterations: (?P<value>\d+)"),
    "range": re.compile(
        r"guest physical test memory: \[(?P<start>0x[0-9a-fA-F]+), (?P<end>0x[0-9a-fA-F]+)\)", re.IGNORECASE
    ),
}

#: Lines that say how long a stage took: its name in a result -> what stands before the time.
_TIMES: Final = {
    "KVM_CREATE_MAPPINGS": re.compile(r"KVM_CREATE_MAPPINGS: total execution time:(?P<time>.*)"),
    "KVM_UPDATE_MAPPINGS": re.compile(r"KVM_UPDATE_MAPPINGS: total execution time:(?P<time>.*)"),
    "KVM_ADJUST_MAPPINGS": re.compile(r"KVM_ADJUST_MAPPINGS: total execution time:(?P<time>.*)"),
    "populate": re.compile(r"Populate memory time:(?P<time>.*)"),
    "enable": re.compile(r"Enabling dirty logging time:(?P<time>.*)"),
    "dirty": re.compile(r"Iteration (?P<iteration>\d+) dirty memory time:(?P<time>.*)"),
    "get-dirty-log": re.compile(r"Iteration (?P<iteration>\d+) get dirty log time:(?P<time>.*)"),
    "clear-dirty-log": re.compile(r"Iteration (?P<iteration>\d+) clear dirty log time:(?P<time>.*)"),
    "disable": re.compile(r"Disabling dirty logging time:(?P<time>.*)"),
}
_TIME: Final = re.compile(r"\s*(\d{1,9})\.(\d{9})s")
_COMMA: Final = re.compile(r"\s*\d+,\d+\s*s?")

#: What decides a prediction and no selftest prints; what is assumed if nobody says it, in words.
_UNSAID: Final = {"orders": "order", "locking": "locking", "fwb": "FWB", "cmo": "cmo"}


@dataclass(frozen=True, slots=True)
class Stage:
    """How long a stage took, and the line that says so. Iterations count from 1; 0 where there are none."""

    name: str
    iteration: int
    ns: int
    line: int
    #: The fraction of it that is no business of the model, if that is known better than from its name.
    uncertain: float | None = None

    @property
    def title(self) -> str:
        """As people read it."""
        return f"{self.name} {self.iteration}" if self.iteration else self.name


@dataclass(frozen=True, slots=True)
class Log:
    """One run: a configuration with one order, and its stages."""

    name: str
    config: RunConfig
    stages: tuple[Stage, ...]
    #: What nobody said about the run: each key with what is assumed, in words.
    assumed: tuple[str, ...]
    #: Where it may be said.
    beside: Path
    #: What plays the run in virtual time, if that is no pass of its scenario.
    played_by: Play | None = None


@dataclass(slots=True)
class _Run:
    """A run as far as it is read."""

    line: int
    order: str = ""
    said: dict[str, re.Match[str]] = field(default_factory=dict)
    stages: list[Stage] = field(default_factory=list)

    @property
    def is_dirty_log(self) -> bool:
        return "iterations" in self.said or any(not stage.name.startswith("KVM_") for stage in self.stages)


def read_logs(
    paths: Sequence[Path], given: Mapping[str, Any], defaults: Mapping[str, Any], read_options: ReadOptions
) -> list[Log]:
    """The runs in ``paths``, each with the options that it says, or a TOML file beside it with the suffix changed.

    ``given`` are options that overrule them for every log, ``defaults`` what is assumed. Raises `UsageError` with the
    line and the remedy for a log that cannot be used.
    """
    return [log for path in paths for log in _read(path, given, defaults, read_options)]


def _read(path: Path, given: Mapping[str, Any], defaults: Mapping[str, Any], read_options: ReadOptions) -> list[Log]:
    try:
        lines = read_bytes(path).decode(errors="replace").splitlines()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "name what a selftest printed") from None
    runs, command = _runs(path, lines, read_options)
    beside = path.with_suffix(".toml")
    file = beside if beside.is_file() and beside != path else None
    return [_log(path, run, len(lines), command, file, given, defaults, several=len(runs) > 1) for run in runs]


def _wrong(path: Path, line: int, what: str, remedy: str) -> NoReturn:
    raise UsageError(f"{path}, line {line}: {what}", remedy)


def _runs(path: Path, lines: Sequence[str], read_options: ReadOptions) -> tuple[list[_Run], dict[str, Any]]:
    """The runs of a log, which are several only where each says its order, and the options of a command line."""
    runs, command = [_Run(1)], dict[str, Any]()
    for number, line in enumerate(lines, start=1):
        run = runs[-1]
        if match := _ORDER.search(line):
            if run.stages or run.said or run.order:
                run = _Run(number)
                runs.append(run)
            run.order = match[1]
        elif match := _COMMAND.search(line):
            if command or run.said or run.stages:
                _two_runs(path, number)
            command = _command(path, number, match, read_options)
        else:
            for key, pattern in _OPTIONS.items():
                if match := pattern.search(line):
                    if key in run.said:
                        _two_runs(path, number)
                    run.said[key] = match
            for name, pattern in _TIMES.items():
                if match := pattern.search(line):
                    stage = _stage(path, number, name, match, is_last=number == len(lines))
                    if any((each.name, each.iteration) == (name, stage.iteration) for each in run.stages):
                        _two_runs(path, number)
                    run.stages.append(stage)
    if not any(run.said or run.stages for run in runs):
        raise UsageError(
            f"{path} holds no line of {_PAGE_TABLE_TEST} or {_DIRTY_LOG_PERF}", "give all that one of them printed"
        )
    return runs, command


def _two_runs(path: Path, line: int) -> NoReturn:
    _wrong(path, line, "a second run begins", "give each run a file of its own")


def _command(path: Path, line: int, match: re.Match[str], read_options: ReadOptions) -> dict[str, Any]:
    try:
        given = dict(read_options(match["ours"] or "run", shlex.split(match["options"], comments=True)))
    except UsageError as error:
        _wrong(path, line, error.message, error.remedy or "write the command line as it was")
    except ValueError as error:  # a quotation that does not end
        _wrong(path, line, f"no command line: {error}", "write it as it was")
    if "order" in given:
        given["orders"] = [given.pop("order")]
    scenarios = {_PAGE_TABLE_TEST: Scenario.PAGE_TABLE_TEST, _DIRTY_LOG_PERF: Scenario.DIRTY_LOG_PERF}
    if match["name"] == _DIRTY_LOG_PERF:  # as that test has them
        given = {"vcpus": 1, "backing": "anonymous", "memory": "1G"} | given
    return given | ({"scenario": scenarios[match["name"]]} if match["name"] in scenarios else {})


def _stage(path: Path, line: int, name: str, match: re.Match[str], is_last: bool) -> Stage:
    time = _TIME.match(match["time"])
    if time is None:
        if _COMMA.match(match["time"]):
            _wrong(path, line, f"{match['time'].strip()} has a decimal comma", "write a point, or test with LC_ALL=C")
        if is_last:
            _wrong(path, line, "the log is cut off here", "give all that the test printed")
        _wrong(
            path, line, f"{match['time'].strip()[:40]!r} is no time such as 1.234567890s", "give what the test printed"
        )
    iteration = int(match["iteration"]) if "iteration" in match.re.groupindex else 0
    return Stage(name, iteration, int(time[1]) * 10**9 + int(time[2]), line)


def _log(
    path: Path,
    run: _Run,
    end: int,
    command: Mapping[str, Any],
    file: Path | None,
    given: Mapping[str, Any],
    defaults: Mapping[str, Any],
    several: bool,
) -> Log:
    """The log of a run, its options from everywhere."""
    name = f"{path} ({run.order})" if several else str(path)
    table = load_toml(file).get("run", {}) if file else {}
    said = dict(command) | ({"orders": [run.order]} if run.order else {})
    stated = said | (dict(table) if isinstance(table, Mapping) else {})
    said |= _said(path, run, {**stated, **given})
    _check_whole(path, run, end, said)
    unsaid = [
        key for key in _UNSAID if not {key, "order" if key == "orders" else key} & {*said, *stated, *_kept(given)}
    ]
    try:
        config = from_sources(file, _kept(given), {**defaults, **said})
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", error.remedy or "see stress predict --help") from None
    if len(config.orders) > 1:
        raise UsageError(f"{path}: {len(config.orders)} orders for one run", "say one with --order")
    assumed = {"orders": config.orders[0], "locking": config.locking, "fwb": config.fwb, "cmo": config.cmo}
    texts = tuple(f"{_UNSAID[key]} {_word(assumed[key])}" for key in unsaid)
    return Log(name, config, tuple(run.stages), texts, path.with_suffix(".toml"))


def _word(value: object) -> str:
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _kept(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("_", "-"): value for key, value in options.items() if value is not None}


def _said(path: Path, run: _Run, stated: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that a run's own lines say; ``stated`` are those known from elsewhere."""
    found: dict[str, Any] = {"scenario": Scenario.DIRTY_LOG_PERF if run.is_dirty_log else Scenario.PAGE_TABLE_TEST}
    said = run.said
    if "mode" in said:
        # The width of IPAs decides where memory lies, and nothing of what it costs.
        found |= {"granule": int(said["mode"]["granule"]) << 10, "ipa-bits": 48}
    for key in ("backing", "memory"):
        if key in said:
            found[key] = said[key]["value"]
    for key in ("vcpus", "iterations"):
        if key in said:
            found[key] = int(said[key]["value"])
    if "phys-offset" in said:
        # The selftest puts memory at the end of its IPA space; only where that lies within a block matters.
        found["phys-offset"] = MEMSLOT_BASE + int(said["phys-offset"]["value"], 16) % MEMSLOT_BASE
    if not run.is_dirty_log:
        missing = [key for key in ("mode", "backing", "memory", "vcpus") if key not in said]
        if missing and not {"backing", "memory", "vcpus"} <= {*stated, *found}:
            _wrong(
                path,
                run.line,
                f"no options: no line {_OPTIONS[missing[0]].pattern.partition(':')[0].replace(chr(92), '')!r}",
                f"give all that the test printed, or its options in {path.with_suffix('.toml')}",
            )
        return found
    lacking = [key for key in ("vcpus", "backing") if key not in stated]
    if lacking:
        _wrong(
            path,
            run.line,
            f"no options: {_DIRTY_LOG_PERF} does not print {' and '.join(lacking)}",
            f"put its command line before what it printed, or a table [run] with them in {path.with_suffix('.toml')}",
        )
    if "range" in said and "memory" not in stated:
        vcpus = stated["vcpus"]
        size = int(said["range"]["end"], 16) - int(said["range"]["start"], 16)
        found["memory"] = size // vcpus if isinstance(vcpus, int) and vcpus > 0 else size
    return found


def _check_whole(path: Path, run: _Run, end: int, said: Mapping[str, Any]) -> None:
    """Raise `UsageError` unless every stage of a run is there."""
    there = {(stage.name, stage.iteration) for stage in run.stages}
    if run.is_dirty_log:
        count = int(said["iterations"]) if "iterations" in said else max((each for _, each in there), default=1)
        rounds = [(name, number) for number in range(1, count + 1) for name in ("dirty", "get-dirty-log")]
        wanted = [("populate", 0), ("enable", 0), *rounds, ("disable", 0)]
    else:
        wanted = [(name, 0) for name in _TIMES if name.startswith("KVM_")]
    for name, iteration in wanted:
        if (name, iteration) not in there:
            last = run.stages[-1].line if run.stages else end
            what = Stage(name, iteration, 0, 0).title
            _wrong(
                path, max(last, 1), f"the log is cut off: no time of {what} follows", "give all that the test printed"
            )
