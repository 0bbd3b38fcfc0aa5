"""The package folder: manifest, protobuf and weight file."""

from __future__ import annotations

import json
from pathlib import Path

from google.protobuf.message import DecodeError

from edge.runtimes.mil.dtypes import TensorType
from edge.runtimes.mil.errors import MilError
from edge.runtimes.mil.schema import MIL_pb2, Model_pb2
from edge.runtimes.mil.weights import WeightFile

_MODEL_FOLDER = "@model_path"


class Package:
    """A saved ``.mlpackage``.

    Attributes:
        spec: the parsed ``model.mlmodel``.
    """

    def __init__(self, path: Path) -> None:
        """Read the manifest and the model it names.

        Raises:
            MilError: a file is missing or malformed, or the model is no ML program.
        """
        try:
            manifest = json.loads((path / "Manifest.json").read_text(encoding="utf-8"))
            item = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]
            model = path / "Data" / item["path"]
            self.spec = Model_pb2.Model.FromString(model.read_bytes())
        except (OSError, ValueError, KeyError, DecodeError) as error:
            raise MilError(f"{path.name}: not a readable package: {type(error).__name__}: {error}") from error
        kind = self.spec.WhichOneof("Type")
        if kind != "mlProgram":
            raise MilError(f"{path.name}: the model is a {kind}, only mlProgram is implemented")
        self._folder = model.parent
        self._weight_files: dict[str, WeightFile] = {}

    @property
    def function(self) -> MIL_pb2.Function:
        """The program's one function.

        Raises:
            MilError: there are several.
        """
        functions = self.spec.mlProgram.functions
        if list(functions) != ["main"]:
            raise MilError(f"the program has the functions {sorted(functions)}, only a single main is implemented")
        return functions["main"]

    def stored(self, file_name: str, offset: int, declared: TensorType) -> bytes:
        """The bytes of a constant that lives in a weight file (``@model_path/weights/weight.bin``)."""
        if not file_name.startswith(f"{_MODEL_FOLDER}/"):
            raise MilError(f"weight file {file_name}: only paths under {_MODEL_FOLDER} are implemented")
        if file_name not in self._weight_files:
            self._weight_files[file_name] = WeightFile(self._folder / file_name.removeprefix(f"{_MODEL_FOLDER}/"))
        return self._weight_files[file_name].read(offset, declared)
