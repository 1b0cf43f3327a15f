"""Logs in the JSON format of Inspect (EvalLog version 2), one per task, that `inspect view` opens.

Written without inspect-ai: plain data. A sample is one episode: its first prompt, the seats' talk as messages, the
outcome as score (an unscored episode is an error of the sample, never a number), judge calls as model events and
detector findings as metadata. Times are those of the export; the ledger keeps no clock of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.files import hash_json, write_json
from envs.types import Episode, Score
from eval.results import Item, Results, TaskResult

ROLES = ("system", "user", "assistant", "tool")
SCORER = "osim"


def export_inspect(results: Results, folder: Path, episodes: Mapping[str, Episode]) -> list[Path]:
    """Write FOLDER/TIME_TASK_ID.json for each task; returns their paths."""
    now = datetime.now(UTC).replace(microsecond=0)
    paths = []
    for task in results.tasks:
        log = eval_log(results, task, episodes, now)
        stamp = now.strftime("%Y-%m-%dT%H-%M-%S+00-00")
        path = folder / f"{stamp}_{_plain(task.task)}_{log['eval']['eval_id']}.json"
        write_json(path, log)
        paths.append(path)
    return paths


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)


def eval_log(results: Results, task: TaskResult, episodes: Mapping[str, Episode], now: datetime) -> dict[str, Any]:
    """One task as an EvalLog."""
    time = now.isoformat()
    ident = hash_json([results.plan, task.task, task.profile])[:22]
    source = results.provenance.get("source", results.model)
    rows = list(dict.fromkeys(i.row for i in task.items))
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "eval_id": ident,
            "run_id": hash_json([results.plan])[:22],
            "created": time,
            "task": task.task,
            "task_id": hash_json([task.task])[:22],
            "task_version": task.version,
            "dataset": {
                "name": task.task,
                "samples": len(rows),
                "sample_ids": rows,
                "shuffled": False,
            },
            "model": f"osim/{source}",
            "model_args": {},
            "task_args": {"profile": task.profile, "seed": results.seed},
            "config": {"epochs": results.epochs},
            "metadata": {"axis": task.axis, "licence": task.licence, "coverage": task.coverage, "plan": results.plan},
            "packages": {},
        },
        "plan": {"name": "osim", "steps": [], "config": {}},
        "results": _results(task),
        "stats": {"started_at": time, "completed_at": time, "model_usage": {}},
        "samples": [_sample(task, item, episodes.get(item.key), time, source) for item in task.items],
    }


def _results(task: TaskResult) -> dict[str, Any]:
    metrics = {}
    if task.estimate is not None:
        e = task.estimate
        named = {task.metric: e.value, "low 95 %": e.low, "high 95 %": e.high, "coverage": task.coverage}
        metrics = {name: {"name": name, "value": value, "params": {}} for name, value in named.items()}
    return {
        "total_samples": task.planned,
        "completed_samples": task.scored,
        "scores": [
            {
                "name": SCORER,
                "scorer": SCORER,
                "params": {"profile": task.profile},
                "metrics": metrics,
                "scored_samples": task.scored,
                "unscored_samples": task.planned - task.scored,
            }
        ],
    }


def _sample(task: TaskResult, item: Item, episode: Episode | None, time: str, source: str) -> dict[str, Any]:
    messages = _messages(episode) if episode else []
    # The last turn of the evaluated seat: a partner may have had the last word, and a prompt is no answer.
    opening = len(_input(episode)) if episode else 0
    answer = next((m["content"] for m in reversed(messages[opening:]) if m["role"] == "assistant"), "")
    sample: dict[str, Any] = {
        "id": item.row,
        "epoch": item.epoch + 1,
        "input": _input(episode) if episode else "",
        "target": _target(episode) if episode else "",
        "messages": messages,
        "output": {
            "model": source,
            "choices": [{"message": {"role": "assistant", "content": answer}, "stop_reason": "stop"}],
        },
        "scores": {},
        "metadata": {"key": item.key, "cluster": item.cluster},
        "store": {},
        "events": _events(episode, time) if episode else [],
        "model_usage": {},
        "attachments": {},
    }
    if item.value is not None:
        sample["scores"][SCORER] = {
            "value": item.value,
            "answer": answer[:2000],
            "explanation": _explanation(episode),
            "metadata": {"parts": item.parts, "format_error": item.format_error},
        }
    else:
        text = f"no score: {item.reason}"
        sample["error"] = {"message": text, "traceback": text, "traceback_ansi": text}
    if episode is not None:
        sample["total_time"] = episode.wall_s
        sample["metadata"] |= {
            "stop": episode.stop.value,
            "findings": [f"{f.detector} ({f.seat}, turn {f.turn}): {f.detail}" for f in episode.findings],
        }
    return sample


def _text(value: str) -> str:
    # A lone surrogate cannot be written as UTF-8.
    return value.encode("utf-8", "replace").decode("utf-8")


def _input(episode: Episode) -> list[dict[str, Any]]:
    """The first prompt of the first seat."""
    for seat in episode.views:
        opening = episode.views[seat][: episode.opening.get(seat, len(episode.views[seat]))]
        return [{"role": m.role, "content": _text(m.content)} for m in opening if m.role in ROLES[:3]]
    return []


def _messages(episode: Episode) -> list[dict[str, Any]]:
    """The first prompt, then what every seat said: the first seat as assistant, the others as users by name."""
    first = next(iter(episode.views), None)
    out = _input(episode)
    for say in episode.says:
        mine = say.seat == first
        text = _text(say.text) if mine else f"{say.seat}: {_text(say.text)}"
        out.append({"role": "assistant" if mine else "user", "content": text})
    return out


def _target(episode: Episode) -> str:
    answer = episode.row.data.get("answer", episode.row.data.get("completion", ""))
    return _text(answer if isinstance(answer, str) else json.dumps(answer, default=str))


def _explanation(episode: Episode | None) -> str:
    scores = [o for o in episode.outcomes.values() if isinstance(o, Score)] if episode else []
    return _text(" · ".join(s.explanation for s in scores if s.explanation))


def _events(episode: Episode, time: str) -> list[dict[str, Any]]:
    """Judge and partner calls as information events."""
    return [
        {
            "event": "info",
            "timestamp": time,
            "working_start": 0,
            "pending": False,
            "source": f"{call.role} · {call.model}",
            "data": {
                "request": json.loads(json.dumps(dict(call.request), default=str)),
                "reply": _text(call.reply) if call.reply is not None else None,
                "error": call.error,
                "cost_usd": call.cost_usd,
            },
        }
        for call in episode.judge_calls
    ]
