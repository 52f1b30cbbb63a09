"""What the scripts in this folder share: servers, checks, and programs that expect a terminal.

A script is a series of functions with the decorator `check`. Each uses the real tool, raises an
exception if something is not as it should be, and returns what it saw, in a few words.
"""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
import traceback
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
# Everything that scripts install, except for node_modules, which Node looks for beside its code.
INSTALLED = TARGET / "tools"
# For what takes less than a second; other work may share the processors.
SECONDS_MAX = 30
INSTALL_SECONDS_MAX = 300


def octostore():
    """The program under test: that of the environment variable OCTOSTORE, or built from this tree."""
    if "OCTOSTORE" not in os.environ:
        subprocess.run(["cargo", "build", "--locked", "--quiet"], cwd=ROOT, check=True)
        os.environ["OCTOSTORE"] = str(TARGET / "debug/octostore")
    return os.environ["OCTOSTORE"]


def need(*programs, packages, files=()):
    """Installs Debian packages if one of the programs or files is missing."""
    if all(shutil.which(program) for program in programs) and all(file.exists() for file in files):
        return
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    subprocess.run(install, check=True, env=environment, stdout=subprocess.DEVNULL)


def once(name, file, install):
    """Runs `install` if it has not been run with this text of the file."""
    stamp = INSTALLED / f"{name}.stamp"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        INSTALLED.mkdir(parents=True, exist_ok=True)
        install()
        stamp.write_text(digest)


def python_tools():
    """The folder of the programs that requirements.txt installs."""
    environment = INSTALLED / "python"

    def install():
        shutil.rmtree(environment, ignore_errors=True)
        run(sys.executable, "-m", "venv", environment)
        pip = [environment / "bin/python", "-m", "pip", "--disable-pip-version-check", "--quiet"]
        run(*pip, "install", "--requirement", HERE / "requirements.txt", seconds=INSTALL_SECONDS_MAX)

    once("python", HERE / "requirements.txt", install)
    return environment / "bin"


def node_tools():
    """The folder of the programs that node/package-lock.json installs."""

    def install():
        arguments = ["npm", "ci", "--silent", "--no-audit", "--no-fund"]
        run(*arguments, seconds=INSTALL_SECONDS_MAX, cwd=HERE / "node")

    once("node", HERE / "node/package-lock.json", install)
    return HERE / "node/node_modules/.bin"


class Server:
    """A server with empty data, on ports of its own."""

    def __init__(self, *options):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="octostore-tools-"))
        fixed = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--log", "error"]
        data = [] if "--store" in options else ["--data", self.folder / "data.db"]
        arguments = [octostore(), *fixed, *data, *options]
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(arguments, stdout=log, stderr=subprocess.STDOUT)
        found = wait_until(self.started)
        self.http = found["http"]
        # In plain text, then with TLS.
        addresses = re.findall(r"[\d.]+:\d+", found["redis"])
        self.redis = addresses[0]
        self.port, self.tls_port = (addresses[at].rsplit(":", 1)[1] for at in (0, -1))

    def output(self):
        return (self.folder / "log").read_text(errors="replace")

    def started(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended: {self.output()}")
        lines = dict(re.findall(r"^  (\w+) +(.*)", self.output(), re.MULTILINE))
        return lines if "try" in lines else None

    def get(self, path, headers=None):
        """The body of an HTTP response."""
        request = urllib.request.Request(f"http://{self.http}{path}", headers=headers or {})
        with urllib.request.urlopen(request, timeout=SECONDS_MAX) as response:
            return response.read().decode()

    def metrics(self, headers=None):
        """The samples of /metrics by their names with labels."""
        return samples(self.get("/metrics", headers))

    def cli(self, *arguments, **options):
        """The output of redis-cli."""
        return run("redis-cli", "-p", self.port, *arguments, **options)

    def info(self):
        lines = self.cli("INFO", "everything").splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def stop(self):
        stop(self.process)
        shutil.rmtree(self.folder)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def samples(text):
    """The samples of a Prometheus text format by their names with labels."""
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and line[0] != "#")
    return {name: float(value) for name, value in lines}


