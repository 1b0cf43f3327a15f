"""tau-bench: users of retail and airline service."""
