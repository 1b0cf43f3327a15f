"""Episodes: pure environments, players, judges and the ledger. No torch, no megatron."""
