"""The configuration of a run: one validated record from a TOML file and options, defaults filled in.

Everything that is wrong is reported at once, each problem with the path of its key.
"""

from stress.backings import Backing
from stress.config.blocks import block_sizes
from stress.config.loading import ConfigError, from_sources, load_toml
from stress.config.model import COMPARED, RunConfig
from stress.config.point import Point, Trial, label
from stress.config.run_keys import cores, default_vcpus
from stress.config.sweep import SweepPlan, load_sweep, plan_sweep
from stress.config.values import STAGED, Cmo, Locking, Pattern, Rebuilder, Recover, Scenario, key_of

__all__ = [
    "COMPARED",
    "STAGED",
    "Backing",
    "Cmo",
    "ConfigError",
    "Locking",
    "Pattern",
    "Point",
    "Rebuilder",
    "Recover",
    "RunConfig",
    "Scenario",
    "SweepPlan",
    "Trial",
    "block_sizes",
    "cores",
    "default_vcpus",
    "from_sources",
    "key_of",
    "label",
    "load_sweep",
    "load_toml",
    "plan_sweep",
]
