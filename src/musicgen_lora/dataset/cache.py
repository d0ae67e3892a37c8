"""Tables that spare the next start some work: whole and made of the very same, or ignored.

A file is the SHA-256 of what follows, in hex, and an Arrow table that carries the key of what it
was made of. Nothing is lost with such a file: whoever finds none makes the table again.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from musicgen_lora import atomic
from musicgen_lora.errors import RunError, UserError
from musicgen_lora.formats.documents import read_bytes

MAX_BYTES = 4 << 30
_DIGEST_BYTES = 64
_KEY = b"made_of"


def read_table(path: Path, key: str, schema: pa.Schema) -> pa.Table | None:
    """The table that was kept under a key, in memory; None where there is none, it is damaged, or
    it was made of something else."""
    try:
        content = memoryview(read_bytes(path, MAX_BYTES))
    except UserError:
        return None
    digest, body = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(body).hexdigest().encode() != digest:
        return None
    try:
        table = pa.ipc.open_file(pa.py_buffer(body)).read_all()
        # What another program wrote under a true digest must not lead out of the memory.
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError):
        return None
    if table.schema != schema or (table.schema.metadata or {}).get(_KEY) != key.encode():
        return None
    return table.combine_chunks()


def keep_table(path: Path, key: str, table: pa.Table) -> None:
    """Keeps a table for `read_table`, whole or not at all. Several processes may do so at once."""
    table = table.replace_schema_metadata({_KEY: key.encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    body = memoryview(sink.getvalue())

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            file.write(hashlib.sha256(body).hexdigest().encode())
            file.write(body)

    # A folder that can't be written to, or a full disk, makes the next start slower: no more.
    with suppress(OSError, RunError):
        atomic.write_file(path, write)
