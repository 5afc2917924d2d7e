"""Builds a package of messages with the generators and libraries of the rclpy wheels."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PREFIX = Path(sys.prefix)
SUPPORTS = 'rosidl_typesupport_fastrtps_c', 'rosidl_typesupport_introspection_c'


def lacking() -> str:
    """What is missing to build messages here; empty if nothing is."""
    try:
        import em  # noqa: F401
        import rosidl_adapter  # noqa: F401
        import rosidl_generator_py  # noqa: F401
    except ImportError as error:
        return f'{error.name} is not installed'
    if not (PREFIX / 'include/rosidl_runtime_c').is_dir():
        return 'there are no headers of rosidl'
    return '' if shutil.which('g++') else 'there is no C++ compiler'


@contextlib.contextmanager
def messages_of(folder: Path, package: str, definitions: Mapping[str, str]) -> Iterator[Any]:
    """
    Use the messages of a package, in processes that are started too; skips where none can be had.

    :param folder: where they are built, if the package is not installed.
    :returns: the module ``package.msg``.
    """
    try:
        yield importlib.import_module(f'{package}.msg')
        return
    except ImportError:
        if reason := lacking():
            pytest.skip(f'{package} is not installed, and {reason} to build it')
    build_messages(folder, package, definitions)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('PYTHONPATH', str(folder), prepend=os.pathsep)
        patch.syspath_prepend(str(folder))
        yield importlib.import_module(f'{package}.msg')
        for name in [n for n in sys.modules if n.split('.')[0] == package]:
            del sys.modules[name]


def build_messages(folder: Path, package: str, definitions: Mapping[str, str]) -> Path:
    """
    Build messages; whoever puts the folder into ``PYTHONPATH`` can import and exchange them.

    :param folder: to be made, with the package in it.
    :param definitions: content of the ``.msg`` file of each type, those that others hold first.
    :returns: the folder.
    """
    from rosidl_adapter.msg import convert_msg_to_idl
    from rosidl_generator_c import generate_c
    from rosidl_generator_py import generate_py
    from rosidl_generator_type_description import generate_type_hash
    from rosidl_typesupport_c import generate_c as generate_dispatch
    from rosidl_typesupport_fastrtps_c import generate_typesupport_fastrtps_c
    from rosidl_typesupport_introspection_c import generate_c as generate_introspection

    source, home = folder / 'source' / package, folder / package
    (source / 'msg').mkdir(parents=True)
    home.mkdir()
    for name, text in definitions.items():
        (source / 'msg' / f'{name}.msg').write_text(text)
        with contextlib.redirect_stdout(io.StringIO()):
            convert_msg_to_idl(source, package, Path('msg', f'{name}.msg'), source / 'msg')
    for part in ('rosidl_generator_c', *SUPPORTS):
        header = f'{part}__visibility_control.h'
        text = (PREFIX / 'share' / part / 'resource' / f'{header}.in').read_text()
        text = text.replace('@PROJECT_NAME@', package)
        text = text.replace('@PROJECT_NAME_UPPER@', package.upper())
        (source / 'msg' / header).write_text(text)
    facts = {
        'package_name': package,
        'idl_tuples': [f'{source}:msg/{name}.idl' for name in definitions],
        'include_paths': [f'{p.name}:{p}' for p in (PREFIX / 'share').glob('*_*')],
        'target_dependencies': [],
        'type_description_tuples': [f'msg/{n}.idl:{source}/msg/{n}.json' for n in definitions],
    }

    def arguments(generator: str, output: Path) -> str:
        templates = PREFIX / 'share' / generator / 'resource'
        file = folder / f'{generator}.json'
        own = {'output_dir': str(output), 'template_dir': str(templates)}
        file.write_text(json.dumps(facts | own))
        return str(file)

    generate_type_hash(arguments('rosidl_generator_type_description', source))
    generate_c(arguments('rosidl_generator_c', source))
    generate_typesupport_fastrtps_c(arguments(SUPPORTS[0], source))
    generate_introspection(arguments(SUPPORTS[1], source))
    generate_dispatch(arguments('rosidl_typesupport_c', source), list(SUPPORTS))
    (home / '__init__.py').touch()
    generate_py(arguments('rosidl_generator_py', home), ['rosidl_typesupport_c'])
    _compile(folder, package)
    return folder


def _compile(folder: Path, package: str) -> None:
    """
    Make one extension module of all that was generated.

    The middleware looks for a library for each type support, by its name: they are loaded with
    the module, and the first holds all of them.
    """
    sources = [*folder.rglob('*.c'), *folder.rglob('*.cpp')]
    needed = set(re.findall(r'"(\w+)/msg/', ''.join(s.read_text() for s in sources))) - {package}
    includes = [folder / 'source', PREFIX / 'include', sysconfig.get_path('include')]
    includes += [np.get_include(), *(p for p in (PREFIX / 'include').iterdir() if p.is_dir())]
    flags = ['-c', '-fPIC', '-O0', '-w', *(f'-I{each}' for each in includes)]
    objects: dict[bool, list[str]] = {True: [], False: []}
    for k, file in enumerate(sources):
        target = str(folder / f'{k}.o')
        compiler = 'gcc' if file.suffix == '.c' else 'g++'
        subprocess.run([compiler, *flags, str(file), '-o', target], check=True)
        objects[(folder / package) in file.parents].append(target)
    path = [f'-L{PREFIX / "lib"}', f'-Wl,-rpath,{PREFIX / "lib"}', '-Wl,-rpath,$ORIGIN']
    installed = [
        f'-l:{file.name}'
        for other in (*sorted(needed), 'rosidl', 'fastcdr', 'rcutils', 'rmw')
        for file in (PREFIX / 'lib').glob(f'lib{other}*.so')
    ]

    def link(name: str, parts: list[str], libraries: list[str]) -> str:
        target = folder / package / name
        own = ['-Wl,--no-as-needed', *libraries, '-Wl,--as-needed', *installed]
        options = ['-shared', f'-Wl,-soname,{name}', '-o', str(target)]
        subprocess.run(['g++', *options, *parts, *path, *own], check=True)
        return str(target)

    names = [f'lib{package}__{support}.so' for support in SUPPORTS]
    first = link(names[0], objects[False], [])
    second = link(names[1], [], [first])
    suffix = sysconfig.get_config_var('EXT_SUFFIX')
    link(f'{package}_s__rosidl_typesupport_c{suffix}', objects[True], [first, second])
