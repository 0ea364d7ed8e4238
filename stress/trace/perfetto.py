"""Perfetto's own format (protobuf): a track descriptor per track, a begin and an end per slice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TrackDescriptor, TrackEvent
from perfetto.trace_builder.proto_builder import TraceProtoBuilder

from stress.results.data import TraceData
from stress.trace.slices import Slice, tracks

#: The only sequence of packets: those of one sequence come in order.
_SEQUENCE = 1
_ROOT = 1


def encoded(data: TraceData) -> Iterator[bytes]:
    """The trace, track by track: a trace is a list of packets, so pieces of it follow each other."""
    builder = TraceProtoBuilder()
    root = builder.add_packet().track_descriptor
    root.uuid, root.name = _ROOT, "stress"
    root.child_ordering = TrackDescriptor.ChildTracksOrdering.EXPLICIT
    yield builder.serialize()
    for rank, track in enumerate(tracks(data), start=1):
        builder = TraceProtoBuilder()
        descriptor = builder.add_packet().track_descriptor
        descriptor.uuid, descriptor.parent_uuid, descriptor.name = _ROOT + rank, _ROOT, track.name
        descriptor.sibling_order_rank = rank
        open_slices: list[Slice] = []
        for each in track.slices:
            while open_slices and open_slices[-1].end_ns <= each.start_ns:
                _event(builder, _ROOT + rank, open_slices.pop().end_ns, TrackEvent.TYPE_SLICE_END)
            _begin(_event(builder, _ROOT + rank, each.start_ns, TrackEvent.TYPE_SLICE_BEGIN), each)
            open_slices.append(each)
        while open_slices:
            _event(builder, _ROOT + rank, open_slices.pop().end_ns, TrackEvent.TYPE_SLICE_END)
        yield builder.serialize()


def _event(builder: TraceProtoBuilder, track: int, time_ns: int, kind: Any) -> Any:
    packet = builder.add_packet()
    packet.timestamp = time_ns
    packet.trusted_packet_sequence_id = _SEQUENCE
    packet.track_event.type = kind
    packet.track_event.track_uuid = track
    return packet.track_event


def _begin(event: Any, begun: Slice) -> None:
    event.name = begun.name
    for name, value in begun.details.items():
        annotation = event.debug_annotations.add()
        annotation.name = name
        if isinstance(value, int):
            annotation.int_value = value
        else:
            annotation.string_value = value
