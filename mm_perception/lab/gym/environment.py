"""An environment of gymnasium: its observations as messages of sensors that fail, its actions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from std_msgs.msg import String

from mm_perception.errors import ConfigError
from mm_perception.lab.replay.episode_sensors import BUILDERS, VECTOR_FAULTS
from mm_perception.lab.replay.playlist import FROZEN, SILENT
from mm_perception.lab.replay.sensors import IMAGE_FAULTS
from mm_perception.ros.codecs import audio_message, input_codec, input_names, message_name
from mm_perception.spec import ModalitySpec

ONLY = 'observation'
"""Name of the sensor of an environment that observes no dictionary."""
STAMPLESS = 'std_msgs/msg/Float32MultiArray'
IMAGE, VECTOR, SOUND, SYMBOL = 'image', 'vector', 'sound', 'symbol'


class GymSensor:
    """
    One entry of an environment's observation, as a sensor.

    :param spec: how its values are sent: name, kind, topic, message and names.
    :param step_s: between two values; of sound the length of one.
    :param seed: of its noise.
    :raises ConfigError: if such messages cannot be made.
    """

    def __init__(self, spec: ModalitySpec, step_s: float, seed: int) -> None:
        self.name, self.topic = spec.name, spec.topic or spec.name
        self.rng = np.random.default_rng(seed)
        self.message = input_codec(spec.kind, spec.message).name
        self._names = tuple(spec.preprocessing.get('names', ()))
        self._labels = tuple(spec.preprocessing.get('labels', ()))
        self._step_s = step_s
        self._faults = IMAGE_FAULTS if spec.kind == IMAGE else VECTOR_FAULTS
        self._last: Any = None
        self.message_type, self._build = self._builder(spec.kind)

    def send(self, value: Any, stamp_ns: int, fault: str | None) -> Any | None:
        """
        Message of a value of the observation; None if the sensor is silent.

        :param fault: one of the schedule's faults, or None.
        """
        if fault == SILENT:
            return None
        if fault != FROZEN or self._last is None:
            self._last = value
        value = self._last
        if fault is not None and fault in self._faults:
            value = self._faults[fault](np.asarray(value), self)
        return self._build(value, stamp_ns)

    def _builder(self, kind: str) -> tuple[type, Callable[[Any, int], Any]]:
        if kind == SOUND:
            return input_codec(kind, self.message).message_type, self._sound
        if kind == SYMBOL:
            return String, self._symbol
        if kind not in (IMAGE, VECTOR) or self.message not in BUILDERS:
            known = [each for each in input_names(kind) if each in BUILDERS]
            raise ConfigError(
                f'sensors.{self.name}.message: cannot send {self.message} as {kind};'
                f' known: {", ".join(known) or "none"}'
            )
        message_type, build = BUILDERS[self.message]

        def make(value: Any, stamp_ns: int) -> Any:
            array = np.asarray(value)
            if kind == VECTOR:
                array = array.astype(np.float32).reshape(-1)
            elif array.ndim == 3 and array.shape[-1] == 1:
                array = array[..., 0]
            return build(array, stamp_ns, self._names)

        return message_type, make

    def _sound(self, value: Any, stamp_ns: int) -> Any:
        """What was heard since the last step: the stamp is that of its first sample."""
        samples = np.asarray(value, np.float32)
        rate_hz = round(len(samples) / self._step_s)
        return audio_message(samples, rate_hz, stamp_ns - round(self._step_s * 1e9))

    def _symbol(self, value: Any, stamp_ns: int) -> String:
        known = self._labels and not isinstance(value, str)
        return String(data=str(self._labels[int(value)] if known else value))


def sensor_specs(
    space: gymnasium.Space[Any], modalities: Mapping[str, ModalitySpec]
) -> list[ModalitySpec]:
    """
    How the parts of an observation are sent.

    :param space: of the observation; a dictionary has one sensor per key.
    :param modalities: of the bundle that is to take them, by name; empty: what the space tells.
    :raises ConfigError: if the bundle wants what the environment does not observe.
    """
    parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {ONLY: space}
    absent = set(modalities) - set(parts)
    if absent:
        raise ConfigError(
            f'bundle: it has {", ".join(sorted(absent))}, which the environment does not observe;'
            f' it observes {", ".join(parts)}'
        )
    if modalities:
        return [modalities[name] for name in parts if name in modalities]
    return [_guess(name, part) for name, part in parts.items()]


def _guess(name: str, space: gymnasium.Space[Any]) -> ModalitySpec:
    if isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) in (2, 3):
        return ModalitySpec(name, IMAGE, 1)
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return ModalitySpec(name, VECTOR, 1)
    if isinstance(space, spaces.Discrete | spaces.Text):
        return ModalitySpec(name, SYMBOL, 1)
    raise ConfigError(
        f'environment: cannot send {name}, which is {space}; give images (uint8), numbers (float)'
        ' or labels, or wrap the environment'
    )


class Actuator:
    """
    Takes the numbers of an action in the form that an environment takes.

    :param space: of the actions: numbers (Box), or one of several (Discrete).
    :param names: of the actuators; empty: numbered.
    :raises ConfigError: if the space is another one, or there are not as many names as numbers.
    """

    def __init__(self, space: gymnasium.Space[Any], names: Sequence[str] = ()) -> None:
        if not isinstance(space, spaces.Box | spaces.Discrete):
            raise ConfigError(f'environment: its actions are {space}; known: Box and Discrete')
        self._space = space
        count = int(np.prod(space.shape)) if isinstance(space, spaces.Box) else 1
        self.names = tuple(names) or tuple(f'action{k}' for k in range(count))
        if len(self.names) != count:
            raise ConfigError(f'names: {len(self.names)} given; the environment takes {count}')

    def apply(self, values: np.ndarray | None) -> Any:
        """
        Make an action of the environment.

        :param values: ``float[A]``; None for zeros. What lies outside of the limits is cut off.
        """
        space = self._space
        if isinstance(space, spaces.Discrete):
            index = 0 if values is None else round(float(values[0]))
            return int(np.clip(index, space.start, space.start + space.n - 1))
        given = np.zeros(space.shape) if values is None else values.reshape(space.shape)
        return np.clip(given, space.low, space.high).astype(space.dtype)


def make_environment(name: str, options: str) -> gymnasium.Env[Any, Any]:
    """
    Make an environment.

    :param name: as ``gymnasium.make`` takes it.
    :param options: keyword arguments, as a JSON object; empty for none.
    :raises ConfigError: if there is none of that name, or it cannot be made.
    """
    try:
        arguments = json.loads(options or '{}')
    except ValueError as error:
        raise ConfigError(f'options: not JSON ({error})') from error
    if not isinstance(arguments, dict):
        raise ConfigError('options: expected a JSON object, such as {"g": 9.81}')
    try:
        return gymnasium.make(name, **arguments)
    except Exception as error:  # what an environment raises has no end
        reason = ' '.join(str(error).split())[:200]
        raise ConfigError(
            f'environment: {name} cannot be made ({reason}); give MODULE:NAME if a module has to'
            ' register it'
        ) from error


def unstamped(message_type: type) -> bool:
    """Whether messages of a type carry no stamp, so that they are stamped on receipt."""
    return message_name(message_type) in (STAMPLESS, message_name(String))
