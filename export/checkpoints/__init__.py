"""Checkpoints: reading files safely, telling what they hold, loading them strictly, writing ours."""
