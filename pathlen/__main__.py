"""Lets ``python -m pathlen`` do what the command ``pathlen`` does."""

from pathlen.cli.main import main

if __name__ == "__main__":
    main()
