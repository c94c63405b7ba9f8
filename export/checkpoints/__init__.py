"""Checkpoints: files opened safely, identified, loaded strictly into a generator, and written.

`checkpoint.load` gives a generator with its weights. `identification.identify` says what a file holds: it opens the file
(`reading`), finds the state dicts in it (`wrappers`), and recognises one by its tensor names (`naming`, and each family's
`checkpoints.py`) or says which unsupported network it is (`unsupported`). Called by the build, training, evaluation,
inspect, convert and interpolate.
"""
