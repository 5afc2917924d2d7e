"""
Import this before MultiVae: torchvision, which it imports, then loads beside a CPU build of torch.

The compiled half of torchvision's wheel is linked against CUDA and stays unloaded beside a CPU
build. Its Python half then fails over two operators that it only describes; they are declared
here, and nothing calls them.
"""

from __future__ import annotations

import torch

if torch.version.cuda is None:
    for _name in ('nms', 'qnms'):
        _signature = '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
        torch.library.define(f'torchvision::{_name}', _signature)
