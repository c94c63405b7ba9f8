"""Moved to export/evaluation/metrics.py."""

from export.evaluation.metrics import LUMA, luma, psnr_y_db

__all__ = ["LUMA", "luma", "psnr_y_db"]
