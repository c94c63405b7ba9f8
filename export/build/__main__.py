"""`python -m export.build`."""

from export.build.command import main

if __name__ == "__main__":
    main()
