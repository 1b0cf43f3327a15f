"""What the roles of an RL job tell each other, through files in the attempt's notes (a folder all nodes see).

server-<n>.json: the URL of one rollout server that answers. servers.json: all of them, or why there are none.
over: the main step has ended, and so should the services.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from common.errors import GateError, data_errors
from common.files import read_json_object, write_json

POLL_S = 0.5
NOTES_FIX = "launch the job again: each attempt writes its own notes"
SLACK_S = 120.0
"""What the actor waits beyond the servers' own deadline: nodes do not start at the same moment."""


@dataclass(frozen=True)
class Notes:
    """The notes of one attempt."""

    folder: Path

    @property
    def over(self) -> bool:
        return (self.folder / "over").exists()

    def publish_server(self, number: int, url: str) -> None:
        write_json(self.folder / f"server-{number}.json", {"url": url})

    def servers(self) -> dict[int, str]:
        """URLs that answer, by the server's number."""
        with data_errors(str(self.folder), fix=NOTES_FIX):
            return {
                int(p.stem.partition("-")[2]): str(read_json_object(p)["url"])
                for p in self.folder.glob("server-*.json")
            }

    def publish_all(self, urls: list[str]) -> None:
        write_json(self.folder / "servers.json", {"urls": urls})

    def publish_failure(self, why: str) -> None:
        write_json(self.folder / "servers.json", {"why": why})

    def wait_for_servers(self, timeout_s: float) -> tuple[str, ...]:
        """URLs of all servers. Raises GateError when there are none, or not in time."""
        path, deadline = self.folder / "servers.json", time.monotonic() + timeout_s
        while not path.exists():
            if time.monotonic() > deadline:
                raise GateError(
                    f"the coordinator named no rollout servers within {timeout_s:.0f} s",
                    where=str(self.folder),
                    fix="see logs/coordinator*.log and logs/server*.log of the run",
                )
            time.sleep(POLL_S)
        answer = read_json_object(path)
        if "why" in answer:
            raise GateError(str(answer["why"]), where="rollout servers", fix="see logs/server*.log of the run")
        with data_errors(str(path), fix=NOTES_FIX):
            return tuple(map(str, answer["urls"]))
