"""A parameter as a row of a table: declared, checked and documented from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

Value = bool | int | float | str


@dataclass(frozen=True)
class Row:
    """
    One parameter.

    :param default: its type is the parameter's; a float also takes whole numbers.
    :param read_only: part of the node's structure, set at start only.
    :param choices: the values that exist; empty if any will do.
    :param span: smallest and largest value of a number.
    :param several: a comma-separated list of choices, not one of them.
    """

    name: str
    default: Value
    description: str
    read_only: bool = False
    choices: tuple[str, ...] = ()
    span: tuple[float, float] | None = None
    several: bool = False

    @property
    def type_name(self) -> str:
        """Type as documentation writes it."""
        return type(self.default).__name__

    @property
    def constraint(self) -> str:
        """The choices in words; empty if anything will do."""
        kind = 'any of' if self.several else 'one of'
        return f'{kind}: {", ".join(self.choices)}' if self.choices else ''

    def check(self, value: Any) -> str:
        """Why a value cannot be set; empty if it can."""
        expected = (int, float) if isinstance(self.default, float) else type(self.default)
        if not isinstance(value, expected) or isinstance(value, bool) > isinstance(
            self.default, bool
        ):
            return f'{self.name}: expected {self.type_name}, got {value!r}'
        for part in listed(str(value)) if self.several else (value,):
            if self.choices and part not in self.choices:
                return f'{self.name}: "{part}" is not one of {", ".join(self.choices)}'
        if self.span and not self.span[0] <= float(value) <= self.span[1]:
            return f'{self.name}: {value} is not within {self.span[0]} to {self.span[1]}'
        return ''

    def descriptor(self) -> ParameterDescriptor:
        """Make the descriptor that ``ros2 param describe`` shows."""
        descriptor = ParameterDescriptor(
            description=self.description,
            read_only=self.read_only,
            additional_constraints=self.constraint,
            # So that a whole number is good for a float too.
            dynamic_typing=isinstance(self.default, float),
        )
        if self.span and isinstance(self.default, float):
            low, high = map(float, self.span)
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        elif self.span:
            low, high = map(int, self.span)
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
        return descriptor


def listed(text: str) -> tuple[str, ...]:
    """Parts of a comma-separated list."""
    return tuple(part.strip() for part in text.split(',') if part.strip())
