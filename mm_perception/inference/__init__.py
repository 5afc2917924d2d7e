"""Running a trained bundle: engines and the incremental session."""

from mm_perception.inference.agreement import Agreement, Judgement
from mm_perception.inference.build import build_engine
from mm_perception.inference.engine import Engine
from mm_perception.inference.session import Inference, InferenceSession, generated_std

__all__ = [
    'Agreement',
    'Engine',
    'Inference',
    'InferenceSession',
    'Judgement',
    'build_engine',
    'generated_std',
]
