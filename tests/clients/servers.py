"""The servers under test: octostore or Redis, and the etcd of a cluster."""

import pathlib
import shutil
import socket
import subprocess
import tempfile
import time

import secured

START_SECONDS_MAX = 20


class Server:
    """A freshly started server with an empty directory of its own. With `certificates`, a folder, it has
    users and TLS; with a `store`, it is one of a cluster, and answers Sentinel clients at a port of its
    own, too."""

    def __init__(self, program, is_redis=False, certificates=None, store=None, shard=None, has_http=False):
        self.program, self.is_redis, self.certificates = program, is_redis, certificates
        self.store, self.shard, self.has_http = store, shard, has_http
        self.directory = tempfile.mkdtemp(prefix="octostore-clients-")
        # Another process can take a port before the server does; then the next ones are tried.
        for _ in range(5):
            self.port, self.http_port, self.sentinel_port = free_port(), free_port(), free_port()
            if self.start():
                return
        log = (pathlib.Path(self.directory) / "log").read_text()
        raise SystemExit(f"{program} does not start:\n{log}")

    def start(self):
        """Starts the server at its ports. Returns whether it answers."""
        self.log = open(pathlib.Path(self.directory) / "log", "ab")
        self.process = subprocess.Popen(
            [self.program, *self.arguments()],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        if self.answers():
            return True
        self.kill()
        return False

    def arguments(self):
        if self.is_redis:
            return ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"]
        # The tests of redis-py clean up with FLUSHDB.
        arguments = ["--log", "warn", "--allow-flush"]
        address, http = f"127.0.0.1:{self.port}", f"127.0.0.1:{self.http_port}"
        if self.certificates:
            arguments += ["--tls-listen", address, *secured.flags(self.certificates, http)]
        else:
            arguments += ["--listen", address, "--http", http if self.has_http else "off"]
        if self.store:
            sentinel = "--sentinel-tls-listen" if self.certificates else "--sentinel-listen"
            arguments += ["--store", self.store, sentinel, f"127.0.0.1:{self.sentinel_port}"]
        if self.store and self.certificates:
            arguments += ["--cluster-ca", str(pathlib.Path(self.certificates) / "ca.pem")]
        if self.shard:
            arguments += ["--shard", self.shard]
        return arguments

    def environment(self):
        """The environment variables that describe a secured server to its tests."""
        if not self.certificates:
            return {}
        return {"CERTIFICATES": str(self.certificates), "HTTPS": f"https://localhost:{self.http_port}"}

    def url(self):
        return self.url_at(self.port)

    def sentinel_url(self):
        return self.url_at(self.sentinel_port)

    def url_at(self, port):
        return f"rediss://localhost:{port}" if self.certificates else f"redis://127.0.0.1:{port}"

    def answers(self):
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.certificates:
                    return secured.accepts(self.certificates, self.port)
                if self.ask(b"PING\r\n").startswith(b"+PONG"):
                    return True
            except OSError:
                time.sleep(0.02)
        return False

    def until_led(self):
        """Waits until every shard has a leader."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while b"cluster_state:ok" not in self.ask(b"CLUSTER INFO\r\n"):
            if time.monotonic() > deadline:
                raise SystemExit("the cluster has no leaders")
            time.sleep(0.02)

    def leads(self):
        """Whether it says that it leads."""
        try:
            return self.ask(b"ROLE\r\n").startswith(b"*3\r\n$6\r\nmaster")
        except OSError:
            return False

    def ask(self, request):
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(request)
            return connection.recv(4096)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.directory)


class Etcd:
    """A freshly started etcd server with an empty directory of its own."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="octostore-clients-")
        port, peer_port = free_port(), free_port()
        client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
        self.address = f"etcd://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [
                *("etcd", "--name", "one", "--data-dir", self.directory, "--log-level", "error"),
                *("--listen-client-urls", client, "--advertise-client-urls", client),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--initial-cluster", f"one={peer}"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def store(self, prefix="locks"):
        """The address of a store in it."""
        return f"{self.address}/{prefix}"

    def stop(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.directory)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
