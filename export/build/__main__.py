"""Runs `python -m export.build`, whose command is in command.py."""

from export.build.command import main

if __name__ == "__main__":
    main()
