"""What Megatron-Core needs around it: CPU adaptation, capability detection, process groups and seeds.

`initialize` runs once in every rank before anything else of this package; `shutdown` once at the end.
"""

import warnings

# Megatron announces on every rank that each optional kernel is absent; `osim doctor` says it once.
warnings.filterwarnings("ignore", category=UserWarning, module=r"megatron\.core\.")
warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.")

from megatron_osim.runtime.capability import detect_capability  # noqa: E402
from megatron_osim.runtime.distributed import Ranks, initialize, shutdown  # noqa: E402

__all__ = ["Ranks", "detect_capability", "initialize", "shutdown"]
