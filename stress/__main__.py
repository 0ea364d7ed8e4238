"""The command ``stress``, also as ``python -m stress``."""

import os
import sys

from stress.interrupt import install


def main() -> None:
    """Entry point: an interrupt counts from here on, also while the rest is being imported."""
    install()
    _occupy_standard_descriptors()
    try:
        from stress.cli.main import main as command
    except Exception as error:
        from stress.limits import starvation

        known = starvation(error)
        if known is None:
            raise
        print(f"stress: {known}", file=sys.stderr)
        sys.exit(known.exit_code)
    command()


def _occupy_standard_descriptors() -> None:
    """Open the null device as each closed standard descriptor: else a segment or a pipe would get its number."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


if __name__ == "__main__":
    main()
