"""What a server with users and TLS needs: certificates, made on the spot, and a users file."""

import pathlib
import socket
import ssl
import subprocess

USERS = """\
user default off
user worker on >worker-password ~jobs.* &jobs.* +@all -@dangerous
user admin on >admin-password ~* &* +@all
"""
# The signer of each certificate and the days that it is valid. Of those of clients, `client` is not the
# name of a user, and `worker` is. The server accepts clients of `ca` only. Before `renewed` replaces
# `server`, clients that trust only `new-ca` refuse the server; afterwards, they do not.
CERTIFICATES = {
    "server": ("ca", 2),
    "renewed": ("new-ca", 2),
    "client": ("ca", 2),
    "worker": ("ca", 2),
    "expired": ("ca", -1),
    "foreign": ("new-ca", 2),
}
EXTENSIONS = """\
subjectAltName=DNS:localhost,IP:127.0.0.1
basicConstraints=critical,CA:FALSE
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
"""


def make(folder):
    """Makes `<name>.pem` and `<name>.key` of each certificate, those of the roots, `roots.pem` with
    both roots, and `users`. Returns the folder."""
    folder = pathlib.Path(folder)
    folder.mkdir(mode=0o700)
    (folder / "extensions").write_text(EXTENSIONS)
    roots = ("ca", "new-ca")
    for root in roots:
        request(folder, root, "-x509", "-days", "2", out=f"{root}.pem")
    (folder / "roots.pem").write_text("".join((folder / f"{root}.pem").read_text() for root in roots))
    for name, (root, days) in CERTIFICATES.items():
        sign(folder, name, root, days)
    users = folder / "users"
    users.write_text(USERS)
    users.chmod(0o600)
    return folder


def request(folder, name, *more, out):
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl(folder, "req", *curve, "-keyout", f"{name}.key", "-subj", f"/CN={name}", *more, "-out", out)


def sign(folder, name, root, days):
    request(folder, name, out=f"{name}.csr")
    signer = ["-CA", f"{root}.pem", "-CAkey", f"{root}.key", "-CAcreateserial"]
    options = ["-days", str(days), "-extfile", "extensions", "-out", f"{name}.pem"]
    openssl(folder, "x509", "-req", "-in", f"{name}.csr", *signer, *options)


def openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def accepts(folder, port):
    """Whether the server serves a client with a certificate. Raises OSError if not."""
    folder = pathlib.Path(folder)
    context = ssl.create_default_context(cafile=folder / "roots.pem")
    context.load_cert_chain(folder / "client.pem", folder / "client.key")
    with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        with context.wrap_socket(connection, server_hostname="localhost") as encrypted:
            encrypted.sendall(b"PING\r\n")
            return encrypted.recv(64).startswith(b"-NOAUTH")


def flags(folder, https):
    """The flags of a server whose port for Redis clients has TLS, too."""
    path = lambda name: str(pathlib.Path(folder) / name)
    return [
        *("--listen", "off", "--http", "off", "--https", https),
        *("--tls-cert", path("server.pem"), "--tls-key", path("server.key")),
        *("--tls-client-ca", path("ca.pem"), "--tls-user-from", "cn", "--users", path("users")),
    ]
