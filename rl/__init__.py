"""Rollout service, weight sync, actor, algorithms and the RL loop."""
