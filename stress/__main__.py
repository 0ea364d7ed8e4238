"""The command ``stress``, also as ``python -m stress``."""

from stress.interrupt import install


def main() -> None:
    """Entry point: an interrupt counts from here on, also while the rest is being imported."""
    install()
    from stress.cli.main import main as command

    command()


if __name__ == "__main__":
    main()
