"""Pushes to a group over gRPC, and asks how many are in it."""

import os

import grpc
import push_pb2
import push_pb2_grpc

TOKEN = [("authorization", "Bearer " + os.environ.get("PUSH_TOKEN", ""))]

with grpc.insecure_channel(os.environ.get("PUSH_GRPC", "127.0.0.1:19908")) as channel:
    push = push_pb2_grpc.PushStub(channel)
    lobby = push_pb2.Target(groups=["lobby"])
    push.Send(push_pb2.SendRequest(to=lobby, text="tea is ready"), metadata=TOKEN, timeout=20)
    where = push_pb2.Filter(groups=["lobby"])
    count = push.Count(push_pb2.CountRequest(filter=where), metadata=TOKEN, timeout=20)
    print(count.count, "are there")
