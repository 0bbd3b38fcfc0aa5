"""A Core ML package (``.mlpackage``) with the same bytes for the same model.

coremltools stamps the date of the conversion, draws random identifiers, leaves the protobuf's map order open and, for
exported PyTorch programs, adds a debugging file that no app reads. Here the package is written anew without them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import uuid
from pathlib import Path

import coremltools as ct
from coremltools.proto import Model_pb2

_AUTHOR = "com.apple.CoreML"
_MODEL = f"{_AUTHOR}/model.mlmodel"
_WEIGHTS = f"{_AUTHOR}/weights"
_DATE_KEY = "com.github.apple.coremltools.conversion_date"
_FIXED_DATE = "1970-01-01"
_NAMESPACE = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")  # RFC 9562's namespace for object identifiers


def save(model: ct.models.MLModel, path: Path) -> Model_pb2.Model:
    """Write a converted model as a package.

    Args:
        model: an ML program.
        path: of the package folder; must not exist.

    Returns:
        The specification as written.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        converted = Path(folder) / "converted.mlpackage"
        model.save(str(converted))
        written = Path(folder) / "written.mlpackage"
        spec = _rewrite(converted / "Data", written)
        written.rename(path)
    return spec


def _rewrite(source: Path, package: Path) -> Model_pb2.Model:
    data = package / "Data"
    (data / _AUTHOR).mkdir(parents=True)
    spec = Model_pb2.Model.FromString((source / _MODEL).read_bytes())
    spec.description.metadata.userDefined[_DATE_KEY] = _FIXED_DATE
    (data / _MODEL).write_bytes(spec.SerializeToString(deterministic=True))
    shutil.copytree(source / _WEIGHTS, data / _WEIGHTS)
    (package / "Manifest.json").write_text(json.dumps(_manifest(data), indent=4) + "\n", encoding="utf-8")
    return spec


def _manifest(data: Path) -> dict[str, object]:
    items = {
        _identifier(data / path): {"author": _AUTHOR, "description": description, "name": name, "path": path}
        for path, name, description in (
            (_MODEL, "model.mlmodel", "CoreML Model Specification"),
            (_WEIGHTS, "weights", "CoreML Model Weights"),
        )
    }
    return {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": dict(sorted(items.items())),
        "rootModelIdentifier": _identifier(data / _MODEL),
    }


def _identifier(item: Path) -> str:
    """A UUID that follows from the item's name and content."""
    digest = hashlib.sha256(item.name.encode())
    for file in sorted(item.rglob("*")) if item.is_dir() else [item]:
        digest.update(file.read_bytes())
    return str(uuid.uuid5(_NAMESPACE, digest.hexdigest()))
