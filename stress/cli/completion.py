"""Completion of words in the user's shell: click talks to the shells, this module knows the words.

Orders, bugs and files that come with the program are named without the configuration, whose import would be felt at
each press of the key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
)

from stress.bugs import BUGS
from stress.orders import NAMED_ORDERS, REBUILD_STEPS, SPLIT_STEPS, StepList
from stress.shipped import Kind, find, names
from stress.splits import SPLIT_ORDERS

#: Any file, as the shell completes it; words of ours that match go before.
_FILES: Final = CompletionItem("", type="file")


def orders(incomplete: str) -> list[CompletionItem]:
    """Named orders; after a comma or the beginning of a step, a list of steps that goes on with one it has not yet."""
    return _lists(NAMED_ORDERS, REBUILD_STEPS, incomplete)


def split_orders(incomplete: str) -> list[CompletionItem]:
    """The same of split orders."""
    return _lists(SPLIT_ORDERS, SPLIT_STEPS, incomplete)


def _lists(known: Mapping[str, StepList], steps: Iterable[str], incomplete: str) -> list[CompletionItem]:
    before, comma, last = incomplete.rpartition(",")
    used = before.split(",")
    lists = [before + comma + step for step in steps if step not in used]
    named = [] if comma else [CompletionItem(order.name, help=order.description) for order in known.values()]
    # Steps alone make no order: they are offered once the word is begun.
    return [*_of(named, incomplete), *(_of(map(CompletionItem, lists), incomplete) if comma or last else [])]


def bugs(incomplete: str) -> list[CompletionItem]:
    """Bugs that can be injected."""
    return _of((CompletionItem(bug.name, help=bug.effect) for bug in BUGS.values()), incomplete)


def files(kind: Kind) -> Callable[[str], list[CompletionItem]]:
    """Files of one kind that come with the program, and any other."""
    return lambda incomplete: [_FILES, *_of(map(CompletionItem, names(kind)), incomplete)]


def words(known: Iterable[str]) -> Callable[[str], list[CompletionItem]]:
    """The words of a closed set."""
    return lambda incomplete: _of(map(CompletionItem, known), incomplete)


#: Option -> the function that completes its values, where that needs no configuration.
VALUES: Final[dict[str, Callable[[str], list[CompletionItem]]]] = {
    "--order": orders,
    "--split-order": split_orders,
    "--inject": bugs,
    "--platform": files(Kind.PLATFORM),
    "--config": files(Kind.CONFIG),
    "--suite": files(Kind.SUITE),
}

#: Command -> the function that completes its arguments.
ARGUMENTS: Final[dict[str, Callable[[str], list[CompletionItem]]]] = {
    "compare": orders,
    "predict": orders,
    "platforms": files(Kind.PLATFORM),
    "sweep": files(Kind.SWEEP),
}


class Shipped(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """The type of a parameter that takes a file's path, or the name of a file that comes with the program."""

    name = "file"

    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Raises `UsageError` for an unknown name."""
        return value if isinstance(value, Path) else find(self._kind, value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Names, and files."""
        return files(self._kind)(incomplete)


def completing(
    complete: Callable[[str], list[CompletionItem]],
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """``complete`` as click calls it."""
    return lambda ctx, param, incomplete: complete(incomplete)


def _of(items: Iterable[CompletionItem], incomplete: str) -> list[CompletionItem]:
    return [item for item in items if item.value.startswith(incomplete)]


def _after(option: str, item: CompletionItem) -> CompletionItem:
    """A value's item as one of the whole word."""
    return item if item.type == "file" else CompletionItem(f"{option}={item.value}", item.type, item.help)


class _Quick(ShellComplete):
    """Looks at the words before it asks click, which would import the command and with it the configuration."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        # Bash makes --order=block three words and replaces the last; zsh and fish have one word, and replace it all.
        if incomplete == "=":
            incomplete = ""
        elif args and args[-1] == "=":
            args = args[:-1]
        elif incomplete.startswith("--") and "=" in incomplete:
            option, _, value = incomplete.partition("=")
            return [_after(option, item) for item in self.get_completions([*args, option], value)]
        if len(args) > 1 and args[-1] in VALUES:
            return VALUES[args[-1]](incomplete)
        if len(args) > 0 and args[0] in ARGUMENTS and not any(word.startswith("-") for word in (*args, incomplete)):
            return ARGUMENTS[args[0]](incomplete)
        return super().get_completions(args, incomplete)


def install() -> None:
    """Replace click's own completion for the shells it knows."""
    for shell in (BashComplete, ZshComplete, FishComplete):
        add_completion_class(type(shell.__name__, (_Quick, shell), {}))
