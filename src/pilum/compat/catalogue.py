"""Which name of the reference means what in pilum (spec/api.md).

A module is a table: name -> ``"module:attribute"``, or the feature that is missing.  A missing class is a class
that refuses to be made, so that ``isinstance`` and type annotations keep working; a missing function refuses to
be called.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple, NoReturn

from pilum import imports
from pilum.errors import UnsupportedError

__all__ = ["MODULES", "Missing", "is_package", "resolve"]


class Missing(LookupError):
    """A module has no such name."""


class _Unbuilt(NamedTuple):
    feature: str
    is_class: bool


def _here(module: str, *names: str) -> dict[str, str]:
    """Names that are called the same in a module of pilum."""
    return {name: f"{module}:{name}" for name in names}


def _classes(feature: str, *names: str) -> dict[str, _Unbuilt]:
    return {name: _Unbuilt(feature, True) for name in names}


def _functions(feature: str, *names: str) -> dict[str, _Unbuilt]:
    return {name: _Unbuilt(feature, False) for name in names}


_BLOBS = {
    **_here("pilum.blob", "Blob", "BlobArray", "BlobType", "blob_array", "blob_field"),
    **_classes("reading blobs", "BlobColumn", "BlobFile", "BlobIterator"),
}
_BLOB_WRITERS = _here(
    "pilum.blob", "BlobDescriptor", "BlobDescriptorArrayBuilder", "DedicatedBlobWriter", "PackedBlobWriter"
)
_VALUES = _here(
    "pilum", "DataStatistics", "FieldStatistics", "Index", "IndexFile", "LanceOperation", "Transaction"
)
_CLEANUP = _here(
    "pilum", "CleanupCandidateFile", "CleanupExplanation", "CleanupReferencedBranch", "CleanupStats"
)
_SCHEMA = {**_here("pilum", "LanceSchema", "LanceField", "schema_to_json", "json_to_schema")}
_FRAGMENT = {
    **_here("pilum", "DataFile", "DeletionFile", "FragmentMetadata", "FragmentSession", "LanceFragment"),
    **_here("pilum", "RowIdSequence", "write_fragments"),
    **_here("pilum.dataset.fragment_metadata", "RowDatasetVersionMeta", "RowIdMeta"),
}
_UDF = {
    **_here("pilum", "BatchUDF", "BatchUDFCheckpoint", "batch_udf"),
    **_functions("transforms as values of their own", "normalize_transform"),
}
_MEM_WAL = {
    **_classes(
        "the write-ahead log",
        "CompactedSsTable",
        "ExecutionPlan",
        "LsmPointLookupPlanner",
        "LsmScanner",
        "LsmVectorSearchPlanner",
        "ShardSnapshot",
        "ShardWriter",
        "ShardingField",
        "ShardingSpec",
    ),
    **_functions("the write-ahead log", "evaluate_sharding_spec"),
}
_QUERY = _classes(
    "full text search",
    "BooleanQuery",
    "BoostQuery",
    "CombinedFieldsQuery",
    "DocumentGranularity",
    "FullTextOperator",
    "FullTextQuery",
    "FullTextQueryType",
    "MatchQuery",
    "MinHashQuery",
    "MultiMatchQuery",
    "Occur",
    "PhraseQuery",
    "PyFullTextQuery",
)
_COMPACTION = _classes(
    "compaction",
    "Compaction",
    "CompactionMetrics",
    "CompactionOptions",
    "CompactionPlan",
    "CompactionTask",
    "RewriteResult",
)
_PROGRESS = _here(
    "pilum.dataset.progress",
    "FileSystemFragmentWriteProgress",
    "FragmentWriteProgress",
    "IndexProgress",
    "NoopFragmentWriteProgress",
)
_TYPED = _here(
    "pilum.compat.typed",
    "AlterColumn",
    "AutoCleanupConfig",
    "Branch",
    "BulkCommitResult",
    "DatasetStats",
    "DeleteResult",
    "ExecuteResult",
    "IndexInformation",
    "Tag",
    "UpdateResult",
    "Version",
    "VersionRef",
)
_FILE_DETAILS = _here(
    "pilum.file.details",
    "LanceBufferDescriptor",
    "LanceColumnMetadata",
    "LanceColumnStatistics",
    "LanceFileMetadata",
    "LanceFileStatistics",
    "LancePageMetadata",
)
_FILES = _here("pilum.compat.files", "LanceFileReader", "LanceFileSession", "LanceFileWriter")
_LOG = _here("pilum.compat.log", "get_log_level", "get_python_log_level", "set_logger")
_INDICES: Mapping[str, Any] = _classes(
    "indices",
    "IndexConfig",
    "IndexFileVersion",
    "IndexSegment",
    "IndexSegmentDescription",
    "IndicesBuilder",
    "IvfModel",
    "PqModel",
    "SupportedDistributedIndices",
)

# Module -> its public names.
MODULES: Mapping[str, Mapping[str, Any]] = {
    "lance": {
        "__version__": "pilum.compat.typed:REFERENCE_VERSION",
        **_here(
            "pilum", "DatasetBasePath", "FragmentMetadata", "LanceDataset", "LanceFragment", "LanceScanner"
        ),
        **_here(
            "pilum", "Session", "dataset", "write_dataset", "schema_to_json", "json_to_schema", "sanitize_ts"
        ),
        **_VALUES,
        **_CLEANUP,
        **_MEM_WAL,
        **_BLOB_WRITERS,
        **{name: value for name, value in _BLOBS.items() if name not in ("BlobIterator", "BlobType")},
        "IndexProgress": "pilum.dataset.progress:IndexProgress",
        "set_logger": "pilum.compat.log:set_logger",
        **_classes("merge insert", "MergeInsertBuilder"),
        **_classes("statistics of scans", "ScanStatistics"),
        **_classes("full text search", "FtsToken"),
        **_classes("DataFusion table providers", "FFILanceTableProvider"),
        "batch_udf": "pilum:batch_udf",
        **_functions("counters of the process", "bytes_read_counter", "iops_counter", "simd_info"),
        **_functions("full text search", "tokenize"),
    },
    "lance.lance": {
        **_CLEANUP,
        **_BLOB_WRITERS,
        **_FILE_DETAILS,
        **_here(
            "pilum", "Bitmap", "DatasetBasePath", "DeletionFile", "LanceSchema", "RowIdSequence", "Session"
        ),
        **_classes("compaction", "Compaction", "CompactionMetrics", "CompactionPlan", "CompactionTask"),
        **_classes("statistics of scans", "ScanStatistics"),
        **_classes("full text search", "FtsToken"),
    },
    "lance.arrow": {
        **_classes(
            "extension types of images and bfloat16",
            "BFloat16",
            "BFloat16Array",
            "BFloat16Type",
            "EncodedImageArray",
            "EncodedImageScalar",
            "EncodedImageType",
            "FixedShapeImageTensorArray",
            "FixedShapeImageTensorScalar",
            "FixedShapeImageTensorType",
            "ImageArray",
            "ImageScalar",
            "ImageURIArray",
            "ImageURIScalar",
            "ImageURIType",
            "PandasBFloat16Array",
        ),
        **_functions("extension types of images and bfloat16", "bfloat16_array", "cast"),
    },
    "lance.bitmap": _here("pilum", "Bitmap"),
    "lance.blob": {**_BLOBS, **_BLOB_WRITERS},
    "lance.commit": {
        "CommitConflictError": "pilum:CommitConflictError",
        "CommitLock": "pilum.table:CommitLock",
    },
    "lance.dataset": {
        **_VALUES,
        **_TYPED,
        **_here("pilum", "ColumnOrdering", "DatasetDelta", "LanceDataset", "LanceFragment", "LanceScanner"),
        **_here("pilum", "ScannerBuilder", "Session", "write_dataset", "LanceSchema"),
        **_here("pilum.dataset.door.history", "Branches", "Tags"),
        **_here("pilum.dataset.door.upkeep", "DatasetOptimizer", "LanceStats"),
        **_classes("merge insert", "MergeInsertBuilder"),
        **_classes("SQL queries", "SqlQuery", "SqlQueryBuilder"),
        **_classes("vector indices", "VectorIndexReader", "VectorSearchQuery", "PySearchFilter"),
        **_functions("lists of row addresses", "serialize_row_addrs"),
        "CommitLock": "pilum.table:CommitLock",
    },
    "lance.debug": _functions(
        "debugging output", "format_fragment", "format_manifest", "format_schema", "list_transactions"
    ),
    "lance.file": {
        **_FILES,
        **_FILE_DETAILS,
        "ReaderResults": "pilum.file.synchronous:ReaderResults",
        "ListResult": "pilum.file.folder:ListResult",
        "stable_version": "pilum.file.api:stable_version",
    },
    "lance.fragment": _FRAGMENT,
    "lance.hf": _classes("Hugging Face", "HuggingFaceConverter"),
    "lance.indices": _INDICES,
    "lance.indices.builder": {name: _INDICES[name] for name in ("IndexConfig", "IndicesBuilder")},
    "lance.indices.ivf": {"IvfModel": _INDICES["IvfModel"]},
    "lance.indices.pq": {"PqModel": _INDICES["PqModel"]},
    "lance.io": {},
    "lance.log": _LOG,
    "lance.mem_wal": _MEM_WAL,
    "lance.namespace": _classes(
        "namespaces", "DirectoryNamespace", "DynamicContextProvider", "RestAdapter", "RestNamespace"
    ),
    "lance.optimize": _COMPACTION,
    "lance.otel": _functions("OpenTelemetry", "instrument_lance_metrics"),
    "lance.progress": _PROGRESS,
    "lance.pydantic": {
        **_classes("pydantic", "FixedSizeListMixin"),
        **_functions("pydantic", "MultiVector", "Vector", "get_extras", "is_nullable", "pydantic_to_schema"),
    },
    "lance.query": _QUERY,
    "lance.sampler": {
        **_classes(
            "samplers",
            "FragmentSampler",
            "FullScanSampler",
            "PrioritizedItem",
            "Sampler",
            "ShardedBatchSampler",
            "ShardedFixedBatchSampler",
            "ShardedFragmentSampler",
        ),
        **_functions("samplers", "maybe_sample", "reservoir_sampling"),
    },
    "lance.schema": _SCHEMA,
    "lance.torch": _functions("PyTorch", "preferred_device"),
    "lance.torch.data": {
        **_classes("PyTorch", "LanceDataset", "SafeLanceDataset", "TensorDataset", "ToTensorFn"),
        **_functions("PyTorch", "concat_batches", "get_safe_loader"),
    },
    "lance.tracing": {
        **_classes("tracing", "TraceEvent"),
        **_functions("tracing", "capture_trace_events", "trace_to_chrome"),
    },
    "lance.types": _here("pilum.compat.typed", "ReaderLike", "_coerce_reader"),
    "lance.udf": _UDF,
    "lance.util": {
        "sanitize_ts": "pilum:sanitize_ts",
        "td_to_micros": "pilum.dataset.moments:td_to_micros",
        **_classes("vector indices", "HNSW", "KMeans"),
        **_functions("vector indices", "validate_vector_index"),
    },
    "lance.vector": {
        **_functions("vector tools", "vec_to_table", "compute_partitions", "compute_pq_codes"),
        **_functions(
            "vector tools", "train_ivf_centroids_on_accelerator", "train_pq_codebook_on_accelerator"
        ),
    },
}


def is_package(name: str) -> bool:
    """Whether a module has modules below it."""
    return any(other.startswith(name + ".") for other in MODULES)


def resolve(module: str, name: str) -> Any:
    """What a name of a module means.

    Raises:
        Missing: the module has no such name.
    """
    found = MODULES[module].get(name)
    if found is None:
        raise Missing(name)
    if isinstance(found, _Unbuilt):
        return _stub(name, found)
    place, _, attribute = found.partition(":")
    return getattr(imports.load(place), attribute)


@cache
def _stub(name: str, missing: _Unbuilt) -> Any:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise UnsupportedError(f"{name}: not supported yet: {missing.feature}")

    if not missing.is_class:
        refuse.__name__ = refuse.__qualname__ = name
        refuse.__doc__ = f"Not supported yet: {missing.feature}."
        return refuse

    class Refusing(type):
        """A class of something that is not built: neither made nor looked into."""

        __call__ = refuse

        def __getattr__(cls, attribute: str) -> Any:
            if attribute.startswith("__"):
                raise AttributeError(attribute)
            raise UnsupportedError(f"{name}.{attribute}: not supported yet: {missing.feature}")

    return Refusing(name, (), {"__doc__": f"Not supported yet: {missing.feature}.", "__module__": "lance"})
