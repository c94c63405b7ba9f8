"""Checkpoints: files opened safely, identified, loaded strictly into a generator, and written.

open the file (`reading`) → take off what lies around the state dict (`wrappers`) → whose tensor names these are
(`naming`, and each family's `checkpoints.py`) or which other network it is (`unsupported`): `identification`.
`checkpoint` makes a module of it. Called by the build, inspect, convert, interpolate, the training and the evaluation.
"""
