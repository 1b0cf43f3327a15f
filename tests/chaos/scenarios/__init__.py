"""One scenario a module; `ALL` is what `python -m tests.chaos` runs, the cheap ones first."""

from __future__ import annotations

from tests.chaos.base import Scenario
from tests.chaos.scenarios.checkpoints import Checkpoints
from tests.chaos.scenarios.evaluation import Evaluation
from tests.chaos.scenarios.ground import Ground
from tests.chaos.scenarios.ledger import LedgerFiles
from tests.chaos.scenarios.midtrain import Midtrain
from tests.chaos.scenarios.prepare import Prepare
from tests.chaos.scenarios.quickstart import Quickstart
from tests.chaos.scenarios.rl import RL
from tests.chaos.scenarios.sglang import SGLang

ALL: tuple[type[Scenario], ...] = (
    LedgerFiles,
    Prepare,
    Ground,
    Evaluation,
    Checkpoints,
    Midtrain,
    RL,
    SGLang,
    Quickstart,
)
