"""What is watched while a run trains: the judge, hacks, likeness to people, cost. See `watch`."""
