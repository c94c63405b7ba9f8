"""The precision rule: an engine never computes with fewer significand bits than its bundle's precision.

The operator can allow a lower one with `--min-precision` (server and build). Backends call `fastest_allowed` to choose
the precision of an engine; `Engine` calls `is_allowed` with the precision that the library really executes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from runtime.tensors import Precision

# Significand bits, the implicit one included. An int8 bundle is quantised in part: its other layers need 8 bits too.
SIGNIFICAND_BITS: dict[Precision, int] = {"float32": 24, "float16": 11, "bfloat16": 8, "int8": 8}
WIDEST: Precision = "float32"
# Precisions with float32's exponent range. float16 overflows at 65504, so it replaces them only if the operator allows it.
FULL_RANGE: tuple[Precision, ...] = ("float32", "bfloat16")


def is_allowed(executed: Precision, bundle: Precision, min_precision: Precision | None = None) -> bool:
    """Whether a bundle of precision `bundle` may be computed in `executed`.

    min_precision: the operator's lower limit, None for the bundle's own precision.
    """
    fewest = min(SIGNIFICAND_BITS[precision] for precision in (bundle, min_precision or bundle))
    return SIGNIFICAND_BITS[executed] >= fewest


def fastest_allowed(
    native: Sequence[Precision], bundle: Precision, min_precision: Precision | None = None
) -> Precision:
    """The fastest precision in which a bundle of precision `bundle` may be computed.

    native: the floating-point precisions of the device, fastest first; must contain float32.
    min_precision: as for `is_allowed`.
    """
    return next(
        precision
        for precision in native
        if is_allowed(precision, bundle, min_precision)
        and (precision in FULL_RANGE or precision in (bundle, min_precision))
    )


def narrowest(executed: Iterable[Precision]) -> Precision:
    """The precision with the fewest significand bits (int8 counts as less than bfloat16); float32 if `executed` is empty.

    executed: the precisions of an engine's layers.
    """
    return min(
        executed, key=lambda precision: (SIGNIFICAND_BITS[precision], precision != "int8"), default="float32"
    )
