import json

import pytest

from mm_perception.cli.main import main
from mm_perception.data.dataset import load_dataset


def test_build_data_command_builds_and_reports(raw_root, tmp_path, capsys):
    out, report = tmp_path / 'mhd', tmp_path / 'report.json'
    sizes = [
        '--train-size',
        '20',
        '--test-size',
        '10',
        '--generated-voices',
        'none',
        '--mnist-size',
        '0',
    ]
    places = ['--data', str(raw_root), '--out', str(out), '--json', str(report)]
    assert main(['build-data', 'mhd', *sizes, *places]) == 0
    assert len(load_dataset(out, 'train')) == 20
    assert json.loads(report.read_text())['splits']['test']['samples'] == 10
    assert str(out) in capsys.readouterr().out


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['mhd', '--data', 'nowhere'], 'nowhere/fsdd'),
        (['samples', '--data', 'nowhere'], 'nowhere/ujipenchars2'),
        (['mhd', '--train-size', '7'], 'multiple of 10'),
        (['mhd', '--validation-size', '7'], 'validation_size is 7; give a multiple of 10'),
        (['mnist', '--data', 'nowhere'], 'nowhere/mnist/train-images-idx3-ubyte.gz'),
        (['mhd', '--generated-voices', 'many'], 'all, none or a number'),
        (['mhd', '--from-authors', 'nowhere'], 'mhd_train.pt'),
    ],
)
def test_build_data_command_bad_input_is_one_line(tmp_path, capsys, options, words):
    assert main(['build-data', *options, '--out', str(tmp_path / 'out')]) == 2
    message = capsys.readouterr().err.strip()
    assert words in message and '\n' not in message
    assert list(tmp_path.iterdir()) == []
