"""Embedding, the LanceDB store and search. The only importer of lancedb."""

import sys

# OpenVINO reports every import to a statistics server, from a forked process, unless this package is missing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
