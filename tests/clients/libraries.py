"""Installs what is under test: the libraries of Python, Node and Rust in pinned versions, and octostore."""

import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
# Everything that is installed, except for node_modules, which Node looks for beside its code.
INSTALLED = TARGET / "clients"
PYTHON = INSTALLED / "python/bin/python"


def redis_py_source():
    return next((INSTALLED / "redis-py").glob("redis-*/tests")).parent


def once(stamp, files, install):
    """Installs again only when the text of one of the files has changed."""
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    stamp = INSTALLED / stamp
    if not stamp.exists() or stamp.read_text() != digest:
        install()
        stamp.write_text(digest)


def call(*arguments, cwd=HERE, **options):
    subprocess.run(arguments, cwd=cwd, check=True, **options)


def install_python():
    environment = INSTALLED / "python"
    shutil.rmtree(environment, ignore_errors=True)
    call(sys.executable, "-m", "venv", environment)
    pip = [PYTHON, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    call(*pip, "install", "--requirement", HERE / "requirements.txt")
    # redis-py's own tests are in its source package only.
    source = INSTALLED / "redis-py"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir()
    requirements = (HERE / "requirements.txt").read_text()
    redis = re.search(r"^redis==\S+", requirements, re.MULTILINE)[0]
    call(*pip, "download", "--no-deps", "--no-binary", "redis", "--dest", source, redis)
    shutil.unpack_archive(next(source.glob("*.tar.gz")), source)
    # Without the package beside them, the tests import the installed one.
    shutil.rmtree(redis_py_source() / "redis")


def install_node():
    call("npm", "ci", "--silent", "--no-audit", "--no-fund", cwd=HERE / "node")


def install_rust():
    target = INSTALLED / "rust"
    built = subprocess.run(
        ["cargo", "test", "--no-run", "--locked", "--quiet", "--message-format=json"],
        cwd=HERE / "rust",
        env=dict(os.environ, CARGO_TARGET_DIR=str(target)),
        check=True,
        stdout=subprocess.PIPE,
    )
    # The tests, and the program of the failover.
    for line in built.stdout.splitlines():
        artifact = json.loads(line)
        if executable := artifact.get("executable"):
            name = "rust-failover" if "example" in artifact["target"]["kind"] else "rust-tests"
            shutil.copy(executable, INSTALLED / name)


def install(tools):
    """Installs the libraries of these tools."""
    INSTALLED.mkdir(parents=True, exist_ok=True)
    if tools & {"pytest", "redis-py's own"}:
        once("python.stamp", [HERE / "requirements.txt"], install_python)
    if "node" in tools:
        once("node.stamp", [HERE / "node/package-lock.json"], install_node)
    if "cargo" in tools:
        install_rust()


def has_etcd():
    """Whether there is an etcd for the suites of clusters, and what octostore needs to be built for it."""
    missing = [program for program in ("etcd", "protoc") if not shutil.which(program)]
    if missing and "PEERS_DEMANDED" in os.environ:
        raise SystemExit(f"not installed: {', '.join(missing)}")
    return not missing


def octostore():
    """Builds octostore. Returns the program."""
    features = ["--features", "etcd"] if has_etcd() else []
    call("cargo", "build", "--locked", *features, cwd=ROOT)
    return TARGET / "debug/octostore"
