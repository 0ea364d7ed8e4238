"""The configuration of a sweep: its points, their order, and every complaint at once."""

from __future__ import annotations

import copy
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_config import KEYS, toml_values

from stress.config import ConfigError, load_sweep, plan_sweep
from stress.config.loading import spelled
from stress.config.sweep import MAX_RUNS, TABLES
from stress.errors import ExitCode, UsageError
from stress.orders import NAMED_ORDERS

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "sweeps").glob("*.toml"))


def problems(tables: dict[str, Any], **keywords: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        plan_sweep(tables, **keywords)
    assert caught.value.exit_code == ExitCode.USAGE
    assert len(str(caught.value).splitlines()) == 1
    return caught.value.problems


def problem(tables: dict[str, Any], **keywords: Any) -> str:
    (only,) = problems(tables, **keywords)
    return only


def test_the_points_are_the_product_and_the_explicit_ones() -> None:
    plan = plan_sweep(
        {
            "run": {"order": "clean-first", "duration": "1s", "vcpus": 3},
            "sweep": {"order": ["unmap-first", "install, unmap"], "vcpus": [1, 2]},
            "point": [{"populated": 0.5}, {"orders": ["unmap-first", "block-first"]}],
        }
    )
    assert [(point.config.orders, point.config.vcpus) for point in plan.points] == [
        (("unmap-first",), 1),
        (("unmap-first",), 2),
        (("install,unmap",), 1),  # wrong, and welcome
        (("install,unmap",), 2),
        (("clean-first",), 3),
        (("unmap-first", "block-first"), 3),
    ]
    assert plan.points[1].values == {"order": "unmap-first", "vcpus": 2}
    assert plan.swept == ("order", "vcpus", "populated", "orders")
    assert {point.config.duration_ns for point in plan.points} == {10**9}
    assert [point.index for point in plan.points] == list(range(6))


def test_what_is_swept_may_be_said_in_another_way_in_run() -> None:
    plan = plan_sweep({"run": {"memory": "1G", "block-size": "2M"}, "sweep": {"blocks": [1, 2]}})
    assert [point.config.memory for point in plan.points] == [2 << 20, 4 << 20]


def test_a_host_that_gets_the_options_makes_the_same_point_of_them() -> None:
    tables = {"run": {"memory": "1G", "inject": "no-cmo"}, "sweep": {"blocks": [1, 2]}}
    (first, second) = plan_sweep(tables).points
    (again,) = plan_sweep({"point": [second.options]}).points
    assert again.identity == second.identity != first.identity


def test_repeats_are_spread_and_shuffled_by_the_seed() -> None:
    tables = {"plan": {"repeats": 4, "seed": 5}, "sweep": {"vcpus": list(range(1, 9))}}
    plan = plan_sweep(tables)
    trials = list(plan.trials())
    assert trials == list(plan_sweep(tables).trials())
    rounds = [trials[start : start + 8] for start in range(0, 32, 8)]
    for repeat, each in enumerate(rounds):
        assert {trial.repeat for trial in each} == {repeat}
        assert {trial.point.index for trial in each} == set(range(8))
    assert len({tuple(trial.point.index for trial in each) for each in rounds}) == 4
    other = plan_sweep({**tables, "plan": {"repeats": 4, "seed": 6}})
    assert [trial.id for trial in other.trials()] != [trial.id for trial in trials]
    assert Counter(trial.id for trial in other.trials()) == Counter(trial.id for trial in trials)


def test_options_overrule_the_file() -> None:
    tables = {"run": {"duration": "1h"}, "plan": {"repeats": 9}, "sweep": {"vcpus": [1, 2]}}
    plan = plan_sweep(tables, {"duration": "1s"}, repeats=1)
    assert {point.config.duration_ns for point in plan.points} == {10**9}
    assert len(list(plan.trials())) == 2
    assert problem(tables, options={"vcpus": 1}) == "--vcpus: is swept; leave it out"
    assert problem(tables, repeats=0) == "--repeats: must be at least 1, not 0"
    assert problem(tables, options={"duration": "soon"}).startswith("--duration: 'soon' is not a duration")


def test_everything_wrong_is_said_at_once_with_paths() -> None:
    found = problems(
        {
            "vcpus": 3,
            "sweeps": {},
            "plan": {"repeats": 0, "sed": 1},
            "run": {"dwell": 5, "block-sizes": "2M"},
            "sweep": {
                "order": ["block-first", "a,b", "block-first"],
                "vcpus": [1, 0],
                "blocks": 4,
                "memory": [],
                "vcpu": [1],
            },
            "point": [{"order": 7}, 7],
        }
    )
    assert [line.partition(":")[0] for line in found] == [
        "vcpus",
        "sweeps",
        "plan.repeats",
        "plan.sed",
        "sweep.order[2]",
        "sweep.blocks",
        "sweep.memory",
        "sweep.vcpu",
        "point[1]",
        "run.dwell",
        "run.block-sizes",
        "sweep.vcpus[1]",
        "sweep.order[1]",
        "point[0].order",
    ]


def test_an_order_of_a_set_has_its_own_index() -> None:
    found = problem({"sweep": {"orders": [["block-first"], ["block-first", "first"]]}})
    assert found.startswith("sweep.orders[1][1]: unknown order 'first'")


def test_what_does_not_go_together_names_the_point() -> None:
    found = problems({"sweep": {"granule": ["4K", "64K"], "block-size": ["2M", "512M"], "vcpus": [1, 2]}})
    assert len(found) == 2
    assert found[0].startswith("sweep.block-size[1]: KVM has no 512M block with the 4K granule")
    assert found[0].endswith("(at granule=4K, block-size=512M, vcpus=1 and 1 more)")


def test_the_same_run_twice_is_refused() -> None:
    found = problems({"sweep": {"block-size": ["2M", "2048K"]}, "point": [{"order": "block-first", "backing": "thp"}]})
    assert found == ("sweep: block-size=2048K is the same run as block-size=2M; leave one out",)
    found = problems({"sweep": {"vcpus": [1, 2]}, "point": [{"vcpus": 2, "seed": 1}]})
    assert found == ("point[0]: vcpus=2, seed=1 is the same run as vcpus=2; leave one out",)


@pytest.mark.parametrize("tables", [{}, {"run": {"vcpus": 1}}, {"sweep": {}}, {"point": []}])
def test_a_sweep_needs_points(tables: dict[str, Any]) -> None:
    assert problem(tables) == "sweep: there are no points; give a table [sweep] of lists, or [[point]] tables"


def test_a_million_runs_are_refused_before_they_are_listed() -> None:
    lists = {key: list(range(1, 1001)) for key in ("vcpus", "seed", "stride")}
    found = problem({"sweep": lists})
    assert found == f"sweep: 1,000,000,000 runs of 1,000,000,000 points, at most {MAX_RUNS:,} are allowed"
    assert problem({"sweep": {"seed": list(range(2000))}, "plan": {"repeats": 6}}).startswith("sweep: 12,000 runs")


def starts_with_a_path(line: str, tables: dict[str, Any]) -> bool:
    names = "|".join(re.escape(" ".join(spelled(key).split())) for key in (*TABLES, *tables, *KEYS))
    return bool(re.match(rf"({names})([.\[].*?)?: ", line))


def judge(tables: dict[str, Any]) -> None:
    try:
        plan = plan_sweep(tables)
    except ConfigError as error:
        assert error.problems
        assert all(starts_with_a_path(line, tables) for line in error.problems), error.problems
    else:
        assert plan.points
        assert len({trial.id for trial in plan.trials()}) == len(plan.points) * plan.repeats


few_values = st.lists(toml_values, max_size=3)
keys = st.sampled_from(["order", *KEYS]) | st.text(max_size=5)
any_tables = st.fixed_dictionaries(
    {},
    optional={
        "run": toml_values | st.dictionaries(keys, toml_values, max_size=4),
        "sweep": toml_values | st.dictionaries(keys, few_values | toml_values, max_size=4),
        "point": toml_values | st.lists(toml_values | st.dictionaries(keys, toml_values, max_size=3), max_size=3),
        "plan": toml_values | st.dictionaries(st.sampled_from(["repeats", "seed", "x"]), toml_values, max_size=3),
    },
)


@given(any_tables | st.dictionaries(st.text(), toml_values, max_size=3))
def test_any_toml_is_a_plan_or_refused_by_paths(tables: dict[str, Any]) -> None:
    judge(tables)


VALID: dict[str, Any] = {
    "plan": {"repeats": 2, "seed": 3},
    "run": {"duration": "1s", "block-size": "2M", "blocks": 2},
    "sweep": {"order": ["unmap-first", "block-first"], "vcpus": [1, 2]},
    "point": [{"populated": 0.5}],
}


@given(st.data())
def test_a_valid_sweep_with_one_thing_changed_is_a_plan_or_refused_by_paths(data: st.DataObject) -> None:
    tables = copy.deepcopy(VALID)
    place: Any = tables[data.draw(st.sampled_from(list(tables)))]
    if isinstance(place, list):
        place = place[0]
    key = data.draw(st.sampled_from(list(place)) | keys)
    if data.draw(st.booleans()) or key not in place:
        place[key] = data.draw(toml_values | few_values)
    else:
        del place[key]
    judge(tables)


def test_there_are_sweeps_to_start_from() -> None:
    assert {path.stem for path in CONFIGS} >= {"smoke", "orders", "vcpus", "population", "blocks", "thread"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_sweeps_load(path: Path) -> None:
    plan = load_sweep(path)
    assert len(plan.points) > 1
    assert {order.name for point in plan.points for order in point.config.parsed_orders} <= set(NAMED_ORDERS)
    assert f"#   stress sweep {path.stem}\n" in path.read_text()


def test_unusable_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load_sweep(tmp_path / "missing.toml")
    (tmp_path / "x.toml").write_text("[sweep")
    with pytest.raises(UsageError, match="is not TOML"):
        load_sweep(tmp_path / "x.toml")
