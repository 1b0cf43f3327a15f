"""Hugging Face weights in and out, for any layout, one tensor at a time; and random weights that no layout
changes."""

from megatron_osim.convert.export import export_hf, iter_hf_tensors
from megatron_osim.convert.load import load_hf, load_random

__all__ = ["export_hf", "iter_hf_tensors", "load_hf", "load_random"]
