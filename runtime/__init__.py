"""What serves a bundle: bundles, backends, tiles, the scheduler, pixels in and out. Never imports torch."""
