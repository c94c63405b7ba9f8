"""Serves bundles: reads them, runs them on a backend, cuts pictures into tiles, schedules requests. Never imports torch."""
