"""The device that the engines' tests run on: ``FREEHOLD_TEST_DEVICE``, a CPU if it says nothing."""

import os
from typing import Final

import torch

DEVICE: Final = torch.device(os.environ.get("FREEHOLD_TEST_DEVICE", "cpu"))
