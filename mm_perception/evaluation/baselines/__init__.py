"""What fills in for a lost sensor without a network: the baselines of every judgement."""

from mm_perception.evaluation.baselines.codes import SharedCodes
from mm_perception.evaluation.baselines.kalman import Kalman
from mm_perception.evaluation.baselines.linear import Ridge, RidgeMemory
from mm_perception.evaluation.baselines.simple import (
    ConstantVelocity,
    DampedVelocity,
    Hold,
    Mean,
    NearestNeighbours,
)
from mm_perception.evaluation.outages import Method


def build_baselines() -> list[Method]:
    """Every baseline, to be fitted on the same dataset."""
    codes = SharedCodes()
    return [
        Hold(),
        Mean(),
        ConstantVelocity(),
        DampedVelocity(codes),
        Ridge(codes),
        RidgeMemory(codes),
        NearestNeighbours(codes),
        Kalman(codes),
    ]


__all__ = ['build_baselines']
