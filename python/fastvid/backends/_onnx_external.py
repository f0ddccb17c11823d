"""Weights that lie beside a graph: read, or mapped from their files where they are large.

What is read is what was verified. A file that is mapped is verified first, and must still be the
same file when the graph is loaded; whoever writes to it later changes the model that is running.
onnxruntime itself refuses names that lead out of the folder, and links.
"""

from __future__ import annotations

from typing import Any

from fastvid._safe_files import Identity
from fastvid._specs import GraphSpec
from fastvid.backends._onnx_file import external_files
from fastvid.bundle import Bundle
from fastvid.errors import BackendUnavailableError, ManifestError, ModelError

MAPPED_BYTES = 256 << 20
"""From this size on files are mapped: copies of smaller ones are packed, and fast."""

# Without it a graph loaded from bytes reads weights it names from the working directory.
_NO_FOLDER = "/dev/null/none"
_PACKED_OPERATOR = b"MatMulNBits"


class ExternalWeights:
    """The weights beside one graph.

    Args:
        bundle: Holds the files.
        graph: Names them.
        model: The ONNX file.
        seen: Files that were verified before, and those that are now; a file that is still the
            same is not read again.

    Raises:
        IntegrityError: A file is not the one that the manifest names.
        ManifestError: The graph names a file that the manifest does not list for it.
    """

    def __init__(
        self,
        bundle: Bundle,
        graph: GraphSpec,
        model: bytes,
        seen: dict[str, Identity] | None = None,
    ) -> None:
        self._bundle, self._graph = bundle, graph
        # Products of few bits are slow without packing, and what is packed is small. onnxruntime
        # looks for their weights in files only.
        self._packed = _PACKED_OPERATOR in model
        self._mapped = self._packed or _external_bytes(bundle, graph) > MAPPED_BYTES
        self.read: dict[str, bytes] = {}
        """Contents of the files that are not mapped."""
        self._seen: dict[str, Identity] = {}
        if not self._mapped:
            self.read = {path: bundle.read(path) for path in graph.external_data}
            return
        try:
            named = external_files(model)
        except ValueError as error:
            raise ModelError(f"{graph.file}: must be an ONNX model: {error}") from None
        if unlisted := sorted(named - set(graph.external_data)):
            raise ManifestError(
                f"bundle.json: $.graphs.{graph.name}.external_data must list {unlisted[0]!r:.80}, "
                f"which {graph.file} reads"
            )
        known = {} if seen is None else seen
        for path in graph.external_data:
            if path in known:
                bundle.require_unchanged(path, known[path])
            else:
                known[path] = bundle.check(path)
            self._seen[path] = known[path]

    def configure(self, options: Any, version: str) -> None:
        """Tells a session of onnxruntime where the weights are.

        Raises:
            BackendUnavailableError: It is too old.
        """
        folder = str(self._bundle.path) if self._mapped else _NO_FOLDER
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", folder
        )
        if self._mapped and not self._packed:
            # Packing copies weights that a mapped file already holds.
            options.add_session_config_entry("session.disable_prepacking", "1")
        if not self.read:
            return
        if not hasattr(options, "add_external_initializers_from_files_in_memory"):
            raise BackendUnavailableError(
                f"{self._graph.name}: weights beside the graph need a newer onnxruntime than "
                f"{version}",
                hint="pip install --upgrade onnxruntime",
            )
        contents = list(self.read.values())
        options.add_external_initializers_from_files_in_memory(
            list(self.read), contents, [len(data) for data in contents]
        )

    def require_unchanged(self) -> None:
        """Says that mapped files are those that were verified.

        Raises:
            IntegrityError: One is not.
        """
        for path, which in self._seen.items():
            self._bundle.require_unchanged(path, which)


def _external_bytes(bundle: Bundle, graph: GraphSpec) -> int:
    return sum(bundle.files[path].size for path in graph.external_data)
