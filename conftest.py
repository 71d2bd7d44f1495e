"""Triton's kernels are tested in its interpreter where there is no GPU; where there is no triton, not at all."""

import importlib.util
import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before any cuda.py is imported
collect_ignore_glob = [] if importlib.util.find_spec("triton") else ["reconlab/kernels/*/cuda*.py"]
