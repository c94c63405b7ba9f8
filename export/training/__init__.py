"""Training: from a folder of data to weights that `export.build` takes. Run `python -m export.training --help`.

One loop (`loop.py`) that knows no loss; one file a recipe (`recipes/<model>.py`) that knows nothing else.
"""
