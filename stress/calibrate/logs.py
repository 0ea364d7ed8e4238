"""Logs of KVM's selftests, as they or ``stress run`` print them: the options of a run, and how long its stages took.

Formats: tools/testing/selftests/kvm/kvm_page_table_test.c and dirty_log_perf_test.c, Linux 5.11 to 6.12. The former
prints its options; the latter leaves out vCPUs and backing, which the command line has, or a TOML file beside the log.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Final, NoReturn

from stress.arch.geometry import MEMSLOT_BASE
from stress.config import RunConfig, Scenario
from stress.config.loading import ConfigError, Source, of_options, resolved, run_table, spelled
from stress.config.run_keys import MAX_NS, SECOND_NS
from stress.errors import UsageError, shown
from stress.reading import read_bytes
from stress.units import format_duration

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

_COUNT: Final = re.compile(r"(?P<value>[0-9]{1,19})")
_BYTES: Final = re.compile(r"(?P<value>0x[0-9a-fA-F]{1,16})")

#: Lines that state an option: key -> the words before its value, the value's pattern, and an example of it.
_OPTIONS: Final = {
    "mode": (
        "Testing guest mode:",
        re.compile(r"PA-bits:(?:ANY|[345][0-9]),\s*VA-bits:[0-9]{2},\s*(?P<granule>[0-9]{1,2})K pages"),
        "PA-bits:40,  VA-bits:48,  4K pages",
    ),
    "backing": ("Testing memory backing src type:", re.compile(r"(?P<value>\S+)"), "anonymous_thp"),
    "memory": ("Testing memory size(aligned):", _BYTES, "0x40000000"),
    "phys-offset": ("Guest physical test memory offset:", _BYTES, "0xffc0000000"),
    "vcpus": ("Number of testing vCPUs:", _COUNT, "4"),
    "iterations": ("Test iterations:", _COUNT, "2"),
    "range": (
        "guest physical test memory:",
        re.compile(r"\[(?P<start>0x[0-9a-fA-F]{1,16}), (?P<end>0x[0-9a-fA-F]{1,16})\)"),
        "[0xfebffff000, 0xfffffff000)",
    ),
}

#: Lines that state how long a stage took: its name in a result -> the words before the time.
_TIMES: Final = {
    "KVM_CREATE_MAPPINGS": re.compile(r"KVM_CREATE_MAPPINGS: total execution time:(?P<time>.*)"),
    "KVM_UPDATE_MAPPINGS": re.compile(r"KVM_UPDATE_MAPPINGS: total execution time:(?P<time>.*)"),
    "KVM_ADJUST_MAPPINGS": re.compile(r"KVM_ADJUST_MAPPINGS: total execution time:(?P<time>.*)"),
    "populate": re.compile(r"Populate memory time:(?P<time>.*)"),
    "enable": re.compile(r"Enabling dirty logging time:(?P<time>.*)"),
    "dirty": re.compile(r"Iteration (?P<iteration>\S+) dirty memory time:(?P<time>.*)"),
    "get-dirty-log": re.compile(r"Iteration (?P<iteration>\S+) get dirty log time:(?P<time>.*)"),
    "clear-dirty-log": re.compile(r"Iteration (?P<iteration>\S+) clear dirty log time:(?P<time>.*)"),
    "disable": re.compile(r"Disabling dirty logging time:(?P<time>.*)"),
}
_TIME: Final = re.compile(r"([0-9]{1,9})\.([0-9]{9})s")
_COMMA: Final = re.compile(r"[0-9]+,[0-9]+\s*s?")

#: Keys that decide a prediction and that no selftest prints -> their names in "assumed ..." if no option gives them.
_UNSAID: Final = {"orders": "order", "locking": "locking", "fwb": "FWB", "cmo": "cmo"}


@dataclass(frozen=True, slots=True)
class Stage:
    """How long a stage took, and the line that says so. Iterations count from 1; 0 where there are none."""

    name: str
    iteration: int
    ns: int
    line: int
    #: The fraction of the time that the model does not cover; None: the one of all stages of this name.
    uncertain: float | None = None

    @property
    def title(self) -> str:
        """The stage's name, with its iteration if it has one."""
        return f"{self.name} {self.iteration}" if self.iteration else self.name


