"""The vectors of a catalogue's items, of which only those that the run folder does not hold yet are embedded."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import tensorflow as tf

import tfebr
from tfebr.errors import ArtifactError, DataError
from tfebr.infrastructure.files import atomic_folder, read_json
from tfebr.infrastructure.progress import progress
from tfebr.models.encoders import RawItemEncoder
from tfebr.models.run_folder import RunFolder

FOLDER = "embeddings"
_EMBED_BLOCK = 4096
_SLICE = 100_000
_COPY_BLOCK = 65_536
_HASHES = 2**63 - 1


def catalogue_vectors(run: RunFolder, table: pa.Table, encoder: RawItemEncoder, quiet: bool = False) -> tuple[np.ndarray, int]:
    """Embeds a catalogue, taking from `RUN/embeddings/` the vectors of items whose content the run has embedded before.

    The folder then holds this catalogue's vectors (`vectors.npy`, float32 [items, dim]) and the hashes of what they were made from
    (`hashes.npy`, int64 [items, 2]). The hash covers the fields that the encoder reads and the weights, so that a run trained further
    takes nothing from before.

    Args:
        run: whose towers they are.
        table: of the catalogue.
        encoder: of the run's model.

    Returns:
        float32 [items, dim] in the table's order, memory-mapped, and how many of them were embedded now.

    Raises:
        DataError: the table lacks a column that the encoder reads.
        ArtifactError: the run has no checkpoint.
    """
    names = list(encoder.columns.values())
    _check_columns(table, names)
    hashes = content_hashes(table, names, run_identity(run))
    embed = tf.function(encoder.__call__, input_signature=[dict(encoder.input_signature)])
    dim = int(embed.get_concrete_function().output_shapes[-1])
    folder = run.path / FOLDER
    old = _kept(folder, dim)
    source = rows_of_hashes(old[1], hashes) if old is not None else np.full(len(hashes), -1)
    new = np.flatnonzero(source < 0)
    if old is not None and not len(new) and np.array_equal(source, np.arange(len(old[0]))):
        return old[0], 0
    with atomic_folder(folder) as partial, progress("embedding", len(new), "items", quiet) as advance:
        vectors = np.lib.format.open_memmap(partial / "vectors.npy", mode="w+", dtype=np.float32, shape=(len(hashes), dim))
        if old is not None:
            _copy(old[0], source, vectors)
        for rows, block in _blocks_of(table.select(names), new):
            vectors[rows] = embed({name: _strings(block[column]) for name, column in encoder.columns.items()}).numpy()
            advance(len(rows))
        vectors.flush()
        np.save(partial / "hashes.npy", hashes)
    return np.load(folder / "vectors.npy", mmap_mode="r"), len(new)


def run_identity(run: RunFolder) -> bytes:
    """What decides a vector beside the item: the weights, the model with its config, and the library.

    The index file of a checkpoint holds a checksum of every tensor, so that the weights themselves need not be read.
    """
    latest = run.latest_checkpoint()
    if latest is None:
        raise ArtifactError(f"{run.path}: holds no checkpoint. Run `tfebr train` again: it goes on where it stopped.")
    about = read_json(run.path / "config.json")
    settings = json.dumps([tfebr.__version__, tf.__version__, about["model"], about["config"]], sort_keys=True)
    return hashlib.sha256(settings.encode() + Path(f"{latest}.index").read_bytes()).digest()


def content_hashes(table: pa.Table, names: Sequence[str], identity: bytes) -> np.ndarray:
    """[rows, 2] int64: 126 bits of a keyed hash (SipHash) of the named string columns, without a Python loop over the rows.

    Args:
        identity: the key; the same content has other hashes under another one.
    """
    words = [int(word) for word in np.frombuffer(hashlib.sha256(identity).digest(), np.uint64) >> 1]
    found = np.empty((table.num_rows, 2), np.int64)
    for start in range(0, table.num_rows, _SLICE):
        block, parts = table.slice(start, _SLICE), []
        for name in names:
            values = _strings(block[name])
            # With its length in front, no text can pass for the end of one field and the start of the next.
            parts += [tf.strings.as_string(tf.strings.length(values)), ":", values]
        content = tf.strings.join(parts)
        for half in (0, 1):
            key = words[2 * half : 2 * half + 2]
            found[start : start + block.num_rows, half] = tf.strings.to_hash_bucket_strong(content, _HASHES, key).numpy()
    return found


def rows_of_hashes(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The row in `known` [n, 2] of each hash in `wanted` [m, 2], -1 where it is not there: int64 [m]."""
    order = np.argsort(known[:, 0], kind="stable")
    place = np.minimum(np.searchsorted(known[order, 0], wanted[:, 0]), len(order) - 1)
    rows = order[place]
    return np.where((known[rows] == wanted).all(axis=1), rows, -1)


def _kept(folder: Path, dim: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Vectors and hashes of the catalogue before, or None: without them, or when they are damaged, everything is embedded anew."""
    try:
        vectors, hashes = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("vectors", "hashes"))
    except (OSError, ValueError, EOFError):
        return None
    fits = vectors.ndim == 2 and vectors.shape[1] == dim and hashes.shape == (len(vectors), 2) and len(vectors) > 0
    return (vectors, hashes) if fits else None


def _copy(vectors: np.ndarray, source: np.ndarray, target: np.ndarray) -> None:
    for start in range(0, len(source), _COPY_BLOCK):
        rows = source[start : start + _COPY_BLOCK]
        target[start : start + len(rows)] = vectors[np.maximum(rows, 0)]


def _blocks_of(table: pa.Table, rows: np.ndarray) -> Iterator[tuple[np.ndarray, pa.Table]]:
    """Ascending rows and what the table holds there, at most `_EMBED_BLOCK` at a time.

    From slices: `take` puts all chunks of a table together first, which copies the texts of a whole catalogue and may exceed Arrow's 2 GiB.
    """
    for start in range(0, table.num_rows, _SLICE):
        first, last = np.searchsorted(rows, [start, start + _SLICE])
        block = table.slice(start, _SLICE)
        for at in range(first, last, _EMBED_BLOCK):
            part = rows[at : min(at + _EMBED_BLOCK, last)]
            yield part, block.take(part - start)


def _check_columns(table: pa.Table, names: Sequence[str]) -> None:
    for name in names:
        if name not in table.column_names:
            raise DataError(
                f"The catalogue has no column `{name}`, which the model was trained to read. Received columns: "
                f"{', '.join(table.column_names)}. Add it, with empty strings where nothing is known."
            )
        if not pa.types.is_string(table.schema.field(name).type):
            kind = table.schema.field(name).type
            raise DataError(f"The catalogue's column `{name}` holds {kind}; the model was trained to read strings there. Convert it.")


def _strings(column: pa.ChunkedArray) -> tf.Tensor:
    return tf.constant(column.cast(pa.binary()).to_numpy(), tf.string)
