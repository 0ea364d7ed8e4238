"""``stress verify``: every interleaving of a small machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from stress.arch.bbm import HIGHEST
from stress.bugs import BUGS
from stress.cli.completion import bugs, completing, split_orders
from stress.cli.lists import table
from stress.cli.options import orders_argument
from stress.cli.output import emit, say
from stress.cli.result_options import OneOf, format_option
from stress.errors import ExitCode, UsageError
from stress.results import store
from stress.splits import BUILD_FIRST
from stress.units import format_ns, parse_duration
from stress.verify.showing import order_that_shows, settings_that_show

#: Kernels are stepped in their plain-Python form, which is chosen when they are imported.
_PLAIN: Final = "NUMBA_DISABLE_JIT"


@click.command()
@orders_argument("[ORDERS]...")
@click.option(
    "--scenario",
    type=OneOf(["rebuild", "faults", "split", "thp", "compaction", "migration", "relax"]),
    default="rebuild",
    show_default=True,
    help="What the hypervisor does",
)
@click.option("--vcpus", type=click.IntRange(1, 4), default=2, show_default=True, help="vCPUs")
@click.option("--pages", type=int, default=2, show_default=True, help="Pages of the block")
@click.option(
    "--populated", type=int, default=1, show_default=True, help="Pages that are mapped when the rebuild begins"
)
@click.option("--accesses", type=click.IntRange(1, 8), default=2, show_default=True, help="Accesses of each vCPU")
@click.option("--fwb/--no-fwb", default=None, help="FEAT_S2FWB  [default: off if the order cleans]")
@click.option(
    "--guest-caches/--no-guest-caches", default=None, help="The guest runs with its caches on  [default: as FWB]"
)
@click.option(
    "--bbm-level", type=click.IntRange(0, HIGHEST), default=None, help="FEAT_BBM level  [default: what it needs]"
)
@click.option(
    "--locking",
    type=OneOf(["exclusive", "shared"]),
    default="exclusive",
    show_default=True,
    help="How fault handlers take mmu_lock",
)
@click.option(
    "--rebuilder",
    type=OneOf(["hypervisor", "vcpu"]),
    default="hypervisor",
    show_default=True,
    help="Who rebuilds; with vcpu a fault does, too",
)
@click.option(
    "--recover",
    type=OneOf(["fault", "ioctl"]),
    default="fault",
    show_default=True,
    help="How a block comes back after dirty logging; with ioctl by who stops it (migration)",
)
@click.option(
    "--split-order",
    default=BUILD_FIRST.name,
    show_default=True,
    metavar="NAME",
    shell_complete=completing(split_orders),
    help="How a block is split: a name (stress orders) or steps",
)
@click.option(
    "--yield-every",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Entries after which a tear-down gives mmu_lock up; 0: it never does",
)
@click.option(
    "--batch", type=click.IntRange(1, 4), default=1, show_default=True, help="Blocks that are rebuilt together"
)
@click.option("--granule", default="64K", show_default=True, metavar="SIZE", help="Translation granule")
@click.option(
    "--inject",
    type=OneOf([*BUGS]),
    default=None,
    shell_complete=completing(bugs),
    help="Put in this bug; what is left out, ORDERS too, is what shows it",
)
@click.option(
    "--memory", type=OneOf(["sc", "tso"]), default="tso", show_default=True, help="Memory model of the kernels' stores"
)
@click.option("--speculation/--no-speculation", default=True, show_default=True, help="A vCPU's walker fills its TLB")
@click.option(
    "--speculating",
    type=click.IntRange(1, 4),
    default=1,
    show_default=True,
    help="vCPUs of the machines in which one of them speculates",
)
@click.option(
    "--scheduler",
    type=OneOf(["dpor", "random", "pct"]),
    default="dpor",
    show_default=True,
    help="Who chooses schedules; only dpor can prove",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of schedules by chance")
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=lambda: len(os.sched_getaffinity(0)),
    show_default="processors",
    help="Orders verified at a time",
)
@click.option("--limit", metavar="DURATION", default=None, help="Give up on an order after this time  [by chance: 10s]")
@click.option("--json", "as_json", is_flag=True, help="Print the result document instead of a table")
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="PATH", help="Write the counterexamples to this file"
)
@click.option(
    "--trace",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Write an order's counterexample for a break-before-make checker, to a file in .casemate",
)
@click.option(
    "--replay", type=click.Path(path_type=Path), metavar="FILE", help="Play the counterexamples that --output wrote"
)
@format_option
def verify(
    orders: tuple[str, ...],
    limit: str | None,
    as_json: bool,
    output: Path | None,
    trace: Path | None,
    replay: Path | None,
    table_format: str,
    **options: Any,
) -> int:
    """Prove orders on a toy machine, or show the schedule that breaks them: every interleaving, by the real kernels."""
    orders = _bring(orders, options)
    if bool(orders) == (replay is not None):
        raise UsageError(
            "nothing to verify" if not orders else "--replay needs no order", "give orders, or --replay FILE"
        )
    if trace is not None and (len(orders) != 1 or trace.suffix != ".casemate"):
        raise UsageError("--trace writes one order's counterexample for casemate", "give one order, and a .casemate")
    for path, option in ((output, "--output"), (trace, "--trace")):
        if path is not None:
            store.check_writable(path, option)
    limit_ns = parse_duration(limit) if limit else None
    if (known := sys.modules.get("stress.shm.mode")) is not None and not known.JIT_DISABLED:
        # Kernels were imported to be compiled: another process steps them.
        return subprocess.call([sys.executable, "-m", "stress", *_arguments()], env={**os.environ, _PLAIN: "1"})
    os.environ[_PLAIN] = "1"
    from stress.verify import replay as replaying
    from stress.verify import session

    def drawn(header: Any, rows: Any) -> str:
        return table(header, rows, table_format)

    if replay is not None:
        return session.replay(replay, drawn, emit)
    wanted, bug = session.orders_for(orders, options["inject"])
    bounds = [session.bounds_for(order, options, bug) for order in wanted]

    examples: list[Any] = []
    from stress.trace import files

    def write_trace(example: Any) -> None:
        if trace is not None:
            files.export(trace, session.traced(example))

    def tell(verified: Any, timeline: Any) -> None:
        if output is not None and verified.counterexample is not None:
            examples.append((verified.counterexample, timeline))
            replaying.write(output, examples)
        if verified.counterexample is not None:
            write_trace(verified.counterexample)
        if as_json:
            return
        verdict = {"proved": "PROVED", "violation": "VIOLATION: " + ", ".join(sorted(verified.kinds))}
        emit(f"{verified.order.name}: {verdict.get(verified.judgement, verified.why)}")
        emit(f"  steps      {', '.join(verified.order.steps)}")
        emit(f"  bounds     {session.in_words(verified.bounds)}")
        emit(f"  schedules  {verified.schedules} in {format_ns(verified.elapsed_ns)}")
        emit(f"  seen       {session.seen_in_words(verified)}")
        if timeline is not None:
            emit("")
            emit(timeline.drawn(drawn))
            if output is not None:
                emit(f"To play it again: stress verify --replay {output}")
        emit("")

    how = limit_ns, options["scheduler"], options["seed"]
    results, code = session.verify_orders(wanted, bounds, how, options["jobs"], tell)
    if as_json:
        emit(json.dumps({"orders": [each.document() for each in results]}, indent=2))
    for each in results:
        if each.why:
            say(f"{each.order.name}: {each.why}{'; ' if each.remedy else ''}{each.remedy}")
    return ExitCode(code)


def _bring(orders: tuple[str, ...], options: dict[str, Any]) -> tuple[str, ...]:
    """The orders; of an injected bug what was left out: its order, and in ``options`` the settings that show it."""
    if (name := options["inject"]) is None:
        return orders
    context = click.get_current_context()
    for key, value in settings_that_show(name).items():
        if context.get_parameter_source(key) is ParameterSource.DEFAULT:
            options[key] = context.params[key] = value
    if not orders:
        context.params["orders"] = orders = (order_that_shows(name),)
    return orders


def _arguments() -> list[str]:
    """The words of this command line, also where it was not the process's own."""
    context = click.get_current_context()
    words = [context.info_name or "verify"]
    for parameter in context.command.params:
        value = context.params[parameter.name or ""]
        if isinstance(parameter, click.Argument):
            continue
        if value is None or (value is False and not parameter.secondary_opts):
            continue
        if value is False:
            words.append(parameter.secondary_opts[0])
        elif value is True:
            words.append(parameter.opts[0])
        else:
            for each in value if isinstance(value, tuple) else (value,):
                words += [parameter.opts[0], str(each)]
    return [*words, "--", *context.params["orders"]]
