"""The load and the faults of kill-the-leader.sh, which see."""

import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

CLIENTS = 50
PORTS = (7301, 7302, 7303)
STORE = "etcd://127.0.0.1:23791,127.0.0.1:23792,127.0.0.1:23793/locks"
KILL_EVERY_S = 10
OCTOSTORE = os.environ.get("OCTOSTORE", "octostore")


class Connection:
    """A connection to one of the servers, which may die at any time."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.reader = self.socket.makefile("rb")

    def call(self, *words):
        """The line that answers a request. Raises OSError if there is none."""
        parts = [word.encode() for word in words]
        request = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        self.socket.sendall(request)
        line = self.reader.readline()
        if not line:
            raise ConnectionResetError
        return line.rstrip().decode()

    def close(self):
        self.socket.close()


class Totals:
    """What all clients have seen."""

    def __init__(self):
        self.lock = threading.Lock()
        self.grants = 0
        self.longest = 0.0
        self.lost = 0
        self.repeated = 0
        self.newest = {}
        self.tokens = set()

    def granted(self, key, token, took):
        with self.lock:
            self.grants += 1
            self.longest = max(self.longest, took)
            # A client that asks again for the lock that it holds gets the token that it has. All others
            # come from one counter: none is seen twice, and those of a lock increase.
            newest = self.newest.get(key, 0)
            if token < newest or (token in self.tokens and token != newest):
                self.repeated += 1
            self.tokens.add(token)
            self.newest[key] = max(token, newest)

    def next_line(self):
        with self.lock:
            line = (self.grants, self.longest, self.lost, self.repeated)
            self.grants, self.longest = 0, 0.0
            return line


def serve(number, totals, stop):
    """Takes and releases a lock that no other client uses, over any of the servers."""
    key, owner = f"lock:{number}", f"client:{number}"
    connection, began = None, time.monotonic()
    while not stop.is_set():
        try:
            connection = connection or Connection(random.choice(PORTS))
            reply = connection.call("LOCK", key, owner, "EX", "60")
            if not reply.startswith(":"):
                raise OSError(reply)
            token = int(reply[1:])
            totals.granted(key, token, time.monotonic() - began)
            began = time.monotonic()
            # The grant was acknowledged, so every server must know it, now and after a change of leader.
            fence = connection.call("FENCE", key)
            if fence.startswith(":") and int(fence[1:]) < token or fence == "$-1":
                with totals.lock:
                    totals.lost += 1
            connection.call("UNLOCK", key, owner)
        except OSError:
            if connection:
                connection.close()
                connection = None
            time.sleep(0.02)


def leader():
    """The port of the server that leads; None if there is none at present."""
    for port in PORTS:
        try:
            connection = Connection(port)
            reply = connection.call("ROLE")
            role = connection.reader.readline() and connection.reader.readline().strip()
            connection.close()
            if reply == "*3" and role == b"master":
                return port
        except OSError:
            pass
    return None


def kill_leader(folder):
    """Kills the leader with SIGKILL and starts it again."""
    port = leader()
    if port is None:
        return None
    pid_file = folder / f"{port}.pid"
    os.kill(int(pid_file.read_text()), signal.SIGKILL)
    addresses = ["--listen", f"127.0.0.1:{port}", "--http", f"127.0.0.1:{port + 100}"]
    with open(folder / f"{port}.log", "ab") as log:
        command = [OCTOSTORE, "--store", STORE, *addresses]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
    pid_file.write_text(f"{process.pid}\n")
    return port


def check(folder):
    """Ends the program if there is nothing to kill, or nothing to start again."""
    if not all((folder / f"{port}.pid").exists() for port in PORTS):
        sys.exit(f"{folder} is not a folder of run.sh: start the servers first, and name their folder")
    if shutil.which(OCTOSTORE) is None:
        sys.exit(f"there is no program {OCTOSTORE}: set the variable OCTOSTORE to its path")
    if leader() is None:
        sys.exit("no server leads: start the servers with run.sh first")


def main():
    folder = pathlib.Path(sys.argv[1])
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 10**9
    check(folder)
    totals, stop = Totals(), threading.Event()
    threads = [
        threading.Thread(target=serve, args=(number, totals, stop), daemon=True) for number in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    print("second   grants   longest wait   lost acknowledgements   repeated tokens", flush=True)
    try:
        for second in range(1, seconds + 1):
            time.sleep(1)
            grants, longest, lost, repeated = totals.next_line()
            note = ""
            if second % KILL_EVERY_S == 0:
                killed = kill_leader(folder)
                note = f"   server {killed} led and was killed" if killed else "   no server leads"
            print(f"{second:6}   {grants:6}   {longest:10.3f} s   {lost:21}   {repeated:15}{note}", flush=True)
    except KeyboardInterrupt:
        pass
    stop.set()
    sys.exit(1 if totals.lost or totals.repeated else 0)


if __name__ == "__main__":
    main()
