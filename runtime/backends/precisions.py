"""The precision rule: an engine never computes with fewer significand bits than its bundle's precision.

The exception is a lower limit that the operator gives (`--min-precision` on the server and the build). Backends call
`fastest_allowed` to choose a precision; `Engine` calls `is_allowed` on what the library really executes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from runtime.tensors import Precision

# Significand bits, the implicit one included. An int8 bundle is quantised in part: its other layers need 8 bits too.
SIGNIFICAND_BITS: dict[Precision, int] = {"float32": 24, "float16": 11, "bfloat16": 8, "int8": 8}
# Precisions with float32's exponent range. float16 ends at 65504, so it replaces none of them unasked.
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
    """The first of `native` in which a bundle of precision `bundle` may be computed.

    native: the floating-point precisions that the device has, fastest first; float32 is always one of them.
    """
    return next(
        precision
        for precision in native
        if is_allowed(precision, bundle, min_precision)
        and (precision in FULL_RANGE or precision in (bundle, min_precision))
    )


def narrowest(executed: Iterable[Precision]) -> Precision:
    """The precision with the fewest significand bits, int8 before bfloat16; float32 where there is none.

    An engine of several layers reports this one.
    """
    return min(
        executed, key=lambda precision: (SIGNIFICAND_BITS[precision], precision != "int8"), default="float32"
    )
