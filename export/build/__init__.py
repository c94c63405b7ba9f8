"""From a checkpoint to a bundle, one file a step. `python -m export.build --model esrgan --fp16`."""
