"""A throw-away certificate authority and a server certificate for `localhost` and 127.0.0.1."""

import shlex
import subprocess

NEW_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
EXTENSIONS = """\
subjectAltName=DNS:localhost,IP:127.0.0.1
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
"""


def make(folder):
    """Write `ca.crt`, `server.crt` and `server.key` to `folder`."""
    (folder / "server.ext").write_text(EXTENSIONS)
    openssl(
        folder,
        f"req -x509 {NEW_KEY} -days 2 -subj '/CN=Toolgate interop CA' -addext keyUsage=critical,keyCertSign,cRLSign"
        " -keyout ca.key -out ca.crt",
    )
    openssl(folder, f"req {NEW_KEY} -subj /CN=localhost -keyout server.key -out server.csr")
    openssl(
        folder,
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile server.ext -out server.crt",
    )


def openssl(folder, arguments):
    """Run openssl in `folder`; its words are shown only when it fails."""
    done = subprocess.run(["openssl", *shlex.split(arguments)], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {arguments} failed:\n{done.stderr}")
