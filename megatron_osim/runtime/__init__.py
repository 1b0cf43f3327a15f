"""What Megatron-Core needs around it: CPU adaptation, capability detection, process groups and seeds.

`initialize` runs once in every rank before anything else of this package; `shutdown` once at the end.
"""

from megatron_osim.runtime.capability import detect_capability
from megatron_osim.runtime.distributed import Ranks, initialize, shutdown

__all__ = ["Ranks", "detect_capability", "initialize", "shutdown"]
