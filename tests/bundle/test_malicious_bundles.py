"""Bundles that someone else made to harm: refused in one line, without the memory they ask for."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mm_perception.bundle import WEIGHTS, _manifest_hash, load_bundle, save_bundle
from mm_perception.cli.main import main
from mm_perception.engines.torch_engine import load_model
from mm_perception.errors import BundleError
from tests.helpers.small_bundle import make_bundle

MAX_MEMORY_BYTES = 64 << 20
ROOT = Path(__file__).parents[2]
TRIES = os.environ.get('FUZZ_BUNDLES', '200')
Damage = Callable[[Path], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_bundle(make_bundle(), tmp_path / 'small', '# small\n').path


def forge(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest and make its hashes right again, as a forger would."""
    file = folder / 'bundle.json'
    manifest = json.loads(file.read_text())
    for name in manifest['files']:
        manifest['files'][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    change(manifest)
    manifest['hash'] = _manifest_hash(manifest)
    file.write_text(json.dumps(manifest))


def manifest_with(change: Callable[[dict[str, Any]], object]) -> Damage:
    return lambda folder: forge(folder, change)


def spec_with(**values: object) -> Damage:
    return manifest_with(lambda manifest: manifest['spec'].update(values))


def camera_with(**values: object) -> Damage:
    return manifest_with(lambda manifest: manifest['spec']['modalities'][0].update(values))


def weights_with(change: Callable[[dict[str, Any]], object], length: int = 0) -> Damage:
    """Change the header of the weights; ``length``: what the file says that its length is."""

    def damage(folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        size = int.from_bytes(content[:8], 'little')
        header = json.loads(content[8 : 8 + size])
        change(header)
        text = json.dumps(header).encode()
        start = (length or len(text)).to_bytes(8, 'little')
        (folder / WEIGHTS).write_bytes(start + text + content[8 + size :])
        forge(folder, lambda manifest: None)

    return damage


def first(header: dict[str, Any]) -> dict[str, Any]:
    return next(entry for name, entry in sorted(header.items()) if entry['shape'])


def link_weights(target: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / WEIGHTS).symlink_to(target)

    return damage


def make_pipe(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)


def make_huge(folder: Path) -> None:
    """A file without content that says that it has 3 TB."""
    with (folder / WEIGHTS).open('wb') as file:
        file.truncate(3 << 40)


def nest(folder: Path) -> None:
    (folder / 'bundle.json').write_text('{"a":' + '[' * 1_000_000)


def nest_header(folder: Path) -> None:
    text = b'{"a":' + b'[' * 500_000 + b']' * 500_000 + b'}'
    (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, 'little') + text)
    forge(folder, lambda manifest: None)


def many_arrays(header: dict[str, Any]) -> None:
    empty = {'dtype': 'F32', 'shape': [0], 'data_offsets': [0, 0]}
    header.update({f'a{k}': empty for k in range(100_000)})


CASES: dict[str, tuple[Damage, str]] = {
    'header longer than the file': (weights_with(lambda h: None, 1 << 40), 'header claims more'),
    'header of the largest length': (
        weights_with(lambda h: None, 2**64 - 1),
        'header claims more',
    ),
    'header too short': (weights_with(lambda h: None, 20), 'not safetensors'),
    'huge shape': (
        weights_with(lambda h: first(h).update(shape=[1 << 40, 1 << 40])),
        'overflow computing buffer size',
    ),
    'shape that overflows': (
        weights_with(lambda h: first(h).update(shape=[1 << 32, 1 << 32, 0])),
        'overflow computing buffer size',
    ),
    'negative shape': (weights_with(lambda h: first(h).update(shape=[-1, -4])), 'expected usize'),
    'many dimensions': (
        weights_with(lambda h: first(h).update(shape=[1] * 999)),
        'not safetensors',
    ),
    'wrong type': (weights_with(lambda h: first(h).update(dtype='F8_E5M2')), 'not safetensors'),
    'type that is no word': (
        weights_with(lambda h: first(h).update(dtype=[1])),
        'not safetensors',
    ),
    'arrays over each other': (
        weights_with(lambda h: [e.update(data_offsets=[0, 64]) for e in h.values()]),
        'not safetensors',
    ),
    'offsets beyond the end': (
        weights_with(lambda h: first(h).update(data_offsets=[0, 1 << 60])),
        'not safetensors',
    ),
    'too many arrays': (weights_with(many_arrays), 'header claims more than 4 MiB'),
    'header nested deeply': (nest_header, 'not safetensors'),
    'manifest nested deeply': (nest, 'nested too deeply'),
    'file outside': (
        manifest_with(lambda m: m['files'].update({'../../../etc/passwd': ''})),
        "strange file '../../../etc/passwd'",
    ),
    'absolute file': (
        manifest_with(lambda m: m['files'].update({'/etc/passwd': ''})),
        'strange file',
    ),
    'name outside': (manifest_with(lambda m: m.update(name='../../x')), 'name must be'),
    'name of two lines': (manifest_with(lambda m: m.update(name='a\nb')), 'name must be'),
    'files that are no object': (
        manifest_with(lambda m: m.update(files={}) or m.update(statistics=[])),
        'statistics: expected keys and values',
    ),
    'link to another file': (link_weights('/etc/passwd'), 'altered'),
    'link to a device': (link_weights('/dev/zero'), 'not a regular file'),
    'link to itself': (link_weights(WEIGHTS), 'cannot be read'),
    'pipe': (make_pipe, 'not a regular file'),
    'file of 3 TB': (make_huge, 'larger than 2048 MiB'),
    'picture of 10^12 pixels': (
        camera_with(preprocessing={'height': 10**6, 'width': 10**6}),
        'image: elements',
    ),
    'picture without pixels': (camera_with(preprocessing={'height': 0}), 'give positive sizes'),
    'mel banks of 4 GiB': (
        manifest_with(
            lambda m: m['spec']['modalities'][2]['preprocessing'].update(
                mels=1000, transform_length=1 << 20
            )
        ),
        'transform_length is 1048576; give 1 to 16384',
    ),
    'number that is none': (camera_with(max_age_s=float('nan')), 'max_age_s: not a number'),
    'kind that moves the cursor': (camera_with(kind='\x1b[31m'), 'unknown kind "\\x1b[31m"'),
    'number beyond all sizes': (spec_with(joint_latent_dim=10**15), 'is more than 1048576'),
    'thousands of layers': (spec_with(joint_hidden=[8] * 5000), 'spec.joint_hidden: 5000'),
    'key of two lines': (spec_with(**{'a\nb': 1}), 'unknown key'),
    'value of a megabyte': (spec_with(family=['x' * 1_000_000]), 'expected str'),
}


@pytest.mark.parametrize('case', CASES)
def test_malicious_bundle_is_refused_in_one_line_and_little_memory(
    folder: Path, case: str
) -> None:
    damage, message = CASES[case]
    damage(folder)
    tracemalloc.start()
    try:
        with pytest.raises(BundleError) as error:
            load_bundle(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    said = str(error.value)
    assert message in said and '\n' not in said and len(said) < 800
    assert peak < MAX_MEMORY_BYTES


def test_malicious_spec_of_large_networks_takes_no_memory(folder: Path) -> None:
    spec_with(joint_hidden=[1 << 20] * 60, decoder_hidden=[1 << 20] * 60)(folder)
    with pytest.raises(BundleError, match='weights do not fit the spec') as error:
        load_model(load_bundle(folder))
    assert '\n' not in str(error.value)


def test_malicious_network_that_cannot_be_built_is_refused(folder: Path) -> None:
    spec_with(joint_latent_dim=-3)(folder)
    with pytest.raises(BundleError, match='cannot be built') as error:
        load_model(load_bundle(folder))
    assert '\n' not in str(error.value)


def test_bundle_of_links_to_its_own_files_is_read(folder: Path, tmp_path: Path) -> None:
    linked = tmp_path / 'linked'
    linked.mkdir()
    for file in folder.iterdir():
        (linked / file.name).symlink_to(file)
    assert load_bundle(linked).hash == load_bundle(folder).hash


def test_malicious_manifests_are_refused_in_one_line_or_run(tmp_path: Path) -> None:
    """Every value of a manifest replaced by odd ones, loaded, built and run once."""
    report = tmp_path / 'fuzz.json'
    command = [
        sys.executable,
        '-m',
        'checks.fuzz_bundles',
        '--tries',
        TRIES,
        '--json',
        str(report),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = json.loads(report.read_text())
    assert found['tries'] == int(TRIES) and found['wrong'] == 0
    assert 0 < found['runs'] < found['refused'], 'what is odd is mostly refused'


def test_card_of_a_bundle_neither_blocks_nor_reaches_the_terminal(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = folder / 'README.md'
    card.write_text('# small\n\x1b]0;owned\x07\n')
    assert main(['info', str(folder)]) == 0
    said = capsys.readouterr().out
    assert '\\x1b]0;owned\\x07' in said and '\x1b' not in said
    card.unlink()
    os.mkfifo(card)
    assert main(['info', str(folder)]) == 2
    card.unlink()
    card.symlink_to('/dev/zero')
    assert main(['info', str(folder)]) == 2
    assert capsys.readouterr().err.count('not a regular file') == 2
