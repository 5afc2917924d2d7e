"""What the page on policies shows works as it stands there."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from mm_perception.cli.main import COMMANDS, _build_parser
from mm_perception.resources import share_directory

PAGE = (share_directory() / 'docs' / 'rl.md').read_text(encoding='utf-8')
WHOLE_LINES = PAGE.replace('\\\n', '')
COMMAND_LINES = re.findall(r'^mm-perception ([^#\n]+)', WHOLE_LINES, re.MULTILINE)
BLOCKS = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)


@pytest.mark.parametrize('line', COMMAND_LINES)
def test_commands_of_the_page_are_understood(line: str):
    words = shlex.split(line)
    parser = _build_parser(words[0])
    importlib.import_module(COMMANDS[words[0]][0]).add_parser(parser.get_default('subparsers'))
    assert parser.parse_args(words).run


def test_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for folder in ('config', 'models/pendulum'):
        shutil.copytree(share_directory() / folder, tmp_path / folder)
    assert len(BLOCKS) == 5
    names: dict = {}
    for block in BLOCKS[:3]:
        exec(block, names)  # noqa: S102
    assert len(names['dataset']) == 400 and names['observations'].shape[0] == 64
    latent = names['env'].observer.layout.latent_dim
    names |= {
        'bundle_hash': names['env'].observer.perception.bundle.hash,
        'latent_dim': latent,
        'mean': np.zeros(latent, np.float32),
        'std': np.ones(latent, np.float32),
        'mask': np.ones(3, bool),
    }
    exec(BLOCKS[3], names)  # noqa: S102
    assert names['action'].shape == (1,)
    shutil.copy('models/pendulum/policy/policy.onnx', 'my_policy.onnx')
    exec(BLOCKS[4], names)  # noqa: S102
    assert (tmp_path / 'my_policy' / 'policy.json').is_file()
