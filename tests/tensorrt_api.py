"""What of TensorRT's Python interface the backend uses, in each version that was looked at.

`python tests/tensorrt_api.py FOLDER SONAME_MAJOR` adds the bindings in FOLDER (an unpacked wheel of
`tensorrt-cu13-bindings` or `tensorrt-cu12-bindings`) to `tests/data/tensorrt_api.json`.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data" / "tensorrt_api.json"

Members = dict[str, Any]
"""By name: `value`, `property`, or the signatures of a method."""
Api = dict[str, Members]
"""By class."""

USED: dict[str, str] = {
    "Builder": "__init__ error_recorder create_network create_builder_config "
    "create_optimization_profile build_serialized_network",
    "BuilderFlag": "TF32",
    "DataType": "FLOAT HALF INT8 INT32 INT64 BOOL UINT8",
    "ExecutionContextAllocationStrategy": "USER_MANAGED",
    "HardwareCompatibilityLevel": "SAME_COMPUTE_CAPABILITY",
    "IBuilderConfig": "set_memory_pool_limit builder_optimization_level profiling_verbosity "
    "set_flag clear_flag hardware_compatibility_level progress_monitor add_optimization_profile "
    "create_timing_cache set_timing_cache get_timing_cache",
    "ICudaEngine": "num_io_tensors get_tensor_name get_tensor_mode get_tensor_dtype "
    "create_execution_context",
    "IErrorRecorder": "__init__ num_errors get_error_code get_error_desc has_overflowed clear "
    "report_error",
    "IExecutionContext": "set_optimization_profile_async set_input_shape infer_shapes "
    "update_device_memory_size_for_shapes "
    "set_device_memory get_tensor_shape set_tensor_address execute_async_v3",
    "IHostMemory": "nbytes",
    "ILogger": "__init__ log ERROR WARNING INTERNAL_ERROR",
    "INetworkDefinition": "num_inputs get_input",
    "IOptimizationProfile": "set_shape",
    "IProgressMonitor": "__init__ phase_start step_complete phase_finish",
    "ITensor": "name",
    "ITimingCache": "combine serialize",
    "MemoryPoolType": "WORKSPACE",
    "NetworkDefinitionCreationFlag": "STRONGLY_TYPED",
    "OnnxParser": "__init__ parse num_errors get_error",
    "ParserError": "desc",
    "ProfilingVerbosity": "DETAILED",
    "Runtime": "__init__ error_recorder deserialize_cuda_engine",
    "TensorIOMode": "INPUT OUTPUT",
}


def describe(trt: Any) -> Api:
    """The used classes and members that a version of the bindings has."""
    found: Api = {}
    for name, members in USED.items():
        if not hasattr(trt, name):
            continue
        owner = getattr(trt, name)
        found[name] = {}
        for member in members.split():
            if not hasattr(owner, member):
                continue
            value = inspect.getattr_static(owner, member)
            if isinstance(value, property):
                found[name][member] = "property"
            elif callable(value):
                lines = (getattr(owner, member).__doc__ or "").splitlines()
                shown = [_plain(line) for line in lines if re.match(rf"(\d+\. )?{member}\(", line)]
                found[name][member] = shown
            else:
                found[name][member] = "value"
    return found


def _plain(line: str) -> str:
    line = re.sub(r"^\d+\. ", "", line.strip())
    line = re.sub(r"tensorrt_bindings\.tensorrt\.|collections\.abc\.|typing\.", "", line)
    # pybind11 2 and 3 write the same types differently.
    line = line.replace("typing_extensions.Buffer", "buffer").replace("SupportsInt", "int")
    return re.sub(r"\b(List|Sequence|list)\[", "list[", line)


def known() -> dict[str, Api]:
    """By version: what is used of it."""
    versions: dict[str, Api] = json.loads(DATA.read_text())
    return versions


def main() -> None:
    """Adds the bindings in a folder to the data."""
    import null_tensorrt

    sys.path.insert(0, sys.argv[1])
    trt, _ = null_tensorrt.load(Path(tempfile.mkdtemp()), major=sys.argv[2], plugins=False)
    versions = known() if DATA.exists() else {}
    versions[trt.__version__] = describe(trt)
    ordered = dict(sorted(versions.items(), key=lambda item: [*map(int, item[0].split("."))]))
    DATA.write_text(json.dumps(ordered, indent=1, sort_keys=False) + "\n")


if __name__ == "__main__":
    main()
