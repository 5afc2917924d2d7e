"""
The trained artefact on disk.

A bundle is a folder: ``bundle.json`` (spec, preprocessing, labels, statistics, metrics and the
SHA-256 of every file), ``model.safetensors``, ``classifiers.safetensors`` (judges of
coherence, optional), ``graphs.safetensors`` (ONNX graphs without weights, optional),
``README.md`` (the model card) and ``recordings/`` (samples, optional).
Nothing in it is code or a pickle. Needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save_file

from mm_perception.config import from_plain, to_plain
from mm_perception.errors import BundleError, ConfigError, MMPerceptionError
from mm_perception.modalities import build_modality, complete_options
from mm_perception.resources import share_directory
from mm_perception.spec import ModelSpec

MAX_HEADER_BYTES = 4 << 20
MAX_TENSORS = 20_000
MAX_DIMENSIONS = 8
ITEM_BYTES = {'F64': 8, 'F32': 4, 'F16': 2, 'I64': 8, 'I32': 4, 'U8': 1, 'BOOL': 1}


def read_object(file: Path, limit: int) -> dict[str, Any]:
    """
    Read a JSON object.

    :param limit: bytes that the file may have.
    :raises BundleError: if it is missing, too large, nested too deeply or no JSON object.
    """
    try:
        found = json.loads(_read(file, limit))
    except RecursionError as error:
        raise BundleError(f'{file}: nested too deeply; not a bundle') from error
    except ValueError as error:
        raise BundleError(f'{file}: cannot be read ({error}); get the bundle again') from error
    if not isinstance(found, dict):
        raise BundleError(f'{file}: no JSON object; not a bundle')
    return found


def read_arrays(file: Path, limit: int, digest: str) -> Mapping[str, np.ndarray]:
    """
    Read a safetensors file.

    :param limit: bytes that the file may have.
    :param digest: SHA-256 that its content must have.
    :raises BundleError: if it is missing, too large, altered, or not what it claims to be.
    """
    content = _read(file, limit)
    if hashlib.sha256(content).hexdigest() != digest:
        raise BundleError(f'{file}: truncated or altered (hash differs); get the bundle again')
    try:
        _check_header(content)
        arrays: Mapping[str, np.ndarray] = load(content)
    except (SafetensorError, RecursionError, ValueError, TypeError, KeyError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise BundleError(f'{file}: not safetensors ({reason}); get the bundle again') from error
    return arrays


def file_hash(file: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with file.open('rb') as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read(file: Path, limit: int) -> bytes:
    """Content of a regular file (or a link to one) that is not larger than the limit."""
    try:
        # Not blocking, so that a pipe in place of the file does not hold the node up.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise BundleError(f'{file}: missing; get the bundle again') from error
    except OSError as error:
        raise BundleError(f'{file}: cannot be read ({error.strerror}); check it') from error
    with os.fdopen(descriptor, 'rb') as opened:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f'{file}: not a regular file; get the bundle again')
        if status.st_size > limit:
            raise BundleError(f'{file}: larger than {limit >> 20} MiB; not a bundle')
        return opened.read(status.st_size)


def _check_header(content: bytes) -> None:
    """
    Hold what a safetensors header claims against the length of the file.

    :raises ValueError: if it claims more than there is, less, or anything unusual.
    """
    length = int.from_bytes(content[:8], 'little')
    size = len(content) - 8 - length
    if length > MAX_HEADER_BYTES or size < 0:
        raise ValueError(f'its header claims {length} bytes')
    header = json.loads(content[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError('its header is no object')
    header.pop('__metadata__', None)
    if len(header) > MAX_TENSORS:
        raise ValueError(f'it lists {len(header)} arrays, at most {MAX_TENSORS} are read')
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: _offsets(*item)):
        begin, after = _offsets(name, entry)
        if begin != end or after - begin != _claimed_bytes(name, entry):
            raise ValueError(f'{name[:80]!r} does not lie where its shape says')
        end = after
    if end != size:
        raise ValueError(f'its arrays fill {end} of {size} bytes')


def _offsets(name: str, entry: Any) -> tuple[int, int]:
    found = entry.get('data_offsets') if isinstance(entry, dict) else None
    if not isinstance(found, list) or len(found) != 2 or not all(map(_is_count, found)):
        raise ValueError(f'{name[:80]!r} has no data_offsets')
    return found[0], found[1]


def _claimed_bytes(name: str, entry: Mapping[str, Any]) -> int:
    kind, shape = entry.get('dtype'), entry.get('shape')
    if kind not in ITEM_BYTES:
        raise ValueError(f'{name[:80]!r} is of type {str(kind)[:20]!r}')
    if not isinstance(shape, list) or not all(map(_is_count, shape)):
        raise ValueError(f'{name[:80]!r} has no shape')
    if len(shape) > MAX_DIMENSIONS:
        raise ValueError(f'{name[:80]!r} has {len(shape)} dimensions')
    claimed = ITEM_BYTES[kind]
    for count in shape:
        claimed *= count
    return claimed


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48


MAX_MODALITIES = 64
MAX_LAYERS = 64
MAX_LIST = 4096
MAX_NUMBER = 1 << 20
MAX_ELEMENTS = 1 << 22
"""Of one modality's array: 16 MiB, a picture of 2048 x 2048."""


