"""Chains, arrays, submission through NeMo-Run and over SSH, under a real Slurm."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from common.files import read_json
from data_tools.packed import PackedShard
from launch.submit import nemo
from tests.megatron_osim.corpus import Corpus
from tests.slurm.cluster import free_ports
from tests.slurm.conftest import ARCHITECTURE, Osim, history, midtrain_recipe

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(900)]


def prepare_recipe(corpus: Corpus, output: str) -> dict[str, object]:
    """The corpus of the tests prepared once more."""
    return {
        "inputs": [{"glob": str(corpus.train.parent.parent / "*.jsonl")}],
        "tokenizer": str(corpus.tokenizer),
        "output": output,
        "sequence_length": 128,
        "backend": "hf",
        "sources": {"train": {"swap": False}, "other": {"swap": False}},
    }


def test_chain_of_an_array_its_merge_midtraining_and_conversion_runs_in_order(osim: Osim, corpus: Corpus) -> None:
    osim.file("data.yaml", prepare_recipe(corpus, "unset"))
    osim.file("midtrain.yaml", midtrain_recipe(corpus, steps=3, export_hf=False) | {"architecture": ARCHITECTURE})
    source = "data.sources=[{name: all, prefixes: ['{root}/shard/all']}]"
    chain = osim.file(
        "chain.yaml",
        {
            "stages": [
                {
                    "name": "data",
                    "kind": "data",
                    "recipe": "data.yaml",
                    "shards": 2,
                    "set": ["output={root}/shard/all"],
                },
                {"name": "midtrain", "kind": "midtrain", "recipe": "midtrain.yaml", "nodes": 1, "set": [source]},
                {"name": "convert", "kind": "convert", "source": "midtrain"},
            ]
        },
    )
    root = osim.folder / "root"
    told = osim("launch", "chain", chain, "--cluster", osim.cluster(), "--out", root, "--wait")
    assert told.count("COMPLETED") == 4
    assert PackedShard.open(root / "shard" / "all").num_bins > 1
    assert (root / "convert" / "hf" / "model.safetensors").is_file()
    ends = [history(root / name)[-1] for name in ("data", "midtrain", "convert")]
    assert ends == ["ended 0"] * 3
    jobs = read_json(root / "launch" / "record.json")["jobs"]
    assert [job["name"] for job in jobs] == ["data", "data-merge", "midtrain", "convert"]


@pytest.mark.skipif(nemo.installed_version() is None, reason="no NeMo-Run environment: run `make nemo-run`")
def test_job_through_nemo_run_ends_with_its_own_exit_code_and_what_waits_for_it_is_removed(
    osim: Osim, corpus: Corpus
) -> None:
    data = prepare_recipe(corpus, str(osim.folder / "shard"))
    osim.file("data.yaml", data)
    osim.file("midtrain.yaml", midtrain_recipe(corpus, steps=3))
    stages = [
        {"name": "bad", "kind": "data", "recipe": "data.yaml", "set": ["tokenizer=/nowhere"]},
        {"name": "midtrain", "kind": "midtrain", "recipe": "midtrain.yaml", "nodes": 1},
    ]
    chain, root = osim.file("chain.yaml", {"stages": stages}), osim.folder / "root"
    told = osim("launch", "chain", chain, "--cluster", osim.cluster(submit="auto"), "--out", root, "--wait", expect=2)
    assert "bad: job" in told and "(NeMo-Run: " in told
    assert "FAILED, exit code 2" in told and "/nowhere" in told
    assert "midtrain (midtrain" in told and "CANCELLED" in told
    assert not (root / "midtrain" / "metrics.jsonl").exists()


@dataclass(frozen=True)
class Login:
    """An sshd of our own, as the login node."""

    config: Path
    """For ssh: names the host `login`."""


@pytest.fixture
def login(tmp_path: Path) -> Iterator[Login]:
    daemon = shutil.which("sshd", path="/usr/sbin:/usr/bin")
    if daemon is None:
        pytest.skip("no sshd: install Debian's openssh-server")
    (port,) = free_ports(1)
    folder = tmp_path / "ssh"
    folder.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        f"PidFile {folder}/pid\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n"
    )
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    config = folder / "config"
    config.write_text(
        f"Host login\n  HostName 127.0.0.1\n  Port {port}\n  User root\n  IdentityFile {folder}/user\n"
        f"  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known_hosts\n"
    )
    with subprocess.Popen([daemon, "-D", "-e", "-f", folder / "sshd_config"], stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 30
        while not (folder / "pid").exists():
            assert process.poll() is None and time.monotonic() < deadline, process.stderr and process.stderr.read()
            time.sleep(0.05)
        yield Login(config)
        process.terminate()


def test_job_over_ssh_runs_on_the_cluster_and_the_record_stays_here(
    osim: Osim, corpus: Corpus, login: Login, tmp_path: Path
) -> None:
    remote, here = tmp_path / "remote", tmp_path / "here"
    cluster = osim.cluster(
        host="login",
        ssh_config=str(login.config),
        login_setup=[f"export SLURM_CONF={osim.slurm.conf}"],
        run_root=str(remote),
    )
    recipe = osim.file("data.yaml", prepare_recipe(corpus, str(tmp_path / "shard")))
    told = osim("launch", "data", "--recipe", recipe, "--cluster", cluster, "--out", here / "one", "--wait")
    assert "COMPLETED" in told and (tmp_path / "shard.bin").is_file()
    assert sorted(p.name for p in here.rglob("*") if p.is_file()) == ["record.json"]
    assert history(remote / "one")[-1] == "ended 0"
    assert "COMPLETED; ended 0" in osim("launch", "status", here / "one")
    assert "documents" in osim("launch", "logs", here / "one", "rank0")
    assert yaml.safe_load((remote / "one" / "launch" / "recipe.yaml").read_text())["sequence_length"] == 128


def test_unreachable_login_node_is_a_usage_error(osim: Osim, corpus: Corpus, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host login\n  HostName 127.0.0.1\n  Port 9\n")
    cluster = osim.cluster(host="login", ssh_config=str(config), run_root="/tmp/never")
    recipe = osim.file("data.yaml", prepare_recipe(corpus, str(tmp_path / "shard")))
    told = osim("launch", "data", "--recipe", recipe, "--cluster", cluster, "--out", tmp_path / "one", expect=2)
    assert "Connection refused" in told and "ssh login true" in told
