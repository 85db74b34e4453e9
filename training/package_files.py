"""The files of a model package: a folder of text, sealed by `manifest.json`, which holds the SHA-256 of every other file.

No file is believed before its sum agrees.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from features.errors import PackageError, explain
from features.ledger import fingerprint

__all__ = ["as_text", "damaged", "hash_of", "read_texts", "write_texts"]

_FORMAT = "renewcast-package"
_VERSION = 2
_READS = (1, 2)
_FILES = ("package.json", "model.txt", "catalogue.json", "reference.json")


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Write the files of a package, by name, into a folder, which is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_bytes(text.encode())
    manifest = {"format": _FORMAT, "version": _VERSION, "hash": hash_of(texts), "files": _sums(texts)}
    (folder / "manifest.json").write_bytes(as_text(manifest).encode())


def read_texts(folder: Path) -> dict[str, str]:
    """Return the files of a package by name.

    Raises
    ------
    PackageError
        If the folder holds no package, a file of it is missing or is another, or the format is unknown.
    """
    manifest = _read_manifest(folder)
    return {name: _verified(folder / name, manifest["files"][name]) for name in _FILES}


def hash_of(texts: Mapping[str, str]) -> str:
    """Return the SHA-256 of a package with these files."""
    return fingerprint(_sums(texts))


def as_text(data: Mapping[str, Any]) -> str:
    """Return JSON as packages hold it."""
    return json.dumps(data, indent=1, sort_keys=True, allow_nan=False)


def damaged(folder: Path, what: str) -> PackageError:
    """Return the error for a package that is not what it was when it was written."""
    return PackageError(
        explain(
            f"the model package is damaged: {what}", given=folder, todo="Fetch it again from the registry, or run `renewcast train` again."
        )
    )


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
    except FileNotFoundError as error:
        raise PackageError(explain("there is no model package", given=folder, todo="Run `renewcast train` first.")) from error
    except ValueError as error:
        raise damaged(folder, f"manifest.json is not JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise PackageError(explain("this is not a Renewcast model package", given=folder, todo="Run `renewcast train` to make one."))
    if manifest.get("version") not in _READS:
        raise PackageError(
            explain(
                f"{folder} is a model package of a format that this version does not read",
                given=f"format version {manifest.get('version')}",
                allowed=f"format versions {', '.join(map(str, _READS))}",
                todo="Run `renewcast train` again, or use the version of Renewcast that made it.",
            )
        )
    files = manifest.get("files")
    if not isinstance(files, dict) or set(files) != set(_FILES) or fingerprint(files) != manifest.get("hash"):
        raise damaged(folder, "manifest.json does not agree with itself")
    return manifest


def _verified(path: Path, expected: str) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise damaged(path.parent, f"{path.name} is missing") from error
    actual = hashlib.sha256(content).hexdigest()
    if actual != expected:
        raise damaged(
            path.parent, f"{path.name} has SHA-256 {actual[:12]}..., not {expected[:12]}...: it is cut short, changed or of another package"
        )
    return content.decode()


def _sums(texts: Mapping[str, str]) -> dict[str, str]:
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
