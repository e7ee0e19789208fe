"""Networks on real digits: who uses the answer."""

from trainer.data import Data, load_data
from trainer.layers import AvgPool2d, Conv1d, Conv2d, Flatten, Layer, Linear, MaxPool2d, ReLU, Tanh
from trainer.loss import softmax, softmax_cross_entropy
from trainer.models import build_model, models
from trainer.network import Model
from trainer.optimizers import SGD, Adam
from trainer.training import Settings, Training, evaluate, train

__all__ = [
    "SGD",
    "Adam",
    "AvgPool2d",
    "Conv1d",
    "Conv2d",
    "Data",
    "Flatten",
    "Layer",
    "Linear",
    "MaxPool2d",
    "Model",
    "ReLU",
    "Settings",
    "Tanh",
    "Training",
    "build_model",
    "evaluate",
    "load_data",
    "models",
    "softmax",
    "softmax_cross_entropy",
    "train",
]
