"""Two sizes: by default what CI runs, always the same examples; `--hypothesis-profile=long` looks for new ones."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

QUIET = [
    HealthCheck.too_slow,
    HealthCheck.data_too_large,
    HealthCheck.filter_too_much,
    HealthCheck.large_base_example,
]
settings.register_profile("long", max_examples=1500, deadline=None, suppress_health_check=QUIET)
