"""``mm-perception info``: a bundle's model card, what this version knows, the microphones."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm_perception.config import to_plain
from mm_perception.errors import ConfigError, DataError

if TYPE_CHECKING:
    from mm_perception.bundle import Bundle

EXAMPLES = """examples:
  mm-perception info mhd
  mm-perception info models/my_robot --json my_robot.json
  mm-perception info --families
  mm-perception info --kinds
  mm-perception info --devices
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to ``mm-perception``."""
    parser = subparsers.add_parser(
        'info',
        help='show a bundle, the model families, the kinds of modalities, the microphones',
        description='Show the model card of a bundle, after checking that nothing in it was'
        ' altered; or what this version knows, or what can'
        ' record sound here.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument('bundle', nargs='?', help='a name under models/, or a folder')
    what.add_argument('--families', action='store_true', help='model families, one a line')
    what.add_argument('--kinds', action='store_true', help='kinds of modalities, one a line')
    what.add_argument(
        '--devices', action='store_true', help='sound devices that microphone_node can record from'
    )
    parser.add_argument('--json', type=Path, help='write the same to this file')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show it; returns the exit code."""
    content: Any
    if args.families:
        from mm_perception.model.build import FAMILIES

        content = list(FAMILIES)
        print('\n'.join(content))
    elif args.kinds:
        from mm_perception.modalities import kinds

        content = list(kinds())
        print('\n'.join(content))
    elif args.devices:
        content = _devices()
    else:
        from mm_perception.bundle import load_bundle

        bundle = load_bundle(args.bundle)
        content = describe(bundle)
        print(_card(bundle))
        _print_topics(content['topics'])
    if args.json is not None:
        try:
            args.json.write_text(json.dumps(content, indent=1) + '\n')
        except OSError as error:
            raise DataError(f'{args.json}: cannot be written ({error.strerror})') from error
    return 0


def _devices() -> list[dict[str, Any]]:
    """Print the sound devices, and the blocks that microphone_node reads from them."""
    from mm_perception.ros import microphone_node

    devices = microphone_node.input_devices(microphone_node.load_sounddevice())
    chunk_s = next(row.default for row in microphone_node.ROWS if row.name == 'chunk_s')
    content = []
    for each in devices:
        block = round(float(chunk_s) * each.rate_hz)  # type: ignore[arg-type]
        content.append({**vars(each), 'block': block})
        mark = '*' if each.default else ' '
        print(
            f'{mark} {each.number:3d}  {each.name}: {each.channels} channels,'
            f' {each.rate_hz:g} Hz, blocks of {block} samples ({chunk_s} s)'
        )
    if not devices:
        print('no sound device that records')
    return content


def describe(bundle: Bundle) -> dict[str, Any]:
    """All that is known about a bundle but its weights, as plain data."""
    return {
        'name': bundle.name,
        'hash': bundle.hash,
        'frame_id': bundle.frame_id,
        'path': str(bundle.path),
        'labels': list(bundle.labels),
        'weights': sum(int(values.size) for values in bundle.weights.values()),
        'spec': to_plain(bundle.spec),
        'statistics': to_plain(bundle.statistics),
        'metrics': to_plain(bundle.metrics),
        'training': to_plain(bundle.training),
        'topics': topics(bundle),
    }


def topics(bundle: Bundle) -> list[dict[str, str]]:
    """
    Topics of the node ``cmi`` with a bundle: name, direction, type, size and unit of each.

    :returns: nothing where no ROS messages are installed; of a sensor whose type is not, why.
    """
    try:
        from mm_perception.ros.codecs import codec_for, filled_type, message_name, output_codec
    except ImportError:
        return []
    from mm_perception.modalities import build_modality

    rows = _latent_topics(bundle)
    for spec in bundle.spec.modalities:
        modality = build_modality(spec)
        output = output_codec(spec.kind)
        size = ' x '.join(map(str, modality.shape))
        size += f' ({", ".join(modality.labels)})' if modality.labels else ''
        unit = MODEL if isinstance(modality.unit_scale, float) else SENSOR
        try:
            codec = codec_for(modality)
        except ConfigError as error:
            rows.append((spec.topic or spec.name, 'in', spec.message, str(error), ''))
            continue
        pixels, spread = (LEVELS, SENSOR) if spec.kind == 'image' else (unit, unit)
        filled = message_name(filled_type(spec.kind, codec))
        base, own = f'reconstruction/{spec.name}', filled == codec.name
        rows += [
            (codec.topic_of(spec), 'in', codec.heard, size, SENSOR),
            (f'filled/{spec.name}', 'out', filled, *((AS_SENT, SENSOR) if own else (size, unit))),
            (base, 'out', message_name(output.message_type), size, pixels),
            (f'{base}/std', 'out', message_name(output.std_type), size, spread),
        ]
    keys = 'topic', 'direction', 'type', 'size', 'unit'
    return [dict(zip(keys, row, strict=True)) for row in rows]


def _latent_topics(bundle: Bundle) -> list[tuple[str, ...]]:
    size = f'{bundle.spec.joint_latent_dim} means and std'
    types = {
        'latent': 'sensor_msgs/msg/PointCloud2',
        'latent/vector': 'std_msgs/msg/Float32MultiArray',
        'latent/stamped': 'sensor_msgs/msg/JointState',
    }
    return [(topic, 'out', kind, size, 'of the prior') for topic, kind in types.items()]


SENSOR, MODEL, LEVELS = 'of the sensor', '0 to 1 of the model', 'levels of 255'
AS_SENT = 'as the sensor sent last'


def _print_topics(rows: list[dict[str, str]]) -> None:
    if not rows:
        print('topics are listed where the messages of ROS 2 can be imported')
    for row in rows:
        unit = f'; unit {row["unit"]}' if row['unit'] else ''
        print(f'{row["direction"]:3} {row["topic"]}: {row["type"]}: {row["size"]}{unit}')


def _card(bundle: Bundle) -> str:
    from mm_perception.bundle import read_card

    return f'{read_card(bundle).rstrip()}\n\n{bundle.path}: {bundle.frame_id}'
