"""``mm-perception demo``: sensors fail one after the other, over live topics."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from mm_perception.errors import DataError

MISSED = 1
POLICY = 'policy'
ROBOTS = ('arm', 'pendulum')
EXAMPLES = """examples:
  mm-perception demo
  mm-perception demo --robot arm
  mm-perception demo --robot pendulum --gif pendulum.gif
  mm-perception demo --bundle models/my_robot --out my_report
  mm-perception demo --recordings real --data ../shared/data
  mm-perception demo --seconds-scale 0.4 --gif demo.gif

exit code: 0 if every target was met (or with --quick), 1 if one was missed, 2 if it could not run.
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to ``mm-perception``."""
    parser = subparsers.add_parser(
        'demo',
        help='sensors fail one after the other, over live topics',
        description='Start replay_node and cmi_node as processes of their own, take every sensor'
        ' away in turn, and pairs and triples of them, watch the topics as a consumer would, and'
        ' count how often what the model filled in shows the true digit, or measure its error'
        ' beside that of holding the last value.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_bundle_options(parser)
    _add_recordings_options(parser)
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('demo_report'),
        help='report folder (default: demo_report)',
    )
    parser.add_argument(
        '--rate-hz', type=_positive, default=10.0, help='of the node (default: 10)'
    )
    _add_duration_options(parser)
    parser.add_argument('--device', default='auto', choices=('auto', 'cpu', 'cuda'))
    parser.add_argument('--seed', type=int, default=0, help='of the order of the recordings')
    parser.add_argument('--json', type=Path, help='write the summary to this file too')
    parser.add_argument(
        '--gif',
        type=Path,
        metavar='FILE',
        help='write a moving picture of what failed and what was filled in (needs Pillow)',
    )
    parser.add_argument(
        '--lockstep',
        action='store_true',
        help='of the pendulum: step as fast as the machine goes, which gives the same each time',
    )
    parser.add_argument('--no-report', action='store_true', help='write no report folder')
    parser.set_defaults(run=run)


def _add_bundle_options(parser: argparse.ArgumentParser) -> None:
    robot = parser.add_mutually_exclusive_group()
    robot.add_argument('--bundle', default='mhd', help='a name or a folder (default: mhd)')
    robot.add_argument(
        '--robot',
        dest='bundle',
        choices=ROBOTS,
        help='a robot that ships: arm, a simulated one with recorded episodes, or pendulum, which'
        ' a policy swings up from the latent while its sensors die',
    )


def _add_duration_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--seconds-scale',
        type=_positive,
        default=1.0,
        help='longer or shorter phases (default: 1)',
    )
    parser.add_argument(
        '--quick',
        action='store_true',
        help='only one sensor out at a time, for two seconds each: too short to be judged',
    )


def _add_recordings_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--recordings',
        default='',
        metavar='DIR|real',
        help='what is played: a folder, of digits or of a robot, or real for test recordings of'
        ' pendigits and FSDD'
        ' (default: those that the bundle carries)',
    )
    parser.add_argument(
        '--data',
        type=Path,
        default=Path(os.environ.get('MM_PERCEPTION_DATA', '../shared/data')),
        help='folder of the raw recordings, for --recordings real'
        ' (default: $MM_PERCEPTION_DATA or ../shared/data)',
    )


def run(args: argparse.Namespace) -> int:
    """Run the demonstration; returns the exit code."""
    from mm_perception.bundle import load_bundle

    bundle = load_bundle(args.bundle)
    from rich.console import Console

    from mm_perception.lab.demo.pictures import load_pillow, write_gif
    from mm_perception.lab.demo.run import Demo, DemoOptions

    if args.gif is not None:
        load_pillow()
        if not args.gif.parent.is_dir():
            raise DataError(f'{args.gif}: its folder does not exist; make it first')
    if (bundle.path / POLICY).is_dir():
        return _act(args, bundle)
    console = Console(highlight=False)
    options = DemoOptions(
        recordings=args.recordings,
        data_root=args.data,
        rate_hz=args.rate_hz,
        scale=args.seconds_scale,
        device=args.device,
        seed=args.seed,
        quick=args.quick,
    )
    demo = Demo(bundle, options, console)
    outcome = demo.run()
    summary = outcome.summary
    if not args.no_report:
        _write_report(args.out, outcome, demo.modalities)
    if args.gif is not None:
        write_gif(args.gif, outcome.ticks, demo.modalities, outcome.judge)
    return _finish(args, summary, console)


def _act(args: argparse.Namespace, bundle: Any) -> int:
    """Run the demonstration of a bundle that has a policy; returns the exit code."""
    from mm_perception.lab.gym.node import load_gymnasium

    load_gymnasium()
    from rich.console import Console

    from mm_perception.lab.demo.acting import ActingDemo, ActingOptions
    from mm_perception.lab.demo.acting_report import write_acting_gif, write_acting_report

    console = Console(highlight=False)
    options = ActingOptions(args.lockstep, args.seconds_scale, args.device, args.seed, args.quick)
    demo = ActingDemo(bundle, options, console)
    summary, log = demo.run()
    if not args.no_report:
        write_acting_report(args.out, summary, log, demo.phases)
    if args.gif is not None:
        write_acting_gif(args.gif, log, demo.phases, bundle.spec.names)
    return _finish(args, summary, console)


def _finish(args: argparse.Namespace, summary: dict[str, Any], console: Any) -> int:
    """Say what was reached; returns the exit code."""
    if args.json is not None:
        _write_json(args.json, summary)
    _print_targets(summary, console)
    if not args.no_report:
        console.print(f'report: {args.out / "index.html"}')
    return 0 if summary['ok'] or args.quick else MISSED


def _write_report(folder: Path, outcome: Any, modalities: Any) -> None:
    from mm_perception.lab.demo.curves import draw_errors
    from mm_perception.lab.demo.error_judge import ErrorJudge
    from mm_perception.lab.demo.pictures import draw_phases
    from mm_perception.lab.demo.report import write_report

    ticks, judge = outcome.ticks, outcome.judge
    curves = None
    if isinstance(judge, ErrorJudge):
        curves = draw_errors(ticks, list(modalities), judge)
    write_report(folder, outcome.summary, draw_phases(ticks, modalities, judge), curves)


def _print_targets(summary: dict[str, Any], console: Any) -> None:
    latency = summary['latency_ms']
    if latency:
        console.print(f'latency p50 {latency["p50"]} ms, p99 {latency["p99"]} ms')
    for target in summary['targets']:
        value = 'not measured' if target['value'] is None else f'{target["value"]:.3g}'
        verdict = '[green]met[/]' if target['met'] else '[red]missed[/]'
        limit = f'{target["at_least"]:.3g}'
        if 'at_most' in target:
            limit += f' to {target["at_most"]:.3g}'
        console.print(f'{target["name"]:32} {value:>12}  target {limit}  {verdict}')


def _write_json(path: Path, summary: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(summary, indent=1) + '\n')
    except OSError as error:
        raise DataError(f'{path}: cannot be written ({error.strerror})') from error


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f'{text} is not positive')
    return value
