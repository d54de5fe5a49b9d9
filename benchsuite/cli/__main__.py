"""``python -m benchsuite.cli``."""

from benchsuite.cli import main

if __name__ == "__main__":
    main()
