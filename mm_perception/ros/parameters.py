"""Parameters as specifications: declared, checked and documented from them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

FOREIGN = ('qos_overrides.', 'use_sim_time', 'start_type_description_service')
"""Beginnings of the parameters that rclpy reads itself, some of them not before they are used."""
Value = bool | int | float | str | tuple[str, ...]


@dataclass(frozen=True)
class ParameterSpec:
    """
    One parameter.

    :param default: its type is the parameter's; a float also takes whole numbers, a tuple of
        strings is a list.
    :param read_only: set at start only.
    :param structural: decides how the node is configured, so that it is fixed from then on.
    :param local: given at start only, so that nobody on the network sets it; unlike what is read
        only it can be declared anew.
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
    structural: bool = False
    local: bool = False

    @property
    def type_name(self) -> str:
        """Type as documentation writes it."""
        return 'list of str' if isinstance(self.default, tuple) else type(self.default).__name__

    @property
    def declared(self) -> Any:
        """The default as rclpy takes it: of an empty list it cannot tell the type."""
        return list(self.default or ('',)) if isinstance(self.default, tuple) else self.default

    @property
    def constraint(self) -> str:
        """The choices in words; empty if anything will do."""
        kind = 'any of' if self.several else 'one of'
        return f'{kind}: {", ".join(self.choices)}' if self.choices else ''

    def check(self, value: Any) -> str:
        """Why a value cannot be set; empty if it can."""
        if isinstance(self.default, tuple):
            return ''  # rclpy lets no other type through
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


def field_specs(kind: type, prefix: str, names: Collection[str] = ()) -> list[ParameterSpec]:
    """
    Parameters of the described fields of a dataclass, which alone holds their defaults.

    :param prefix: of their names.
    :param names: which fields; empty for all.
    """
    specs = []
    for each in fields(kind):
        if 'text' not in each.metadata or (names and each.name not in names):
            continue
        default: Any = each.default
        several = isinstance(default, frozenset)
        specs.append(
            ParameterSpec(
                f'{prefix}.{each.name}',
                ','.join(sorted(default)) if several else default,
                each.metadata['text'],
                choices=each.metadata.get('choices', ()),
                span=each.metadata['span'],
                several=several,
            )
        )
    return specs


class Parameters:
    """
    Declares parameters on a node, and answers for them.

    :param node: the node; its checks of new values are installed here.

    While ``fixed`` is True, no structural parameter can be set.
    """

    def __init__(self, node: Node) -> None:
        self.fixed = False
        self._node = node
        self._declaring = False
        self._specs: dict[str, ParameterSpec] = {}
        node.add_on_set_parameters_callback(self._check)

    def declare(self, specs: Iterable[ParameterSpec]) -> None:
        """
        Declare parameters that are not declared yet.

        :raises rclpy.exceptions.ParameterException: if a value given at start is wrong.
        """
        self._declaring = True
        try:
            for spec in specs:
                if spec.name not in self._specs:
                    self._specs[spec.name] = spec
                    self._node.declare_parameter(spec.name, spec.declared, spec.descriptor())
        finally:
            self._declaring = False

    def redeclare(self, prefix: str, specs: Iterable[ParameterSpec]) -> None:
        """
        Declare all parameters below a prefix; those that were other ones there go first.

        :raises rclpy.exceptions.ParameterException: if a value given at start is wrong.
        """
        wanted = list(specs)
        for name in [n for n in self._specs if n.startswith(prefix)]:
            if self._specs[name] not in wanted:
                del self._specs[name]
                self._node.undeclare_parameter(name)
        self.declare(wanted)

    def warn_unknown(self) -> None:
        """Log a line for each parameter that was given at start and that does not exist."""
        for name in sorted(self._node._parameter_overrides):
            if not (self._node.has_parameter(name) or name.startswith(FOREIGN)):
                near = difflib.get_close_matches(name, self._specs, 1)
                hint = f'did you mean {near[0]}?' if near else 'ros2 param list shows what does'
                self._node.get_logger().warning(f'parameter {name} does not exist: {hint}')

    def __getitem__(self, name: str) -> Any:
        """Value of a parameter."""
        return self._node.get_parameter(name).value

    def _check(self, parameters: list[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            spec = self._specs.get(parameter.name)
            reason = spec.check(parameter.value) if spec else ''
            if spec and spec.structural and self.fixed:
                reason = (
                    f'{spec.name}: fixed while the node is configured; "ros2 lifecycle set'
                    f' {self._node.get_fully_qualified_name()} cleanup" first'
                )
            if spec and spec.local and not self._declaring:
                reason = f'{spec.name}: given at start only, by a parameter file or -p'
            if reason:
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)
