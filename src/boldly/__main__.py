"""Run the command line interface with ``python -m boldly``."""

from boldly.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
