"""Networks on real digits: who uses the answer."""

from trainer.data import Data, load_data

__all__ = ["Data", "load_data"]
