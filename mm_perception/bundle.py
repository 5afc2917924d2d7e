"""
The trained artefact on disk.

A bundle is a folder: ``bundle.json`` (spec, preprocessing, labels, statistics, metrics and the
SHA-256 of every file), ``model.safetensors``, ``classifiers.safetensors`` (classifiers for
evaluation, optional), ``*.onnx`` (graphs whose weights lie in those two files, optional),
``health.safetensors`` (class heads of the consistency check, optional), ``memory.safetensors``
(how a lost sensor is filled in over time, optional), ``README.md`` (the model card) and
``recordings/`` (samples, optional). Nothing in it is code or a pickle. Needs no torch.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mm_perception.config import from_plain, to_plain
from mm_perception.errors import BundleError, DataError, MMPerceptionError, printable
from mm_perception.modalities import build_modality, complete_options
from mm_perception.modalities.sizes import check_sizes
from mm_perception.resources import link_all, read_file, replace_folder, share_directory
from mm_perception.spec import ModelSpec

Arrays = Mapping[str, np.ndarray]
MAX_HEADER_BYTES = 4 << 20
"""Of a safetensors file, which itself allows 100 MB: a gigabyte of names of empty arrays."""


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


def read_hashed(file: Path, limit: int, digest: str) -> bytes:
    """
    Read a file.

    :param limit: bytes that it may have.
    :param digest: SHA-256 that its content must have.
    :raises BundleError: if it is missing, too large or altered.
    """
    content = _read(file, limit)
    if _digest(content) != digest:
        raise BundleError(f'{file}: truncated or altered (hash differs); get the bundle again')
    return content


def parse_arrays(file: Path, content: bytes) -> Arrays:
    """
    Arrays of a safetensors file.

    safetensors itself holds what the header claims against the length of the content.

    :raises BundleError: if it is not what it claims to be.
    """
    try:
        if int.from_bytes(content[:8], 'little') > MAX_HEADER_BYTES:
            raise ValueError(f'its header claims more than {MAX_HEADER_BYTES >> 20} MiB')
        arrays: Arrays = load(content)
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise BundleError(f'{file}: not safetensors ({reason}); get the bundle again') from error
    return arrays


def serialize(arrays: Arrays) -> bytes:
    """Content of a safetensors file; numbers alone become arrays of one."""
    content: bytes = save({k: np.ascontiguousarray(v) for k, v in arrays.items()})
    return content


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(file: Path, limit: int) -> bytes:
    try:
        return read_file(file, limit)
    except DataError as error:
        missing = isinstance(error.__cause__, FileNotFoundError)
        reason = f'{file}: missing' if missing else str(error)
        raise BundleError(f'{reason}; get the bundle again') from error


def read_card(bundle: Bundle) -> str:
    """
    Text of a bundle's model card, safe for a terminal.

    :raises BundleError: if it is missing, too large or no regular file.
    """
    text = _read(bundle.path / CARD, MAX_CARD_BYTES).decode('utf-8', 'replace')
    return '\n'.join(printable(line) for line in text.splitlines())


FORMAT = 2
"""Format 1 had its graphs, and the weights of the class heads, in other files."""
MANIFEST = 'bundle.json'
WEIGHTS = 'model.safetensors'
CLASSIFIERS = 'classifiers.safetensors'
HEALTH = 'health.safetensors'
MEMORY = 'memory.safetensors'
GRAPH = '.onnx'
CARD = 'README.md'
MAX_MANIFEST_BYTES = 4 << 20
MAX_WEIGHTS_BYTES = 2 << 30
MAX_CARD_BYTES = 1 << 20
MAX_ADDITIONS_BYTES = 64 << 20
"""Of all graphs, class heads and the memory together."""
UNHASHED = ('format', 'hash', 'metrics', 'training', 'graphs', 'health', 'additions')
"""Entries of the manifest that do not name the latent space."""
NAME = r'[A-Za-z0-9_.-]{1,100}'


@dataclass(frozen=True)
class Graphs:
    """
    ONNX graphs of a model's parts, and what an engine must know beside them.

    :param content: by name (``encode.image``, ``fuse``, ...); weights are references to
        ``model.safetensors`` and ``classifiers.safetensors``.

    For the rest see :class:`~mm_perception.engines.engine.Engine`.
    """

    content: Mapping[str, bytes]
    fuses: bool
    draws: bool
    own_latents: bool
    code_dims: Mapping[str, int]
    noise_dims: Mapping[str, int]


@dataclass(frozen=True)
class Health:
    """
    Calibration of :class:`~mm_perception.fusion.consistency.ConsistencyCheck`.

    :param class_heads: weights of each modality's class head, ``float16``.
    :param usual: mean log std of each modality's usual data.
    :param spread: how far above :attr:`usual` it still is common.
    :param thresholds: by the number of modalities present.
    :param false_alarm: share of the agreeing data that raises an alarm.
    :param rows: how many the thresholds were chosen on.
    """

    class_heads: Arrays
    usual: Mapping[str, float]
    spread: Mapping[str, float]
    thresholds: Mapping[str, float]
    false_alarm: float
    rows: int


@dataclass(frozen=True)
class _Manifest:
    """Content of ``bundle.json``; ``files`` and ``additions``: SHA-256 by name."""

    format: int
    name: str
    spec: ModelSpec
    files: Mapping[str, str]
    classifier_options: Mapping[str, Any]
    statistics: Mapping[str, Any]
    hash: str
    metrics: Mapping[str, Any]
    training: Mapping[str, Any]
    graphs: Mapping[str, Any]
    health: Mapping[str, Any]
    additions: Mapping[str, str]


@dataclass(frozen=True)
class Bundle:
    """
    A trained model with all that is needed to run it.

    :param hash: SHA-256 over everything that determines the model's outputs.
    :param statistics: of the training set, per modality.
    :param metrics: as measured when the bundle was made.
    :param training: how the bundle was made (command, seconds, machine, versions).
    :param graphs: for ONNX Runtime; None if not exported.
    :param health: calibration of the consistency check; None if there is none.
    :param memory: of :class:`~mm_perception.fusion.memory.Memory`; empty if the data had no time.
    """

    name: str
    spec: ModelSpec
    weights: Arrays
    classifiers: Arrays = field(default_factory=dict)
    classifier_options: Mapping[str, Any] = field(default_factory=dict)
    statistics: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    graphs: Graphs | None = None
    health: Health | None = None
    memory: Arrays = field(default_factory=dict)
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
    with _scratch(path) as temporary:
        folder = Path(temporary)
        files = {}
        for name, arrays in ((WEIGHTS, bundle.weights), (CLASSIFIERS, bundle.classifiers)):
            if arrays:
                files[name] = _write(folder / name, serialize(arrays))
        manifest = {
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
        _put_in_place(folder, path, manifest)
    return replace(bundle, spec=spec, hash=manifest['hash'], path=path)


def save_additions(bundle: Bundle) -> None:
    """Write graphs, health and memory of a saved bundle into its folder, and nothing else."""
    path = bundle.path
    with _scratch(path) as temporary:
        manifest = _read_manifest(path)
        _write_additions(bundle, manifest, Path(temporary))
        _put_in_place(Path(temporary), path, manifest)


def _scratch(path: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder beside a bundle; that it has another name in the end is as it should be."""
    return tempfile.TemporaryDirectory(
        dir=path.resolve().parent, prefix=f'.{path.name}-', ignore_cleanup_errors=True
    )


