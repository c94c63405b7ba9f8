"""Measures trained generators: answers to pictures against originals, samples against real pictures.

`python -m export.evaluate` is the command. subjects.py opens what is measured, measures.py chooses how; restoration.py and
sampling.py measure it with the figures of metrics.py and distributions.py; classifiers.py has the networks in whose
features samples are compared.
"""
