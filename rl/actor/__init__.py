"""The policy on Megatron-Core: log-probs, updates, weights for the engines, checkpoints."""