def load_bundle(name_or_path: str | Path) -> Bundle:
    """
    Read a bundle, refusing anything that is not exactly what was saved.

    One of format 1 is read without its graphs; ``mm-perception export`` makes them anew.

    :raises BundleError: if it is missing, truncated, altered or of another format.
    """
    path = find_bundle(name_or_path)
    while True:
        version = _version(path)
        try:
            return _load(path)
        except BundleError:
            if _version(path) == version:
                raise  # else another took its place meanwhile


def _version(path: Path) -> tuple[int, ...]:
    """What changes when a bundle is replaced."""
    try:
        status = (path / MANIFEST).stat()
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _load(path: Path) -> Bundle:
    try:
        manifest = from_plain(_Manifest, _read_manifest(path))
        check_sizes(manifest.spec)
        _check_names(manifest)
        arrays = {
            name: parse_arrays(path / name, read_hashed(path / name, MAX_WEIGHTS_BYTES, digest))
            for name, digest in manifest.files.items()
        }
        graphs, health, memory = _read_additions(path, manifest)
    except BundleError:
        raise
    except Exception as error:  # what a manifest of anybody's making can raise has no end
        said = str(error) if isinstance(error, MMPerceptionError) else repr(error)
        reason = ' '.join(said.split())[:300]
        raise BundleError(f'{path / MANIFEST}: {reason}; made by another version?') from error
    return Bundle(
        name=manifest.name,
        spec=manifest.spec,
        weights=arrays[WEIGHTS],
        classifiers=arrays.get(CLASSIFIERS, {}),
        classifier_options=manifest.classifier_options,
        statistics=manifest.statistics,
        metrics=manifest.metrics,
        training=manifest.training,
        graphs=graphs,
        health=health,
        memory=memory,
        hash=manifest.hash,
        path=path,
    )


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    manifest = read_object(file, MAX_MANIFEST_BYTES)
    if manifest.get('format') not in (1, FORMAT):
        found = repr(manifest.get('format'))[:40]
        raise BundleError(f'{file}: format {found}, this version reads {FORMAT}; train it again')
    if _manifest_hash(manifest) != manifest.get('hash'):
        raise BundleError(f'{file}: altered (its hash does not match); get the bundle again')
    if manifest['format'] == 1:
        manifest |= {'health': manifest.get('health', {}), 'graphs': {}, 'additions': {}}
    return manifest


