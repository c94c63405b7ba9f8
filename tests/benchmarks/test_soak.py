"""What a soak concludes from its samples."""

from __future__ import annotations

from benchmarks.soak import Sample, broken, verdict


def samples(*, mib_per_minute: float = 0.0, files_more: int = 0, p99_growth: float = 0.0) -> list[Sample]:
    """Sixty minutes after a warm-up in which everything grows."""
    return [
        Sample(
            minute,
            500 + mib_per_minute * minute + (20 * minute if minute < 10 else 200),
            40 + (files_more if minute > 40 else 0),
            30,
            100,
            20.0,
            100 + p99_growth * minute,
        )
        for minute in range(60)
    ]


def test_level_lines_are_within_bounds() -> None:
    assert broken(verdict(samples(mib_per_minute=0.5, files_more=2, p99_growth=0.3))) == []


def test_each_line_that_rises_is_named() -> None:
    assert "mib_per_minute is 1.5, expected at most 1" in broken(verdict(samples(mib_per_minute=1.5)))
    assert "files_more is 20, expected at most 8" in broken(verdict(samples(files_more=20)))
    assert any("p99_ratio" in problem for problem in broken(verdict(samples(p99_growth=5.0))))
