"""Imported once by the process that stages are forked from: everything heavy that a stage needs."""

import albumentations
import pytorch_lightning
import sklearn.metrics
import torch
import torchvision

import lightning_modules.evaluation
import lightning_modules.preflight
import lightning_modules.training
import recognition.figures
import recognition.galleries
import recognition.policies
import recognition.scores

__all__ = [
    "albumentations",
    "lightning_modules",
    "pytorch_lightning",
    "recognition",
    "sklearn",
    "torch",
    "torchvision",
]
