"""Measuring what a generator gives: upscalers against originals, samplers against real pictures.

`python -m export.evaluate` is the command. subjects.py is what can be measured; upscaling.py and sampling.py measure
it; metrics.py and distributions.py hold the figures; classifiers.py the networks in whose features samples are compared.
"""
