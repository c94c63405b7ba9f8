"""The lengths that a network takes for a picture's sides: multiples of a number, and not below a least one.

The build's SPEC and a bundle's manifest state both numbers. Tiler, backends and build ask here for the nearest length.
"""

from __future__ import annotations

from typing import Protocol


class SizeRule(Protocol):
    """What `runtime.manifest.Manifest` and `export.families.spec.Signature` have in common. Both in input pixels."""

    @property
    def size_multiple(self) -> int: ...
    @property
    def least_side_px(self) -> int: ...


def side_of(rule: SizeRule, at_least_px: int) -> int:
    """The shortest side of at least `at_least_px` that the network takes."""
    wanted = max(at_least_px, rule.least_side_px)
    return -(-wanted // rule.size_multiple) * rule.size_multiple


def side_within(rule: SizeRule, at_most_px: int) -> int:
    """The longest side of at most `at_most_px` that the network takes; the shortest of all where none is."""
    return max(at_most_px // rule.size_multiple * rule.size_multiple, side_of(rule, 1))
