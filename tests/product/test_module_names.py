"""A module's name is used once in the tree: who reads an import knows which of the modules is meant."""

from collections import Counter
from pathlib import Path

import stress
from stress.cli.main import COMMANDS
from stress.live.scenarios import SCENARIOS

ROOT = Path(stress.__file__).parent


def test_no_two_modules_have_one_name() -> None:
    """A command's file has the name of the command, and a scenario's that of the scenario, whatever else has it."""
    named_after = {ROOT / "cli" / f"{name}.py" for name in COMMANDS}
    named_after |= {ROOT / "live" / "scenarios" / f"{name.replace('-', '_')}.py" for name in SCENARIOS}
    modules = [path.stem for path in ROOT.rglob("*.py") if path not in named_after and path.stem != "__init__"]
    packages = [path.parent.name for path in ROOT.glob("*/**/__init__.py")]
    assert [name for name, count in Counter(modules + packages).items() if count > 1] == []
