"""The model on Megatron-Core: runtime, architecture, conversion, data, loss, checkpoints, midtraining."""