def stop(process):
    process.terminate()
    try:
        process.wait(SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def run(*arguments, code=0, stdin=None, seconds=SECONDS_MAX, **options):
    """The output of a program, errors included, that must exit with `code`."""
    finished = subprocess.run(
        [str(argument) for argument in arguments],
        input=stdin if stdin is not None else b"",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=seconds,
        **options,
    )
    output = finished.stdout.decode(errors="replace")
    if code is not None and finished.returncode != code:
        raise AssertionError(f"exit code {finished.returncode} of {arguments}: {output}")
    return output


def expect(condition, seen):
    """Fails and shows what was seen, unless the condition is true."""
    if not condition:
        raise AssertionError(seen)


@contextlib.contextmanager
def etcd():
    """The address of an etcd with empty data."""
    clients, peers = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    with tempfile.TemporaryDirectory(prefix="octostore-tools-") as folder:
        process = subprocess.Popen(
            [
                *("etcd", "--data-dir", folder, "--listen-client-urls", clients),
                *("--advertise-client-urls", clients, "--listen-peer-urls", peers),
                *("--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def answers():
            expect(process.poll() is None, "etcd has ended")
            try:
                return urllib.request.urlopen(f"{clients}/health", timeout=1).status == 200
            except OSError:
                return False

        try:
            wait_until(answers, "etcd")
            yield clients
        finally:
            stop(process)


@contextlib.contextmanager
def certificate():
    """A folder with the self-signed certificate `cert` of this machine and its `key`."""
    with tempfile.TemporaryDirectory(prefix="octostore-tools-") as folder:
        run(
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", f"{folder}/key", "-out", f"{folder}/cert", "-days", "365"),
        )
        yield folder


def free_port():
    """A port that was free a moment ago, for tools that cannot choose one themselves."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(condition, what="", seconds=SECONDS_MAX):
    """The first result of `condition` that is true. An error names `what` was waited for."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or condition}")
        time.sleep(0.05)


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, *arguments, env=None):
        self.screen = ""
        self.process, self.file = pty.fork()
        if self.process == 0:
            # Wide enough that nothing is wrapped, and known, so that programs do not ask.
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 250, 0, 0))
            environment = dict(os.environ, TERM="xterm", **(env or {}))
            os.execvpe(arguments[0], [str(argument) for argument in arguments], environment)

    def read_until(self, pattern, seconds=SECONDS_MAX):
        """Returns what is shown up to and including the pattern."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.screen)):
            ready, _, _ = select.select([self.file], [], [], max(deadline - time.monotonic(), 0))
            try:
                read = os.read(self.file, 65536) if ready else b""
            except OSError:  # the program ended
                read = b""
            if not read:
                raise AssertionError(f"{pattern} is not in {self.screen[-2000:]!r}")
            self.screen += plain(read.decode(errors="replace"))
        seen, self.screen = self.screen[: found.end()], self.screen[found.end() :]
        return seen

    def type(self, text):
        os.write(self.file, text.encode())

    def close(self):
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        os.close(self.file)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def plain(text):
    """The text without colours and movements of the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "")


CHECKS = []


def check(function):
    """Makes a function one of the checks of a script."""
    CHECKS.append(function)
    return function


def main(*arguments):
    """Runs the checks, each with `arguments`, and exits with 1 if one has failed."""
    failed = 0
    for function in CHECKS:
        name = function.__name__.replace("_", " ")
        try:
            print(f"ok    {name}: {function(*arguments)}", flush=True)
        except Exception:
            failed += 1
            print(f"FAIL  {name}\n{traceback.format_exc()}", flush=True)
    print(f"{len(CHECKS) - failed} of {len(CHECKS)} checks passed")
    sys.exit(1 if failed else 0)
