"""Nothing in the product runs or unpickles data: read from the syntax tree of every file, not from its text."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("common", "data_tools", "envs", "eval", "launch", "megatron_osim", "rl")
FILES = sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))
FORBIDDEN_CALLS = {
    "eval": "runs text",
    "exec": "runs text",
    "compile": "makes code of text",
    "__import__": "imports what a text names",
    "os.system": "runs a shell",
    "os.popen": "runs a shell",
    "subprocess.getoutput": "runs a shell",
    "tempfile.mktemp": "a name that another can take first",
    "yaml.load": "constructs objects unless its loader is safe",
    "yaml.unsafe_load": "constructs objects",
    "yaml.full_load": "constructs objects",
    "torch.load": "unpickles unless weights_only",
    "joblib.load": "unpickles",
    "numpy.load": "unpickles unless allow_pickle is False",
    "np.load": "unpickles unless allow_pickle is False",
    "marshal.loads": "makes code of bytes",
    "shelve.open": "unpickles",
    "pandas.read_pickle": "unpickles",
}
FORBIDDEN_IMPORTS = ("pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib")
ALLOWED = {
    ("common/yaml_text.py", "yaml.load"): "its loader is a subclass of SafeLoader (tests/fuzz/test_common.py)",
    (
        "envs/registry.py",
        "exec_module",
    ): "a task file that a person names on the command line is code, like an import",
    ("rl/weight_sync/shared.py", "ForkingPickler"): "writes handles to tensors for SGLang's server; reads nothing",
}


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a name or attribute; `?.c` where it hangs on something else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return f"{inner or '?'}.{node.attr}"
    return ""


def findings(file: Path) -> Iterator[tuple[str, int]]:
    """What a file does that it must not, with its line."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            yield from ((name, node.lineno) for name in names if name.partition(".")[0] in FORBIDDEN_IMPORTS)
            yield from ((a.name, node.lineno) for a in node.names if "Pickler" in a.name)
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            keywords = {k.arg: k.value for k in node.keywords}
            if safe_load(name, keywords):
                continue
            if name in FORBIDDEN_CALLS:
                yield name, node.lineno
            if name.rpartition(".")[2] == "exec_module":
                yield "exec_module", node.lineno
            if "shell" in keywords and not is_constant(keywords["shell"], False):
                yield "shell=", node.lineno
            if "weights_only" in keywords and not is_constant(keywords["weights_only"], True):
                yield "weights_only=", node.lineno
            if "trust_remote_code" in keywords and not is_constant(keywords["trust_remote_code"], False):
                yield "trust_remote_code=", node.lineno
            if "autoescape" in keywords and is_constant(keywords["autoescape"], False):
                yield "autoescape=False", node.lineno
            if "verify" in keywords and is_constant(keywords["verify"], False) and "http" in name:
                yield "verify=False", node.lineno


def safe_load(name: str, keywords: dict[str | None, ast.expr]) -> bool:
    if name in ("np.load", "numpy.load"):
        return "allow_pickle" in keywords and is_constant(keywords["allow_pickle"], False)
    return name == "torch.load" and "weights_only" in keywords and is_constant(keywords["weights_only"], True)


def is_constant(node: ast.expr, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def test_no_file_runs_text_unpickles_data_or_calls_a_shell() -> None:
    assert len(FILES) > 300
    found = [
        f"{file.relative_to(ROOT)}:{line}: {what}"
        for file in FILES
        for what, line in findings(file)
        if (str(file.relative_to(ROOT)), what) not in ALLOWED
    ]
    assert not found


def test_every_exception_to_the_rule_is_still_there() -> None:
    for name, what in ALLOWED:
        assert what in {one for one, _ in findings(ROOT / name)}, f"{name} no longer needs {what}"


@pytest.mark.parametrize(
    "source",
    ["eval('1')", "import pickle", "from pickle import loads", "import os\nos.system('x')", "run(a, shell=True)",
     "run(a, shell=x)", "torch.load(f)", "torch.load(f, weights_only=False)", "np.load(f)", "yaml.load(t, L)",
     "from_pretrained(p, trust_remote_code=True)", "Environment(autoescape=False)",
     "spec.loader.exec_module(m)", "np.load(f, allow_pickle=True)"],
)  # fmt: skip
def test_the_rule_sees(source: str, tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(source)
    assert list(findings(tmp_path / "x.py"))


@pytest.mark.parametrize(
    "source",
    ["model.eval()", "load(p).eval()",
     "re.compile('x')", "run(a, shell=False)", "np.load(f, allow_pickle=False)", "ast.literal_eval(t)",
     "torch.load(f, weights_only=True)", "yaml.safe_load(t)"],
)  # fmt: skip
def test_the_rule_lets_pass(source: str, tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(source)
    assert not list(findings(tmp_path / "x.py"))
