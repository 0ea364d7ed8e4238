"""``python -m stress.reference DIRECTORY`` writes the generated pages into a directory."""

from __future__ import annotations

import sys
from pathlib import Path

from stress.reference.bench import bench_page
from stress.reference.config import config_page
from stress.reference.results import results_page

#: File -> what writes it.
PAGES = {"bench.md": bench_page, "config.md": config_page, "results.md": results_page}


def write(directory: Path) -> None:
    """Write every page."""
    for name, text in PAGES.items():
        (directory / name).write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
