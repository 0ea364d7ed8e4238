"""Files of counterexamples as anybody may hand them in: what is damaged is refused by name, and nothing is played."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stress.errors import UsageError
from stress.results.counterexamples import Timeline
from stress.shm.mode import JIT_DISABLED
from stress.verify import session
from stress.verify.replay import read, write
from stress.verify.scene import Bounds
from stress.verify.verification import Counterexample

EXAMPLE = Counterexample("install", Bounds(bbm_level=2, vcpus=1), (0, 1), (8,), (1, 1, 0), ("bbm",))
TIMELINE = Timeline("one machine", 1, ["step", "vcpu 0"], [], [])


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("choices",), "x", "choices"),
        (("kinds",), [1], "kinds.0"),
        (("stops", 0), None, "stops.0"),
        (("guess",), [0], "guess"),
        (("guess", 0), 1, "guess"),
        (("order",), "instal", "did you mean|unknown order"),
        (("bounds",), [], "bounds"),
        (("bounds", "scenario"), "thq", "unknown scenario 'thq'"),
        (("bounds", "split_order"), "x", "unknown split order"),
        (("bounds", "vcpus"), 1 << 70, "vcpus"),
        (("bounds", "accesses"), "many", "bounds.accesses"),
        (("bounds", "pages"), 1 << 40, "pages"),
        (("bounds", "granule"), 8192, "granule"),
        (("bounds", "inject"), -1, "inject"),
    ],
)
def test_what_is_wrong_is_named(place: tuple[Any, ...], value: Any, says: str, tmp_path: Path) -> None:
    path = tmp_path / "example.json"
    write(path, [(EXAMPLE, TIMELINE)])
    assert read(path)[0][1] == EXAMPLE
    whole = json.loads(path.read_text())
    here: Any = whole[0]
    for each in place[:-1]:
        here = here[each]
    here[place[-1]] = value
    path.write_text(json.dumps(whole))
    with pytest.raises(UsageError, match=rf"cannot read {path}: .*({says})"):
        read(path)


@pytest.mark.skipif(not JIT_DISABLED, reason="compiled code cannot be stopped between accesses")
def test_an_example_of_a_program_whose_words_lay_elsewhere_is_not_found_again(tmp_path: Path) -> None:
    path = tmp_path / "older.json"
    write(path, [(EXAMPLE, TIMELINE)])  # actors stop before other words than those that they share today
    told: list[str] = []
    assert session.replay(path, lambda header, rows: "", told.append) == 4
    assert "not found again: bbm" in told[-1]