def _check_names(manifest: _Manifest) -> None:
    if not re.fullmatch(NAME, manifest.name):
        raise ValueError('name must be letters, digits and any of _.-; rename it')
    graphs = {n for n in manifest.additions if re.fullmatch(NAME, n) and n.endswith(GRAPH)}
    known = {WEIGHTS, CLASSIFIERS, HEALTH, MEMORY, *graphs}
    strange = {*manifest.files, *manifest.additions} - known
    if strange:
        raise ValueError(f'lists a strange file {min(strange)[:80]!r}')
    if WEIGHTS not in manifest.files:
        raise ValueError(f'lists no {WEIGHTS}')


def _read_additions(
    path: Path, manifest: _Manifest
) -> tuple[Graphs | None, Health | None, Arrays]:
    content, left = {}, MAX_ADDITIONS_BYTES
    for name, digest in manifest.additions.items():
        content[name] = read_hashed(path / name, left, digest)
        left -= len(content[name])
    health, class_heads = manifest.health, content.pop(HEALTH, b'')
    remembered = content.pop(MEMORY, b'')
    if manifest.format == 1 and health:
        health = _health_of_format_1(health['agreement'])
    elif health:
        health = {**health, 'class_heads': parse_arrays(path / HEALTH, class_heads)}
    graphs = {name.removesuffix(GRAPH): graph for name, graph in content.items()}
    return (
        from_plain(Graphs, {**manifest.graphs, 'content': graphs}, 'graphs') if graphs else None,
        from_plain(Health, health, 'health') if health else None,
        parse_arrays(path / MEMORY, remembered) if remembered else {},
    )


def _health_of_format_1(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Weights were in base64, without the number of features."""
    heads = plain['readers']
    arrays: dict[str, np.ndarray] = {}
    for name, layer in itertools.product(heads, ('hidden', 'output')):
        weight, bias = (np.frombuffer(base64.b64decode(b), '<f2') for b in heads[name][layer])
        arrays[f'{name}.{layer}.weight'] = weight.reshape(-1, bias.size)
        arrays[f'{name}.{layer}.bias'] = bias
    rest = {key: plain[key] for key in ('thresholds', 'false_alarm', 'rows')}
    numbers = {key: {n: head[key] for n, head in heads.items()} for key in ('usual', 'spread')}
    return {'class_heads': arrays, **numbers, **rest}


def _write_additions(bundle: Bundle, manifest: dict[str, Any], folder: Path) -> None:
    graphs, health = to_plain(bundle.graphs) or {}, to_plain(bundle.health) or {}
    content = {f'{name}{GRAPH}': graph for name, graph in graphs.pop('content', {}).items()}
    if health:
        content[HEALTH] = serialize(health.pop('class_heads'))
    if bundle.memory:
        content[MEMORY] = serialize(bundle.memory)
    manifest |= {
        'format': FORMAT,
        'graphs': graphs,
        'health': health,
        'additions': {name: _write(folder / name, part) for name, part in content.items()},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + '\n')


def _put_in_place(folder: Path, path: Path, manifest: Mapping[str, Any]) -> None:
    """Let a folder take a bundle's place at once, with what else was there."""
    for file in folder.iterdir():
        file.chmod(0o644)  # whatever the umask
    folder.chmod(0o755)
    path = path.resolve()
    for old in path.iterdir() if path.is_dir() else ():
        outdated = old.name in (HEALTH, MEMORY, 'graphs.safetensors') or old.suffix == GRAPH
        outdated &= old.name not in manifest['additions']
        if not outdated and not (folder / old.name).exists():
            link_all(old, folder / old.name)
    replace_folder(folder, path)


def _write(file: Path, content: bytes) -> str:
    file.write_bytes(content)
    return _digest(content)


def _manifest_hash(manifest: Mapping[str, Any]) -> str:
    # Format 1 was in what it hashed; latent spaces keep their names.
    hashed = {'format': 1} | {k: v for k, v in manifest.items() if k not in UNHASHED}
    canonical = json.dumps(hashed, sort_keys=True, separators=(',', ':'))
    return _digest(canonical.encode())