@dataclass(frozen=True, slots=True)
class Log:
    """One run: a configuration with one order, and its stages."""

    name: str
    config: RunConfig
    stages: tuple[Stage, ...]
    #: Keys that neither log nor options gave, each with the value assumed, in words.
    assumed: tuple[str, ...]
    #: The TOML file in which they can be given.
    beside: Path
    #: The function that plays the run in virtual time, if that is no pass of its scenario.
    played_by: Play | None = None


@dataclass(slots=True)
class _Run:
    """A run of which some lines have been read."""

    line: int
    order: str = ""
    said: dict[str, re.Match[str]] = field(default_factory=dict)
    #: The number of the line that states each option.
    lines: dict[str, int] = field(default_factory=dict)
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


def _runs(path: Path, lines: Sequence[str], read_options: ReadOptions) -> tuple[list[_Run], Source]:
    """The runs of a log, which are several only where each says its order, and the options of a command line."""
    runs, command = [_Run(1)], Source({})
    for number, line in enumerate(lines, start=1):
        run = runs[-1]
        if match := _ORDER.search(line):
            if run.stages or run.said or run.order:
                run = _Run(number)
                runs.append(run)
            run.order = match[1]
        elif match := _COMMAND.search(line):
            if command.values or run.said or run.stages:
                _two_runs(path, number)
            command = Source(_command(path, number, match, read_options), _at(path, number))
        else:
            for key, (label, pattern, example) in _OPTIONS.items():
                if (at := line.lower().find(label.lower())) >= 0:
                    if key in run.said:
                        _two_runs(path, number)
                    text = line[at + len(label) :].strip()
                    if (match := pattern.fullmatch(text)) is None:
                        _no_value(path, number, text, f"value of {key} such as {example}", is_last=number == len(lines))
                    run.said[key], run.lines[key] = match, number
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


def _at(path: Path, line: int) -> Callable[[str], str]:
    """How an error names a key that a line of a log says."""
    return lambda key: f"{path}, line {line}: {key}"


def _no_value(path: Path, line: int, text: str, what: str, is_last: bool) -> NoReturn:
    if is_last:
        _wrong(path, line, "the log is cut off here", "give all that the test printed")
    _wrong(path, line, f"{shown(text[:40])} is no {what}", "give what the test printed")


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
    if match["name"] == _DIRTY_LOG_PERF:  # the letters of that test
        given = {"vcpus": 1, "backing": "anonymous", "memory": "1G"} | given
    return given | ({"scenario": scenarios[match["name"]]} if match["name"] in scenarios else {})


def _stage(path: Path, line: int, name: str, match: re.Match[str], is_last: bool) -> Stage:
    text = match["time"].strip()
    time = _TIME.fullmatch(text)
    if time is None or int(time[1]) * SECOND_NS > MAX_NS:
        if _COMMA.fullmatch(text):
            _wrong(path, line, f"{text[:40]} has a decimal comma", "write a point, or test with LC_ALL=C")
        most = f", at most {format_duration(MAX_NS)}" if time else ""
        _no_value(path, line, text, f"time such as 1.234567890s{most}", is_last and not time)
    iteration = 0
    if "iteration" in match.re.groupindex:
        count = _COUNT.fullmatch(match["iteration"])
        iteration = int(count[0]) if count else 0
        if iteration == 0:
            _no_value(path, line, match["iteration"], "iteration such as 1", is_last=False)
    return Stage(name, iteration, int(time[1]) * SECOND_NS + int(time[2]), line)


def _log(
    path: Path,
    run: _Run,
    end: int,
    command: Source,
    file: Path | None,
    given: Mapping[str, Any],
    defaults: Mapping[str, Any],
    several: bool,
) -> Log:
    """The log of a run, its options from everywhere."""
    problems: list[str] = []
    table = run_table(file, problems) if file else {}
    if problems:
        raise ConfigError([f"{file}: {each}" for each in problems], "put it right")
    known = dict(command.values) | ({"orders": [run.order]} if run.order else {})
    said = _said(path, run, {**known, **table, **given})
    printed = Source(said, lambda key: _at(path, run.lines.get(key, run.line))(key))
    options = _kept(given)
    order = Source({"orders": [run.order]} if run.order else {}, _at(path, run.line))
    stronger = [order, Source(table, _positions(file) if file else str), of_options(options)]
    try:
        config = resolved([command, printed, *stronger], defaults)
        if command.values:
            _check_agreed(path, run, command, resolved([printed, command, *stronger], defaults), config)
    except ConfigError as error:
        named = [each if each.startswith((str(path), str(file))) else f"{path}: {each}" for each in error.problems]
        raise ConfigError(named, "write it as it was in the run (stress predict --help)") from None
    _check_whole(path, run, end)
    unsaid = [key for key in _UNSAID if not {key, "order" if key == "orders" else key} & {*known, *table, *options}]
    if len(config.orders) > 1:
        raise UsageError(f"{path}: {len(config.orders)} orders for one run", "say one with --order")
    assumed = {"orders": config.orders[0], "locking": config.locking, "fwb": config.fwb, "cmo": config.cmo}
    texts = tuple(f"{_UNSAID[key]} {_word(assumed[key])}" for key in unsaid)
    name = f"{path} ({run.order})" if several else str(path)
    return Log(name, config, tuple(run.stages), texts, path.with_suffix(".toml"))


