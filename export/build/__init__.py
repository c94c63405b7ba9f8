"""Builds a bundle from a checkpoint, one file a step: `python -m export.build --model esrgan --fp16`.

`pipeline.py` lists the steps; `command.py` is the command line.
"""
