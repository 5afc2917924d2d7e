"""The policy that the tutorial tells to write, beside a node."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from mm_perception.bundle import Bundle
from tests.helpers.robot import NodeProcess, Robot

TUTORIAL = (Path(__file__).parents[2] / 'docs' / 'tutorial.md').read_text()
SECOND, READ = '/second', 'latent = read_table(message)'


def test_the_policy_takes_latents_of_its_own_bundle_only(
    start: Callable[..., NodeProcess], robot: Robot, bundle: Bundle, tmp_path: Path
) -> None:
    [code] = re.findall(r'```python\n(import rclpy.*?)```', TUTORIAL, re.DOTALL)
    known, own = "'latent/my_robot@0123abcd'", tmp_path / 'own.py'
    assert known in code and READ in code
    (tmp_path / 'other.py').write_text(code)
    shown = code.replace(READ, f'{READ}; print(len(latent["mean"]), "numbers", flush=True)')
    own.write_text(shown.replace(known, repr(bundle.frame_id)))
    start(f'bundle:={bundle.path}', 'autostart:=true', 'device:=cpu')
    robot.live = {'image'}
    robot.until_used({'image'}, 30.0)
    policies = [
        NodeProcess(tmp_path / f'{name}.log', namespace=SECOND, script=tmp_path / f'{name}.py')
        for name in ('own', 'other')
    ]
    try:
        sought = f'{bundle.spec.joint_latent_dim} numbers'
        robot.until(lambda: sought in policies[0].log, 'no latent reached the policy')
        robot.until(lambda: policies[1].process.poll() is not None, 'it took any latent')
        assert f'another bundle than {bundle.frame_id}' in policies[1].log
        assert policies[0].process.poll() is None
    finally:
        for policy in policies:
            if policy.process.poll() is None:
                policy.kill()
