"""Generates the stubs from the `.proto` files here: `make proto`.

`lockring/v1`, the API that lockring offers, goes to `src/lockring/grpc_api/v1`. `lockring/store/etcd`, the part of etcd's
API that lockring calls, goes to `src/lockring/store/etcd`: messages alone, since its calls are made by their paths.

The stubs are committed, so that installing lockring needs no compiler. A test generates them again and compares.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PROTO: Final = ROOT / "proto"
TARGET: Final = ROOT / "src" / "lockring" / "grpc_api" / "v1"
ETCD_TARGET: Final = ROOT / "src" / "lockring" / "store" / "etcd"


def generate(target: Path) -> None:
    """Write the stubs of lockring's own API to the directory `target`."""
    with tempfile.TemporaryDirectory() as scratch:
        _compile("lockring/v1", scratch, with_calls=True)
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted(Path(scratch, "lockring", "v1").iterdir()):
            # The compiler derives the package from the path of the .proto file; ours lies within lockring.grpc_api.
            text = path.read_text(encoding="utf-8")
            text = text.replace("from lockring.v1 import", "from lockring.grpc_api.v1 import")
            text = text.replace("import lockring.v1.lockring_pb2", "import lockring.grpc_api.v1.lockring_pb2")
            text = text.replace("lockring.v1.lockring_pb2.", "lockring.grpc_api.v1.lockring_pb2.")
            (target / path.name).write_text(text, encoding="utf-8")


def generate_etcd(target: Path) -> None:
    """Write the messages of etcd's API to the directory `target`."""
    with tempfile.TemporaryDirectory() as scratch:
        _compile("lockring/store/etcd", scratch, with_calls=False)
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted(Path(scratch, "lockring", "store", "etcd").iterdir()):
            (target / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")


def _compile(folder: str, scratch: str, *, with_calls: bool) -> None:
    from grpc_tools import protoc

    plugin = Path(sys.executable).parent
    calls = [
        f"--plugin=protoc-gen-mypy_grpc={plugin / 'protoc-gen-mypy_grpc'}",
        f"--grpc_python_out={scratch}",
        f"--mypy_grpc_out=quiet:{scratch}",
    ]
    arguments = [
        "protoc",
        f"--proto_path={PROTO}",
        f"--plugin=protoc-gen-mypy={plugin / 'protoc-gen-mypy'}",
        f"--python_out={scratch}",
        f"--mypy_out=quiet:{scratch}",
        *(calls if with_calls else []),
        *(str(path.relative_to(PROTO)) for path in sorted((PROTO / folder).glob("*.proto"))),
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc has failed, see above")


if __name__ == "__main__":
    generate(TARGET)
    generate_etcd(ETCD_TARGET)
