"""Makes the messages of a client's calls out of Python's values; server/client/connection.py sends them.

Everything here raises InvalidInput naming the parameter, what came and what was expected, before anything is sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from google.protobuf.message import Message

from protos import ganforge_pb2 as pb
from runtime.errors import InvalidInput
from runtime.shares import Priority
from server import formats, priorities

Request = TypeVar("Request", bound=Message)
Name = TypeVar("Name", bound=str)
Number = TypeVar("Number")


def message(kind: type[Request], **fields: Any) -> Request:
    """A request with these fields; None leaves one unset. Raises InvalidInput for a value that it cannot hold."""
    try:
        return kind(**fields)
    except ValueError:
        for name, value in fields.items():
            try:
                kind(**{name: value})
            except ValueError as error:
                problem = f"got {value!r:.80}, which the request cannot hold ({error})"
                raise InvalidInput(name, problem) from error
        raise


def format_number(name: str | None) -> pb.ImageFormat | None:
    """The proto's number of an image format, such as "png"; None for None."""
    return _number("format", name, formats.NUMBERS)


def priority_number(name: Priority | None) -> pb.Priority | None:
    """The proto's number of a priority, "interactive" or "batch"; None for None."""
    return _number("priority", name, priorities.NUMBERS)


def label_numbers(labels: Sequence[int | str], class_names: Sequence[str]) -> list[int]:
    """The numbers of classes that are given by number or by name. class_names: those of the model, by number."""
    for label in labels:
        if isinstance(label, str) and label not in class_names:
            named = ", ".join(class_names)
            expected = f"one of {named}" if named else "a number, because the model names no classes"
            raise InvalidInput("labels", f"got {label!r}, expected {expected}")
    return [label if isinstance(label, int) else class_names.index(label) for label in labels]


def task_name(task: pb.Task) -> str:
    """The name of a task in the proto: "upscale", "translate" or "generate"."""
    return pb.Task.Name(task).removeprefix("TASK_").lower()


def _number(field: str, name: Name | None, numbers: Mapping[Name, Number]) -> Number | None:
    if name is None:
        return None
    if name not in numbers:
        raise InvalidInput(field, f"got {name!r}, expected one of {', '.join(numbers)}")
    return numbers[name]
