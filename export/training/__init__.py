"""Training: from a folder of data to weights that `export.build` takes. Run `python -m export.training --help`.

One loop for all (loop.py); how each family is trained is in its export/models/<family>/recipes.py.
"""
