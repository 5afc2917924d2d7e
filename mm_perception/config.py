"""YAML to spec and spec to plain data; unknown keys are rejected with their path."""

from __future__ import annotations

import dataclasses
import functools
import reprlib
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mm_perception.errors import ConfigError, DataError
from mm_perception.resources import read_file
from mm_perception.spec import TrainingSpec

T = TypeVar('T')
MAX_YAML_BYTES, MAX_VALUES, MAX_REASON = 1 << 20, 100_000, 500


def described(
    default: Any, text: str, low: float | None = None, high: float | None = None, **more: Any
) -> Any:
    """
    Field of a dataclass with its default, its meaning and its range, stated nowhere else.

    :param text: what it means, one sentence.
    :param more: further metadata, such as ``choices``.
    """
    span = None if low is None or high is None else (low, high)
    return dataclasses.field(default=default, metadata={'text': text, 'span': span, **more})


def load_training(path: Path) -> TrainingSpec:
    """
    Read a training configuration.

    :raises ConfigError: if the file is missing, no YAML, or does not fit the spec.
    """
    data = read_yaml(path)
    try:
        spec = from_plain(TrainingSpec, data)
    except ConfigError as error:
        raise ConfigError(f'{path}: {error}') from error
    if not 0.0 <= spec.strange <= 1.0 or (spec.strange and spec.joint):
        raise ConfigError(
            f'{path}: strange: {spec.strange} is no share from 0 to 1, or joint is true, which'
            ' takes none'
        )
    _check_stages(spec, path)
    return spec


def _check_stages(spec: TrainingSpec, path: Path) -> None:
    """Refuse stages of what is not there."""
    shared = {m.name for m in spec.model.modalities if m.shared_dim}
    for key, stages, known in (
        ('unimodal', spec.unimodal, spec.model.names),
        ('shared', spec.shared, shared),
    ):
        for name in sorted(set(stages) - set(known)):
            raise ConfigError(
                f'{path}: {key}.{name}: model.modalities has none of that name'
                f'{" with a shared_dim" * (key == "shared")}; it has: {", ".join(known)}'
            )


def read_yaml(path: Path) -> Any:
    """
    Read a YAML file.

    :raises ConfigError: if it is missing or no YAML.
    """
    import yaml  # here: specs from other sources need none

    try:
        data = yaml.safe_load(read_file(path, MAX_YAML_BYTES))
    except DataError as error:
        raise ConfigError(f'{error}; give --config') from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        where = ' '.join(str(error).split())[:MAX_REASON]
        raise ConfigError(f'{path}: not valid YAML: {where}') from error
    if not _is_finite(data):
        raise ConfigError(f'{path}: more than {MAX_VALUES} values with all aliases written out')
    return data


def _is_finite(data: Any) -> bool:
    """Whether data holds no more than so many values; a few aliases of aliases stand for any."""
    waiting = [data]
    for _ in range(MAX_VALUES):
        if not waiting:
            return True
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return False


def from_plain(kind: type[T], data: Any, path: str = '') -> T:
    """
    Build a dataclass from plain data (dicts, lists, numbers), checking every key and type.

    :param path: where the data stands, for messages.
    :raises ConfigError: naming the path of what is wrong.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(
            f'{path or "top level"}: expected keys and values, got {reprlib.repr(data)}'
        )
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = _hints(kind)
    for key in data:
        if key not in fields:
            known = ', '.join(fields)
            raise ConfigError(f'{_join(path, str(key))}: unknown key; known here: {known}')
    values = {key: _convert(hints[key], value, _join(path, key)) for key, value in data.items()}
    for name, f in fields.items():
        no_default = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if no_default and name not in values:
            raise ConfigError(f'{_join(path, name)}: missing')
    return kind(**values)


_hints: Callable[[Any], dict[str, Any]] = functools.cache(typing.get_type_hints)


def to_plain(value: Any) -> Any:
    """Turn specs into dicts, lists and numbers that JSON and YAML can hold."""
    if dataclasses.is_dataclass(value):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value


def _join(path: str, key: str) -> str:
    return f'{path}.{key}' if path else key


def _convert(hint: Any, value: Any, path: str) -> Any:
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_plain(hint, value, path)  # type: ignore[arg-type]
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f'{path}: expected a list, got {reprlib.repr(value)}')
        return tuple(_convert(arguments[0], item, f'{path}[{i}]') for i, item in enumerate(value))
    if type(None) in arguments:
        return None if value is None else _convert(arguments[0], value, path)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f'{path}: expected keys and values, got {reprlib.repr(value)}')
        return {k: _convert(arguments[1], v, _join(path, str(k))) for k, v in value.items()}
    return _convert_scalar(hint, value, path)


def _convert_scalar(hint: Any, value: Any, path: str) -> Any:
    if hint is Any:
        return value
    if hint is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f'{path}: expected {hint.__name__}, got {reprlib.repr(value)}')
    return value