def check_sizes(spec: ModelSpec) -> None:
    """
    Check that a spec asks for nothing that is absurdly large.

    Memory for the networks is bounded by the file of the weights, whose shapes they must have.

    :raises ConfigError: naming the path of what is too large, and the limit.
    """
    _check(len(spec.modalities), MAX_MODALITIES, 'modalities')
    for path, value in _walk(to_plain(spec), 'spec'):
        if isinstance(value, list):
            layers = '.network.' in path or path.endswith('_hidden')
            _check(len(value), MAX_LAYERS if layers else MAX_LIST, path)
        elif isinstance(value, int | float) and math.isfinite(value):
            _check(abs(value), MAX_NUMBER, path)
    for modality in spec.modalities:
        shape = build_modality(modality).shape
        if min(shape) < 1:
            raise ConfigError(f'{modality.name}: its array has shape {shape}; give positive sizes')
        _check(math.prod(shape), MAX_ELEMENTS, f'{modality.name}: elements')


def _check(value: float, limit: int, path: str) -> None:
    if value > limit:
        raise ConfigError(f'{path}: {value:.10g} is more than {limit}')


def _walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, value
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _walk(item, f'{path}.{key}')
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _walk(item, f'{path}[{i}]')


FORMAT = 1
MANIFEST = 'bundle.json'
WEIGHTS = 'model.safetensors'
CLASSIFIERS = 'classifiers.safetensors'
GRAPHS = 'graphs.safetensors'
CARD = 'README.md'
MAX_MANIFEST_BYTES = 4 << 20
MAX_BYTES = {WEIGHTS: 2 << 30, CLASSIFIERS: 2 << 30, GRAPHS: 16 << 20}
UNHASHED = ('hash', 'metrics', 'training', 'graphs', 'health')
"""Entries of the manifest that do not name the latent space."""
Arrays = Mapping[str, np.ndarray]
NAME = r'[A-Za-z0-9_.-]{1,100}'


@dataclass(frozen=True)
class Bundle:
    """
    A trained model with all that is needed to run it.

    :param hash: SHA-256 over everything that determines the model's outputs.
    :param statistics: of the training set, per modality.
    :param metrics: as measured when the bundle was made.
    :param training: how the bundle was made (command, seconds, machine, versions).
    :param graphs: ONNX graphs of the model's parts, without weights; empty if not exported.
    :param health: calibration of the health checks, plain data.
    """

    name: str
    spec: ModelSpec
    weights: Arrays
    classifiers: Arrays = field(default_factory=dict)
    classifier_options: Mapping[str, Any] = field(default_factory=dict)
    statistics: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    graphs: Mapping[str, bytes] = field(default_factory=dict)
    health: Mapping[str, Any] = field(default_factory=dict)
    hash: str = ''
    path: Path = Path()

    @property
    def frame_id(self) -> str:
        """Name of the latent space: latents of different bundles cannot be compared."""
        return f'latent/{self.name}@{self.hash[:8]}'

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the first modality that has any."""
        for modality in self.spec.modalities:
            labels = build_modality(modality).labels
            if labels:
                return labels
        return ()


def find_bundle(name_or_path: str | Path) -> Path:
    """
    Find a bundle's folder: a path, or a name under ``models/``.

    :raises BundleError: if there is none; lists the names that exist.
    """
    models = share_directory() / 'models'
    for candidate in (Path(name_or_path).expanduser(), models / name_or_path):
        if (candidate / MANIFEST).is_file():
            return candidate
    known = sorted(path.parent.name for path in models.glob(f'*/{MANIFEST}'))
    raise BundleError(
        f'no bundle "{name_or_path}" (no {MANIFEST} in it); give a folder or one of:'
        f' {", ".join(known) or "none is installed"}'
    )


def save_bundle(bundle: Bundle, path: Path, card: str) -> Bundle:
    """
    Write a bundle; a folder of that name keeps what a bundle does not own (recordings).

    :param card: text of the model card, Markdown.
    :returns: the bundle with its hash and path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    spec = replace(
        bundle.spec,
        modalities=tuple(
            replace(m, preprocessing=complete_options(m)) for m in bundle.spec.modalities
        ),
    )
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f'.{path.name}-') as temporary:
        folder = Path(temporary)
        files = {}
        for name, arrays in ((WEIGHTS, bundle.weights), (CLASSIFIERS, bundle.classifiers)):
            if arrays:
                files[name] = _write_arrays(folder / name, arrays)
        manifest = {
            'format': FORMAT,
            'name': bundle.name,
            'spec': to_plain(spec),
            'files': files,
            'classifier_options': to_plain(bundle.classifier_options),
            'statistics': to_plain(bundle.statistics),
        }
        manifest['hash'] = _manifest_hash(manifest)
        manifest |= {'metrics': bundle.metrics, 'training': bundle.training}
        _write_additions(bundle, manifest, folder)
        (folder / CARD).write_text(card)
        path.mkdir(exist_ok=True)
        _move_files(folder, path)
    return replace(bundle, spec=spec, hash=manifest['hash'], path=path)


