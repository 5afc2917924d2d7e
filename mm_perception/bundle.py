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
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from mm_perception.bundle_files import file_hash, read_arrays, read_object
from mm_perception.bundle_sizes import check_sizes
from mm_perception.config import from_plain, to_plain
from mm_perception.errors import BundleError, MMPerceptionError
from mm_perception.modalities import build_modality, complete_options
from mm_perception.resources import share_directory
from mm_perception.spec import ModelSpec

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
