"""A certificate's key that is encrypted: the coordinator says so, and never asks at the terminal."""

from __future__ import annotations

import contextlib
import datetime
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lockring.errors import StoreError
from lockring.store.etcd.store import EtcdStore

_OPEN: Final = """
import sys
from lockring.errors import StoreError
from lockring.store.urls import open_store
try:
    open_store(sys.argv[1])
except StoreError as error:
    print("refused:", error)
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate, and its key with a passphrase."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "coordinator")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    cert_file, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert_file.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    key_file.chmod(0o600)
    return cert_file, key_file


def test_the_key_and_what_to_do_are_named(files: tuple[Path, Path]) -> None:
    cert, key = files
    with pytest.raises(
        StoreError, match=f"the key {key} is encrypted with a passphrase.*openssl pkey -in {key}"
    ):
        EtcdStore(f"etcds://127.0.0.1:1/p?ca={cert}&cert={cert}&key={key}")


def test_nothing_is_asked_at_the_terminal(files: tuple[Path, Path]) -> None:
    """OpenSSL asks at the terminal of the session, whatever standard input is."""
    cert, key = files
    terminal, end = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", _OPEN, f"etcds://127.0.0.1:1/p?ca={cert}&cert={cert}&key={key}"],
        stdin=end,
        stdout=subprocess.PIPE,
        stderr=end,
        timeout=60,
        start_new_session=True,
        text=True,
        check=True,
    )
    os.close(end)
    assert done.stdout.startswith("refused: ")
    os.set_blocking(terminal, False)
    with contextlib.suppress(OSError):  # nothing was written there
        assert os.read(terminal, 1000) == b""
    os.close(terminal)
