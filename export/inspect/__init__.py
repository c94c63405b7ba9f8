"""Says what a checkpoint file is: `python -m export.inspect FILE`."""
