"""``python -m stress`` is the command ``stress``."""

from stress.cli.main import main

if __name__ == "__main__":
    main()