def save_additions(bundle: Bundle) -> None:
    """Write graphs and health of a saved bundle into its folder; all else stays as it is."""
    path = bundle.path
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f'.{path.name}-') as temporary:
        _write_additions(bundle, _read_manifest(path), Path(temporary))
        _move_files(Path(temporary), path)


def load_bundle(name_or_path: str | Path) -> Bundle:
    """
    Read a bundle, refusing anything that is not exactly what was saved.

    :raises BundleError: if it is missing, truncated, altered or of another format.
    """
    path = find_bundle(name_or_path)
    manifest = _read_manifest(path)
    try:
        spec = from_plain(ModelSpec, manifest['spec'], 'spec')
        check_sizes(spec)
    except (MMPerceptionError, ValueError, TypeError) as error:
        reason = ' '.join(str(error).split())[:300]
        raise BundleError(f'{path / MANIFEST}: {reason}; made by another version?') from error
    files = dict(manifest['files'])
    if manifest.get('graphs'):
        files[GRAPHS] = manifest['graphs']
    strange = [name for name in files if name not in MAX_BYTES]
    if strange:
        name = strange[0][:80]
        raise BundleError(f'{path / MANIFEST}: lists a strange file {name!r}; not a bundle')
    arrays = {name: read_arrays(path / name, MAX_BYTES[name], files[name]) for name in files}
    if WEIGHTS not in arrays:
        raise BundleError(f'{path}: lists no {WEIGHTS}; get the bundle again')
    return Bundle(
        name=manifest['name'],
        spec=spec,
        weights=arrays[WEIGHTS],
        classifiers=arrays.get(CLASSIFIERS, {}),
        classifier_options=manifest['classifier_options'],
        statistics=manifest['statistics'],
        metrics=manifest['metrics'],
        training=manifest['training'],
        graphs={k: v.tobytes() for k, v in arrays.get(GRAPHS, {}).items()},
        health=manifest.get('health', {}),
        hash=manifest['hash'],
        path=path,
    )


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    manifest = read_object(file, MAX_MANIFEST_BYTES)
    if manifest.get('format') != FORMAT:
        found = repr(manifest.get('format'))[:40]
        raise BundleError(f'{file}: format {found}, this version reads {FORMAT}; train it again')
    keys = ('name', 'spec', 'files', 'classifier_options', 'statistics', 'metrics', 'training')
    missing = [key for key in (*keys, 'hash') if key not in manifest]
    if missing:
        raise BundleError(f'{file}: lacks {", ".join(missing)}; get the bundle again')
    for key in (*keys[2:], 'health'):
        if not isinstance(manifest.get(key, {}), dict):
            raise BundleError(f'{file}: {key} must be an object; get the bundle again')
    if not isinstance(manifest['name'], str) or not re.fullmatch(NAME, manifest['name']):
        raise BundleError(f'{file}: name must be letters, digits and any of _.-; rename it')
    hashed = {k: v for k, v in manifest.items() if k not in UNHASHED}
    if _manifest_hash(hashed) != manifest['hash']:
        raise BundleError(f'{file}: altered (its hash does not match); get the bundle again')
    return manifest


def _write_additions(bundle: Bundle, manifest: dict[str, Any], folder: Path) -> None:
    manifest['health'] = to_plain(bundle.health)
    if bundle.graphs:
        content = {k: np.frombuffer(v, np.uint8) for k, v in bundle.graphs.items()}
        manifest['graphs'] = _write_arrays(folder / GRAPHS, content)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + '\n')


def _move_files(source: Path, target: Path) -> None:
    for name in sorted(os.listdir(source), key=lambda name: name == MANIFEST):
        (source / name).chmod(0o644)  # safetensors writes for the owner alone
        shutil.move(source / name, target / name)


def _write_arrays(file: Path, arrays: Arrays) -> str:
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, file)
    return file_hash(file)


def _manifest_hash(manifest: Mapping[str, Any]) -> str:
    canonical = json.dumps(manifest, sort_keys=True, separators=(',', ':'))
    return hashlib.sha256(canonical.encode()).hexdigest()
