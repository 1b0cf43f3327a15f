"""BehaviorChain: chains of a character's next behaviours."""
