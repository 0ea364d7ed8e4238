"""A process that measures one point for its parent: ``python -m stress.sweeps.trial``.

It reads one line of JSON, the point's options, from standard input, and prints one line, the result document or the
error. Its parent holds standard input open: when that ends, because no result is wanted any more, so does the run, and
leaves no process and no segment behind.

One host measures one thing of a user at a time (`stress.sweeps.turn`).
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

from stress import __version__, interrupt
from stress.errors import ExitCode, StressError, UsageError
from stress.executors import LIVE, PREDICT
from stress.sweeps.turn import turn


def request(options: dict[str, Any]) -> bytes:
    """The line that asks for these options to be measured."""
    return json.dumps({"stress_version": __version__, "options": options}, allow_nan=False).encode() + b"\n"


def answer(line: bytes) -> dict[str, Any]:
    """``document`` or ``error`` (exit_code, message) for the line of a request. Raises no `StressError`."""
    try:
        asked = json.loads(line)
        if asked["stress_version"] != __version__:
            versions = f"this is stress {__version__}, the sweep is of {asked['stress_version']}"
            raise UsageError(versions, "install the same version everywhere")
        return {"document": _measured(asked["options"])}
    except StressError as error:
        return {"error": {"exit_code": int(error.exit_code), "message": str(error)}}


def _measured(options: dict[str, Any]) -> dict[str, Any]:
    from stress.config import from_sources

    executor = options.pop("executor", LIVE)
    config = from_sources(None, options)
    if executor == PREDICT:  # a prediction neither disturbs a measurement nor is disturbed
        from stress.predict import predict
        from stress.results.document import build

        return build(predict(config))
    with turn(interrupt.requested.is_set):
        # These are imported in turn, too: loading them would disturb another measurement.
        from stress.live import execute
        from stress.results.document import build

        return build(execute(config))


def _stop_with_input() -> None:
    while os.read(0, 4096):
        pass
    interrupt.requested.set()


def main() -> int:
    """Answer the one request on standard input."""
    interrupt.install()
    line = b""
    while not line.endswith(b"\n"):
        more = os.read(0, 1 << 16)
        if not more:
            return ExitCode.INTERRUPTED
        line += more
    threading.Thread(target=_stop_with_input, daemon=True).start()
    print(json.dumps(answer(line), allow_nan=False), flush=True)
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
