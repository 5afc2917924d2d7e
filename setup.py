"""Install the package, with pip or as ament_python with colcon."""

import re
from pathlib import Path

from setuptools import find_packages, setup

NAME = 'mm_perception'
ROOT = Path(__file__).parent


def data_files(root=ROOT):
    """
    List what goes to share/, as setuptools wants it: (folder, files).

    :param root: the package's folder; the files are named relative to it.
    """
    share = f'share/{NAME}'
    listed = [
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (share, ['package.xml']),
    ]
    for tree in ('launch', 'config', 'models'):
        folders = [root / tree, *(root / tree).rglob('*')]
        for folder in sorted(path for path in folders if path.is_dir()):
            files = sorted(
                path.relative_to(root).as_posix()
                for path in folder.iterdir()
                if path.is_file() and path.suffix != '.pyc'
            )
            if files:
                listed.append((f'{share}/{folder.relative_to(root).as_posix()}', files))
    return listed


def version():
    """Read the version from the package without importing it."""
    text = (ROOT / NAME / '__init__.py').read_text(encoding='utf-8')
    return re.search(r"__version__ = '([^']+)'", text).group(1)


if __name__ == '__main__':
    setup(
        name=NAME,
        version=version(),
        description='Cross-modality inference for robots: fuse the sensors, fill in the missing',
        license='Apache-2.0',
        python_requires='>=3.10',
        packages=find_packages(include=[NAME, f'{NAME}.*']),
        package_data={NAME: ['py.typed']},
        data_files=data_files(),
        # The heavy ones are pinned in requirements/: a ROS 2 installation brings several of them.
        install_requires=['setuptools', 'numpy>=1.26', 'pyyaml'],
        extras_require={'test': ['pytest', 'pytest-timeout']},
        entry_points={
            'console_scripts': [
                'mm-perception = mm_perception.cli.main:main',
                'cmi_node = mm_perception.ros.cmi_node:main',
                'replay_node = mm_perception.lab.replay.node:main',
                'microphone_node = mm_perception.ros.microphone_node:main',
            ]
        },
        zip_safe=True,
    )
