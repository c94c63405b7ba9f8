"""Benchmarks of serving and training, run by hand. Each command writes a JSON report and plots to benchmarks/results/.

latency.py: the server under load against its engines called directly. figures.py: the figures that the README states.
encoding.py: writing answers. training.py: the recipes' speed. gpu.py: the ways to run a model on an NVIDIA GPU. The other
files are what these commands share.
"""
