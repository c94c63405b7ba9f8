"""Measures trained generators: compares their answers to pictures with originals, and their samples with real pictures.

`python -m export.evaluate` is the command. subjects.py opens what is measured, measures.py chooses how; restoration.py and
sampling.py measure it with the figures of metrics.py and distributions.py; classifiers.py has the networks in whose
features samples are compared.
"""
