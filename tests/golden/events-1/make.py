#!/usr/bin/env python3
"""An event file as TensorBoard's own writer makes it.

    python3 -m venv v && v/bin/pip install tensorboard==2.20.0
    cd tests/golden/events-1 && v/bin/python make.py
"""
import io

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

TIME = 1700000000.25
out = io.BytesIO()
writer = RecordWriter(out)
events = [event_pb2.Event(wall_time=TIME, file_version="brain.Event:2"),
          event_pb2.Event(wall_time=TIME, step=300, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))]
for step, tag, value in ((301, "train/loss", 2.5), (302, "train/loss", -1e-30), (1 << 40, "eval/psnr", 21.5)):
    one = summary_pb2.Summary.Value(tag=tag, simple_value=value)
    events.append(event_pb2.Event(wall_time=TIME + step % 7, step=step, summary=summary_pb2.Summary(value=[one])))
for e in events:
    writer.write(e.SerializeToString())
writer.flush()
data = out.getvalue()
with open("events.inc", "w") as f:
    for i in range(0, len(data), 16):
        f.write(", ".join(f"{b:#04x}" for b in data[i:i + 16]) + ",\n")
