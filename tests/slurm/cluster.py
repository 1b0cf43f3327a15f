"""A real Slurm on one machine: munged, MariaDB, slurmdbd, slurmctld and one slurmd per pretended node.

Needs root and Debian's packages (`PROGRAMS`), but neither systemd nor cgroups. Everything lies in one temporary
folder with free ports; only daemons that this object started are stopped, by their process ids, and by a guard
(`guard`) when the test session is killed. Nodes n1 to n3 are in the partitions `gpu` and `urgent` (which preempts
it), n4 is in `cpu`. A node pretends to have 4 cores.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "slurmdbd", "mariadbd", "mariadb-install-db", "sbatch", "srun", "sacct")
NODES = 4
DAEMONS = "daemons"
CHECKOUT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 120.0
JOBS_END_TIMEOUT_S = 45.0
"""Longer than KillWait, after which Slurm kills a job."""
SUPER = "/usr/sbin:/sbin"


class CannotRun(Exception):
    """Why no Slurm can be brought up here."""


def why_not() -> str | None:
    """The reason for which Slurm cannot run on this machine, or None."""
    if os.geteuid() != 0:
        return "a test cluster needs root"
    path = f"{os.environ.get('PATH', '')}:{SUPER}"
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    return f"not installed: {', '.join(missing)} (see .ci/run)" if missing else None


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@dataclass
class Cluster:
    """Build with `start`; `stop` ends the daemons and removes the folder."""

    root: Path
    _daemons: list[int] = field(default_factory=list)
    _guard: subprocess.Popen[bytes] | None = None

    @property
    def conf(self) -> Path:
        return self.root / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """What a client of this cluster has in its environment."""
        return {"SLURM_CONF": str(self.conf)}

    @classmethod
    def start(cls) -> Cluster:
        """Bring it up and wait until every node is idle. Raises CannotRun; then nothing is left running."""
        if reason := why_not():
            raise CannotRun(reason)
        # The path of munge's socket must be short.
        cluster = cls(Path(tempfile.mkdtemp(prefix="osim-slurm-", dir="/tmp")))
        try:
            cluster._start_guard()
            cluster._configure()
            cluster._start_daemons()
        except BaseException:
            cluster.stop()
            raise
        return cluster

    @classmethod
    def left_in(cls, root: Path) -> Cluster:
        """The cluster of a process that was killed, to stop it."""
        file = root / DAEMONS
        return cls(root, [int(pid) for pid in file.read_text().split()] if file.exists() else [])

    def run(self, *command: str, timeout_s: float = 60.0) -> str:
        """The output of a client command; raises CalledProcessError."""
        return subprocess.run(
            command,
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=True,
        ).stdout

    def accepts(self, *command: str) -> bool:
        """Whether a client command succeeds."""
        client = (_path(command[0]), *command[1:])
        environment = os.environ | self.environment
        return subprocess.run(client, env=environment, capture_output=True, timeout=60, check=False).returncode == 0

    def told(self) -> str:
        """The jobs as Slurm has them, and the ends of the daemons' logs."""
        try:
            jobs = self.run("scontrol", "show", "jobs", "--oneliner")
        except subprocess.SubprocessError as e:
            jobs = str(e)
        return "\n".join([jobs, *(f"{name}:\n{self._log(name)}" for name in ("slurmctld.log", "slurmd."))])

    def stop(self) -> None:
        """End what was started, the last first. Idempotent."""
        if self._guard is not None:
            self._guard.kill()
            self._guard.wait()
            self._guard = None
        if self.conf.exists() and self._daemons:
            self._end_jobs()
        # The state is thrown away: nobody needs an orderly end, so all are asked at once.
        for pid in self._daemons:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        for pid in reversed(self._daemons):
            _end(pid)
        self._daemons.clear()
        shutil.rmtree(self.root, ignore_errors=True)

    def _end_jobs(self) -> None:
        """Cancel what runs and wait for it: a job's own daemons (slurmstepd) would outlive the others."""
        # A controller that does not answer must not keep the daemons from being stopped.
        with contextlib.suppress(subprocess.SubprocessError):
            self.run("scancel", "--user=root")
            deadline = time.monotonic() + JOBS_END_TIMEOUT_S
            while self.run("squeue", "-h") and time.monotonic() < deadline:
                time.sleep(0.1)

    def _start_guard(self) -> None:
        command = [sys.executable, "-m", "tests.slurm.guard", str(os.getpid()), str(self.root)]
        nothing = subprocess.DEVNULL
        self._guard = subprocess.Popen(
            command, cwd=CHECKOUT, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True
        )

    def _started(self, pid: int) -> None:
        """Remember a daemon, also for the guard."""
        self._daemons.append(pid)
        with (self.root / DAEMONS).open("a") as f:
            f.write(f"{pid}\n")

    def _configure(self) -> None:
        for name in ("state", "log", "run", "munge", "mysql", *(f"spool/n{n}" for n in range(1, NODES + 1))):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o755)
        key = self.root / "munge" / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        controller, database, mysql, *self._node_ports = free_ports(3 + NODES)
        self._mysql_port, self._database_port = mysql, database
        self.conf.write_text(self._slurm_conf(controller, database))
        dbd = self.root / "slurmdbd.conf"
        dbd.write_text(self._slurmdbd_conf())
        dbd.chmod(0o600)

    def _slurm_conf(self, controller: int, database: int) -> str:
        root, host = self.root, socket.gethostname().partition(".")[0]
        nodes = "\n".join(
            f"NodeName=n{n} NodeAddr=127.0.0.1 NodeHostname={host} Port={port} CPUs=4 Boards=1 SocketsPerBoard=1 "
            "CoresPerSocket=4 ThreadsPerCore=1 RealMemory=16000 State=UNKNOWN"
            for n, port in enumerate(self._node_ports, 1)
        )
        # linuxproc, task/none and jobacct_gather/none do without cgroups; config_overrides lets a node claim more
        # cores than there are; a short cred_expire shortens the hold after a requeue from two minutes to seconds.
        return f"""ClusterName=osim
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={root}/munge/socket,cred_expire=5
SlurmctldPort={controller}
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd.%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd.%n.log
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=100000,batch_sched_delay=0,requeue_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
SlurmdParameters=config_overrides
MinJobAge=3600
KillWait=30
InactiveLimit=0
SlurmctldTimeout=60
SlurmdTimeout=60
JobRequeue=1
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={database}
AccountingStoragePass={root}/munge/socket
{nodes}
PartitionName=gpu Nodes=n[1-3] Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=urgent Nodes=n[1-3] MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=off
PartitionName=cpu Nodes=n4 MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=off
"""

    def _slurmdbd_conf(self) -> str:
        root = self.root
        return f"""AuthType=auth/munge
AuthInfo=socket={root}/munge/socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={self._database_port}
SlurmUser=root
PidFile={root}/run/slurmdbd.pid
LogFile={root}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={self._mysql_port}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct
"""

    def _start_daemons(self) -> None:
        root, run = self.root, self.root / "run"
        munge, sock = root / "munge", run / "mysql.sock"
        self._daemon(
            "munged",
            # The folder is below /tmp, which is open to all: munged wants to be forced.
            [
                "--force",
                f"--key-file={munge}/munge.key",
                f"--socket={munge}/socket",
                f"--pid-file={run}/munged.pid",
                f"--log-file={root}/log/munged.log",
                f"--seed-file={munge}/seed",
            ],
            lambda: (munge / "socket").exists(),
        )
        data = root / "mysql"
        self._call(
            "mariadb-install-db", "--no-defaults", "--user=root", "--auth-root-authentication-method=normal",
            "--skip-test-db", f"--datadir={data}",
        )  # fmt: skip
        self._daemon(
            "mariadbd",
            [
                "--no-defaults",
                "--user=root",
                f"--datadir={data}",
                f"--socket={sock}",
                "--bind-address=127.0.0.1",
                f"--port={self._mysql_port}",
                f"--pid-file={run}/mariadbd.pid",
                "--innodb-buffer-pool-size=64M",
                "--innodb-flush-log-at-trx-commit=0",
            ],
            lambda: self.accepts("mariadb", "--no-defaults", "-uroot", "-S", str(sock), "-e", "select 1"),
            forks=False,
        )
        grants = "".join(
            f"create user slurm@'{host}' identified by 'slurm'; grant all on slurm_acct.* to slurm@'{host}';"
            for host in ("127.0.0.1", "localhost")
        )
        self._call(
            "mariadb", "--no-defaults", "-uroot", "-S", str(sock), "-e", f"create database slurm_acct; {grants}"
        )
        self._daemon("slurmdbd", [], lambda: _listens(self._database_port))
        for entity in (["cluster", "osim"], ["account", "osim"], ["user", "root", "account=osim"]):
            self._wait(lambda e=entity: self.accepts("sacctmgr", "-i", "-Q", "add", *e), f"sacctmgr add {entity}")
        self._daemon("slurmctld", ["-f", str(self.conf), "-c"], lambda: self.accepts("scontrol", "ping"))
        for n in range(1, NODES + 1):
            self._daemon(
                "slurmd",
                ["-f", str(self.conf), "-N", f"n{n}"],
                lambda n=n: (run / f"slurmd.n{n}.pid").exists(),
                pid_file=f"slurmd.n{n}",
            )
        self._wait(
            lambda: self.run("sinfo", "-hN", "-t", "idle", "-o", "%N").split() != [] and self._all_idle(),
            "idle nodes",
        )

    def _all_idle(self) -> bool:
        return len(set(self.run("sinfo", "-hN", "-t", "idle", "-o", "%N").split())) == NODES

    def _daemon(
        self,
        program: str,
        arguments: list[str],
        up: Callable[[], bool],
        *,
        forks: bool = True,
        pid_file: str | None = None,
    ) -> None:
        """Start one daemon, wait until it is up and remember its process id."""
        log = (self.root / "log" / f"{pid_file or program}.out").open("wb")
        with log:
            process = subprocess.Popen(
                [_path(program), *arguments],
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if not forks:
            self._started(process.pid)
        elif process.wait(timeout=START_TIMEOUT_S):
            raise CannotRun(f"{program} ended with {process.returncode}: {self._log(pid_file or program)}")
        self._wait(up, program)
        if forks:
            file = self.root / "run" / f"{pid_file or program}.pid"
            self._wait(lambda: file.exists() and file.read_text().strip().isdigit(), f"{program}'s process id")
            self._started(int(file.read_text()))

    def _log(self, name: str) -> str:
        texts = [p.read_text(errors="replace")[-2000:] for p in sorted((self.root / "log").glob(f"{name}*"))]
        return "\n".join(texts)

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not condition():
            if time.monotonic() > deadline:
                raise CannotRun(f"no {what} after {START_TIMEOUT_S:.0f} s: {self._log(what)}")
            time.sleep(0.1)

    def _call(self, program: str, *arguments: str) -> None:
        done = subprocess.run([_path(program), *arguments], capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise CannotRun(f"{program} failed: {done.stderr[-2000:]}{done.stdout[-2000:]}")


def _path(program: str) -> str:
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:{SUPER}")
    if found is None:
        raise CannotRun(f"{program} is not installed")
    return found


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _end(pid: int) -> None:
    """SIGTERM, and SIGKILL after two seconds."""
    for number, patience_s in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            try:
                if os.waitpid(pid, os.WNOHANG)[0] == pid:
                    return
            except ChildProcessError:
                if not Path(f"/proc/{pid}").exists():
                    return
            time.sleep(0.05)