def _positions(file: Path) -> Callable[[str], str]:
    """How an error names a key of the table [run] in a TOML file."""
    lines = read_bytes(file).decode().splitlines()

    def at(key: str) -> str:
        written = re.compile(rf"(?<![\w-])[\"']?{re.escape(key)}[\"']?\s*=")
        number = next((f", line {number}" for number, line in enumerate(lines, 1) if written.search(line)), "")
        return f"{file}{number}: run.{spelled(key)}"

    return at


def _check_agreed(path: Path, run: _Run, command: Source, asked: RunConfig, printed: RunConfig) -> None:
    """Raise `UsageError` if the command line asked for another run than the lines below it are of."""
    for key in ("vcpus", "iterations", "backing", "memory"):
        if key in command.values and key in run.said:
            there, told = getattr(printed, key), getattr(asked, key)
            if told > there if key == "memory" else told != there:  # memory is aligned
                words = f"{key} is {there} here, and {told} on the command line"
                _wrong(path, run.lines[key], words, "give each run a file of its own")


def _word(value: object) -> str:
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _kept(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("_", "-"): value for key, value in options.items() if value is not None}


def _said(path: Path, run: _Run, stated: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that a run's own lines state; ``stated`` are those known from elsewhere."""
    found: dict[str, Any] = {"scenario": Scenario.DIRTY_LOG_PERF if run.is_dirty_log else Scenario.PAGE_TABLE_TEST}
    said = run.said
    if "mode" in said:
        # The width of IPAs decides where memory lies, and nothing of what it costs.
        found |= {"granule": int(said["mode"]["granule"]) << 10, "ipa-bits": 48}
        run.lines["granule"] = run.lines["ipa-bits"] = run.lines["mode"]
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
                f"no options: no line {_OPTIONS[missing[0]][0].rstrip(':')!r}",
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
    if "range" in said:
        size = int(said["range"]["end"], 16) - int(said["range"]["start"], 16)
        if size <= 0:
            _wrong(path, run.lines["range"], f"a range of {size} bytes", "give what the test printed")
        if "memory" not in stated:
            vcpus = stated["vcpus"]
            found["memory"] = size // vcpus if isinstance(vcpus, int) and vcpus > 0 else size
            run.lines["memory"] = run.lines["range"]
    return found


def _check_whole(path: Path, run: _Run, end: int) -> None:
    """Raise `UsageError` unless every stage of a run is there, and none is too many."""
    there = {(stage.name, stage.iteration) for stage in run.stages}
    count = max((each for _, each in there), default=1)
    wanted: Iterable[tuple[str, int]] = ((name, 0) for name in _TIMES if name.startswith("KVM_"))
    if run.is_dirty_log:
        if "iterations" in run.said:
            count = int(run.said["iterations"]["value"])
        rounds = ((name, number) for number in range(1, count + 1) for name in ("dirty", "get-dirty-log"))
        wanted = chain((("populate", 0), ("enable", 0)), rounds, (("disable", 0),))
    for stage in run.stages:
        if stage.iteration > count:
            _wrong(path, stage.line, f"iteration {stage.iteration} of {count}", "give what the test printed")
    for name, iteration in wanted:  # ends at the first that is missing, however many the log claims
        if (name, iteration) not in there:
            last = run.stages[-1].line if run.stages else end
            what = Stage(name, iteration, 0, 0).title
            _wrong(
                path, max(last, 1), f"the log is cut off: no time of {what} follows", "give all that the test printed"
            )
