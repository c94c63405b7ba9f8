"""Trains generators: reads pictures and writes weights that `export.build` takes. Run `python -m export.training --help`.

All recipes share one loop (loop.py). How each family is trained is in its export/models/<family>/recipes.py.
"""
