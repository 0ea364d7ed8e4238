"""Every bug of the catalogue, put into real runs, is reported with the violation it is known for."""

from __future__ import annotations

import pytest
from live import run_json

from stress.bugs import BUGS
from stress.verify.showing import VERIFY_ALONE

pytestmark = pytest.mark.alone


@pytest.mark.parametrize("name", [name for name in BUGS if name not in VERIFY_ALONE])
def test_an_injected_bug_is_caught(name: str) -> None:
    # A vCPU must fault a page in while another cleans, and frames must move in between: that is rarer than all else.
    document = run_json("run", "--inject", name, "--duration", "10s" if name == "no-recheck" else "1s")
    kinds = {violation["kind"] for violation in document["violations"]}
    assert document["exit"] == 1
    assert document["verdict"] == "violations"
    assert BUGS[name].kinds[0] in kinds
    assert document["config"]["inject"] == name
    assert all(violation["evidence"] for violation in document["violations"])


#: A bug where its own settings do not show it: with which, as what, and what a piece of evidence says of it.
ELSEWHERE = [
    (
        "no-grace",
        ("--order", "block-first-deferred"),
        "table-use-after-free",
        {"found_by": "rule", "process": "hypervisor"},
    ),
    ("missing-tlbi", ("--scenario", "rebuild"), "bbm", {"step": "link"}),  # of the split
    ("missing-tlbi", ("--scenario", "migration"), "lost-dirty", {"process": "vcpu 0"}),  # write protection
    ("missing-tlbi", ("--scenario", "thp"), "stale-translation", {"process": "vcpu 0"}),  # the notifier's unmap
]


@pytest.mark.parametrize(("name", "settings", "kind", "said"), ELSEWHERE)
def test_it_is_caught_wherever_it_can_be_made(
    name: str, settings: tuple[str, ...], kind: str, said: dict[str, object]
) -> None:
    document = run_json("run", "--inject", name, *settings, "--duration", "2s")
    [found] = (violation for violation in document["violations"] if violation["kind"] == kind)
    assert document["exit"] == 1
    assert any(piece.items() >= said.items() for piece in found["evidence"])


#: One bug for each combination of settings.
_SETTINGS = {repr(sorted(bug.settings.items())): name for name, bug in BUGS.items() if name not in VERIFY_ALONE}


@pytest.mark.soak
@pytest.mark.parametrize("name", _SETTINGS.values())
def test_the_same_run_without_the_bug_is_correct(name: str) -> None:
    settings = dict(BUGS[name].settings)
    order = settings.pop("order", "block-first")
    options = [
        f"--{'' if value else 'no-'}{key}" if isinstance(value, bool) else f"--{key}={value}"
        for key, value in settings.items()
    ]
    document = run_json("run", f"--order={order}", *options, "--duration", "1s")
    assert document["violations"] == []
    assert document["exit"] == 0
