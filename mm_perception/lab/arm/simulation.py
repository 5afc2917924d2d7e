"""The arm in MuJoCo: from set points to what its sensors give."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from mm_perception.errors import MissingDependency
from mm_perception.lab.arm.script import PERIOD_S, Script
from mm_perception.lab.replay.episodes import Track

os.environ.setdefault('MUJOCO_GL', 'egl')  # MuJoCo reads it once, when it is imported
NO_OPENGL = (
    'the arm is drawn by OpenGL without a display, which failed ({}); on Debian and Ubuntu:'
    ' apt install libegl1 libgl1-mesa-dri, or libosmesa6 with MUJOCO_GL=osmesa'
)
CAMERA_EVERY = 2  # of the ticks: 25 frames per second beside 50 joint states
SIDE = 64
JOINTS = ('shoulder', 'elbow', 'wrist')
# Std of what encoders, force sensor and tracker add.
JOINT_NOISE_RAD, FORCE_NOISE_N, TORQUE_NOISE_NM, TRACKER_NOISE_M = 0.001, 0.05, 0.005, 0.001


class Simulation:
    """
    The scene ``arm.xml``.

    Needs MuJoCo, and OpenGL without a display: EGL or OSMesa, as ``MUJOCO_GL`` says.

    :raises ModuleNotFoundError: without MuJoCo.
    :raises MissingDependency: without OpenGL.
    """

    def __init__(self) -> None:
        import mujoco

        self._mujoco: Any = mujoco
        self._model = mujoco.MjModel.from_xml_path(str(Path(__file__).with_name('arm.xml')))
        self._data = self.new_scene()
        try:
            self._renderer = mujoco.Renderer(self._model, SIDE, SIDE)
        except (mujoco.FatalError, RuntimeError, ImportError) as error:
            raise MissingDependency(NO_OPENGL.format(error)) from error
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._renderer.scene.flags[flag] = 0

    def close(self) -> None:
        """Free what renders."""
        self._renderer.close()

    def new_scene(self) -> Any:
        """State of an arm and its ball, to be moved and seen beside others."""
        return self._mujoco.MjData(self._model)

    def place(self, scene: Any, positions: np.ndarray) -> None:
        """Put joints (rad) and ball (m) somewhere, at rest; ``float64[5]``."""
        self._mujoco.mj_resetData(self._model, scene)
        scene.qpos[:] = positions
        self._mujoco.mj_forward(self._model, scene)

    def advance(self, scene: Any, control: np.ndarray, seconds: float = PERIOD_S) -> None:
        """Let time pass while set points, those of the joints first, stay; ``float64[5]``."""
        scene.ctrl[:] = control
        self._mujoco.mj_step(self._model, scene, round(seconds / self._model.opt.timestep))

    def see(self, scene: Any, out: np.ndarray) -> None:
        """Draw what the camera sees into ``uint8[64, 64, 3]``, RGB."""
        self._renderer.update_scene(scene, camera='above')
        self._renderer.render(out=out)

    def run(
        self, script: Script, rng: np.random.Generator, frames: np.ndarray | None = None
    ) -> dict[str, Track]:
        """
        Play an episode.

        :param rng: of the sensors' noise.
        :param frames: which frames of the camera to render; None for all.
        :returns: ``camera`` ``uint8[T, 64, 64, 3]``, ``joints`` (rad), ``force`` (N, then N m, in
            the finger's frame) and ``target`` (m), each with its own times.
        """
        states, forces = self._simulate(script)
        every = np.arange(0, len(states), CAMERA_EVERY)
        seen = every if frames is None else every[frames]
        times_s = np.arange(len(states)) * PERIOD_S
        noisy = {
            'joints': (states[:, :3], JOINT_NOISE_RAD),
            'force': (forces, [FORCE_NOISE_N] * 3 + [TORQUE_NOISE_NM] * 3),
            'target': (states[every, 3:], TRACKER_NOISE_M),
        }
        tracks = {'camera': Track(times_s[seen], self._render(states[seen]))}
        for name, (values, std) in noisy.items():
            taken = values + rng.standard_normal(values.shape) * np.asarray(std)
            when = times_s[every] if name == 'target' else times_s
            tracks[name] = Track(when, taken.astype(np.float32))
        return tracks

    def _simulate(self, script: Script) -> tuple[np.ndarray, np.ndarray]:
        """Positions ``float64[T, 5]`` and wrenches ``float64[T, 6]`` at every tick."""
        data, controls = self._data, np.concatenate((script.joints, script.ball), axis=1)
        self.place(data, controls[0])
        states, wrenches = np.empty((len(controls), 5)), np.empty((len(controls), 6))
        for k, control in enumerate(controls):
            self.advance(data, control)
            states[k], wrenches[k] = data.qpos, data.sensordata
        return states, wrenches

    def _render(self, states: np.ndarray) -> np.ndarray:
        """What the camera sees: ``uint8[T, 64, 64, 3]``, RGB."""
        frames = np.empty((len(states), SIDE, SIDE, 3), np.uint8)
        for k, state in enumerate(states):
            self._data.qpos[:] = state
            self._mujoco.mj_kinematics(self._model, self._data)
            self._mujoco.mj_camlight(self._model, self._data)
            self.see(self._data, frames[k])
        return frames
