"""Running a trained bundle: engines and the incremental session."""

from mm_perception.inference.engine import Engine, build_engine
from mm_perception.inference.session import Inference, InferenceSession

__all__ = ['Engine', 'Inference', 'InferenceSession', 'build_engine']
