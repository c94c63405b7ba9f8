"""The command `python -m export.inspect FILE`, which says what a checkpoint file is. Its code is in __main__.py."""
