"""What belongs to one Spark session and its processes alone: it loads as a placeholder that says what to keep instead."""

from __future__ import annotations

from typing import Any

from chipmink._markers import Context, Stub, place_of

__all__ = ["BY_NAME"]


def _stub(reason: str) -> Any:
    def reduce(obj: Any, ctx: Context) -> Stub:
        return Stub("remote", ".".join(place_of(type(obj))), reason)

    return reduce


_JAVA = _stub("it stands for an object of Spark's Java process, which no other program reaches: keep the call that makes it")
_BUILDER = _stub("it is a step towards a frame in one session: keep the call that makes it, or save the frame that comes of it")
_QUERY = _stub("it is a query that runs in Spark: save what it writes, and begin it anew with its checkpointLocation")
_CLIENT = _stub("it is a connection to a server of Spark Connect; connections are not made again")
_PANDAS = _stub("it is computed in Spark: save frame.to_spark() or frame.to_pandas()")

# Classes found by their name among the bases of a type, so that nothing has to be imported for it.
BY_NAME: dict[tuple[str, str], Any] = {
    ("pyspark.core.rdd", "RDD"): _stub('it is computed by its context: save rdd.collect(), or rdd.toDF() with remote="materialize"'),
    ("pyspark.core.broadcast", "Broadcast"): _stub("it was sent to the processes of one context: save broadcast.value, and broadcast it anew"),
    ("pyspark.accumulators", "Accumulator"): _stub("the tasks of one context add to it: save accumulator.value"),
    ("pyspark.sql.streaming.query", "StreamingQuery"): _QUERY,
    ("pyspark.sql.connect.streaming.query", "StreamingQuery"): _QUERY,
    ("pyspark.sql.classic.window", "WindowSpec"): _BUILDER,
    ("pyspark.sql.group", "GroupedData"): _BUILDER,
    ("pyspark.sql.readwriter", "OptionUtils"): _BUILDER,
    ("pyspark.sql.readwriter", "DataFrameWriterV2"): _BUILDER,
    ("pyspark.sql.connect.client.core", "SparkConnectClient"): _CLIENT,
    ("grpc", "Channel"): _CLIENT,
    ("pyspark.pandas.generic", "Frame"): _PANDAS,
    ("pyspark.pandas.indexes.base", "Index"): _PANDAS,
    **{
        ("py4j.java_gateway", name): _JAVA
        for name in ("GatewayClient", "JavaClass", "JavaGateway", "JavaMember", "JavaObject", "JavaPackage", "JVMView")
    },
}
