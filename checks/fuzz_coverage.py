"""
The same input path under atheris, which looks for inputs that reach new lines of the code.

    pip install atheris && python -m checks.fuzz_coverage -max_total_time=600

Options are those of libFuzzer. It ends with a traceback and exit code 77 at the first message
that raises, or that a codec fails on in a way that it did not expect.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=['mm_perception.ros', 'mm_perception.modalities']):
    from checks.fuzz_messages import INPUTS, InputPath, fuzzed_spec
    from checks.malformed_messages import real_messages

from rclpy.serialization import deserialize_message

PATH = InputPath(fuzzed_spec())
TYPES = {name: messages[0].message_type for name, messages in real_messages(1).items()}


def test_one_input(data: bytes) -> None:
    """Take a message: one byte for the modality, the rest serialised."""
    if len(data) < 5:
        return
    name, _, message_type, _ = INPUTS[data[0] % len(INPUTS)]
    try:
        message = deserialize_message(data[1:], TYPES[message_type])
    except Exception:  # noqa: BLE001 - rclpy has no type for it; the middleware drops such data
        return
    PATH.take(name, message)
    if PATH.defects:
        raise AssertionError(PATH.defects[-1])


def write_corpus(folder: str) -> None:
    """Write real messages, from which the search begins."""
    from pathlib import Path

    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    real = real_messages(2)
    for number, (name, _, message_type, _) in enumerate(INPUTS):
        for k, message in enumerate(real[message_type]):
            (place / f'{name}{k}').write_bytes(bytes([number]) + message.data)


if __name__ == '__main__':
    folders = [argument for argument in sys.argv[1:] if not argument.startswith('-')]
    if folders:
        write_corpus(folders[0])
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
