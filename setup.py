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


# What the node needs; rclpy and the messages come with a ROS 2 installation, or from the wheels in
# requirements/. Where a robot's distribution has a library, its version is enough: Ubuntu 24.04's.
NODE = [
    'numpy>=1.26',
    'onnxruntime>=1.23',
    'opencv-python-headless>=4.6,<4.12',  # later ones replace the numpy that ROS 2 is built for
    'pyyaml>=6.0.1',
    'safetensors>=0.4.3',
]
EXTRAS = {
    'microphone': ['sounddevice>=0.4.6'],
    'view': ['aiohttp>=3.9'],
    'demo': ['gymnasium>=1.1', 'psutil>=5.9', 'rich>=13.7'],
    'train': [
        'onnx>=1.16',
        'rich>=13.7',
        'rosbags>=0.11',
        'scipy>=1.11',
        'tensorboard',
        'torch>=2.6',
        'tqdm>=4.66',
    ],
    'lerobot': ['av>=12', 'pyarrow>=14'],
    # With train, policies on the latent.
    'rl': ['gymnasium>=1.1', 'stable-baselines3>=2.6'],
    # Makes the data of the simulated arm; neither its bundle nor its demonstration needs it.
    'arm': ['mujoco>=3.1', 'tqdm>=4.66'],
    # With train, all of the laboratory: data of digits, tables, benchmarks.
    'lab': ['matplotlib>=3.6', 'psutil>=5.9', 'rich>=13.7', 'scipy>=1.11', 'tqdm>=4.66'],
    'test': [
        'colcon-common-extensions',
        'coverage>=7.10',
        'hypothesis',
        'pytest>=7.4',
        'pytest-timeout',
        'pytest-xdist',
    ],
    'docs': [
        "mkdocstrings-python>=2; python_version >= '3.11'",
        "zensical>=0.0.73; python_version >= '3.11'",
    ],
    'lint': ['flake8', 'mypy', 'pydocstyle', 'pylint', 'ruff'],
}

if __name__ == '__main__':
    setup(
        name=NAME,
        version=version(),
        description='Cross-modality inference for robots: fuse the sensors, fill in the missing',
        long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
        long_description_content_type='text/markdown',
        license='Apache-2.0',
        python_requires='>=3.10',
        packages=find_packages(include=[NAME, f'{NAME}.*']),
        package_data={NAME: ['py.typed', 'lab/arm/arm.xml', 'ros/view/*.html']},
        data_files=data_files(),
        install_requires=NODE,
        extras_require=EXTRAS,
        entry_points={
            'console_scripts': [
                'mm-perception = mm_perception.cli.main:main',
                'cmi_node = mm_perception.ros.cmi_node:main',
                'policy_node = mm_perception.ros.policy_node:main',
                'gym_node = mm_perception.lab.gym.node:main',
                'replay_node = mm_perception.lab.replay.node:main',
                'microphone_node = mm_perception.ros.microphone_node:main',
                'view_node = mm_perception.ros.view.node:main',
            ]
        },
        zip_safe=True,
    )
