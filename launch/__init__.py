"""The `osim` command: recipes, quickstart, doctor, planner, executors. Only this package imports all others."""
