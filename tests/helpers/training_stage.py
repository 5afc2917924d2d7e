"""Trains one stage from its checkpoint on; a program for test_killed_training.py: ``FILE``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from mm_perception.training.loop import Logging, fit
from mm_perception.training.stages import TensorSource, unimodal_stage
from tests.helpers.toy_training import configuration, recordings

if __name__ == '__main__':
    file = Path(sys.argv[1])
    torch.set_num_threads(1)
    torch.manual_seed(3)
    source = TensorSource(recordings(0), torch.device('cpu'))
    stage = unimodal_stage(configuration(file.parent), 'arm', source)
    print('begins', flush=True)
    fit(stage, file, True, Logging(quiet=True))
    print(sum(value.double().sum().item() for value in stage.module.state_dict().values()))
