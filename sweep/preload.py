"""What every process needs, imported once by the server that the processes are forked from."""

from __future__ import annotations

import logging
import os
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
warnings.filterwarnings("ignore")

import torch

from tests.support.cpu_torchvision import declare_missing_operators

torch.set_num_threads(1)
OPERATORS = declare_missing_operators()

import timm
import torch._dynamo
import torch_geometric.nn
import transformers

import sweep.worker

transformers.logging.set_verbosity_error()
logging.disable(logging.WARNING)
PRELOADED = (timm, torch._dynamo, torch_geometric.nn, sweep.worker)
