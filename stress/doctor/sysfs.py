"""Files of /proc and /sys, by which checks know the machine; a container may lack any of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# Files of /sys are a page at most; /proc/cpuinfo of a large machine is longer.
_LONGEST = 1 << 20


@dataclass(frozen=True)
class Host:
    """This machine, or in tests a tree of files that looks like another one."""

    root: Path = Path("/")

    def read(self, path: str) -> str | None:
        """The text of a file, stripped; None if it cannot be read here."""
        try:
            with (self.root / path.lstrip("/")).open("rb") as file:
                return file.read(_LONGEST).decode("utf-8", "replace").strip()
        except OSError:
            return None

    def number(self, path: str) -> int | None:
        """The number in a file; None if there is none (``max`` is none)."""
        text = self.read(path)
        return int(text) if text is not None and re.fullmatch(r"-?[0-9]{1,19}", text) else None

    def names(self, directory: str, pattern: str) -> list[str]:
        """Sorted names of a directory's entries that match a glob pattern."""
        return sorted(path.name for path in (self.root / directory.lstrip("/")).glob(pattern))

    def cgroups(self, controller: str) -> Iterator[str]:
        """Directories of this process's control group and those above it, for one controller, innermost first.

        Version 2's, or version 1's. A container often sees its own group as the root, whatever the path says.
        """
        for line in (self.read("/proc/self/cgroup") or "").splitlines():
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if controllers and controller not in controllers.split(","):
                continue
            mounts = dict.fromkeys((controllers, controller)) if controllers else ("",)
            for mount in (PurePosixPath("/sys/fs/cgroup", name) for name in mounts):
                group = mount / path.lstrip("/")
                for directory in (group, *group.parents):
                    if directory.is_relative_to(mount) and (self.root / str(directory).lstrip("/")).is_dir():
                        yield str(directory)


def cpus() -> list[int]:
    """Processors this process may use."""
    return sorted(os.sched_getaffinity(0))


def cpu_list(text: str) -> set[int]:
    """The processors of ``0-3,8``, as /sys writes them."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found
