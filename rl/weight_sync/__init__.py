"""From the actor's weights to the rollout engines', with proof. See `sync`."""

from rl.weight_sync.sync import SyncReport, WeightSync, drain, push_weights

__all__ = ["SyncReport", "WeightSync", "drain", "push_weights"]
