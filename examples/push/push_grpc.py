"""Sends a message to a group over gRPC, and asks how many members it has."""

import os

import grpc
import push_pb2

TOKEN = [("authorization", "Bearer " + os.environ.get("PUSH_TOKEN", ""))]


def call(channel, name, request, reply):
    serialize = type(request).SerializeToString
    method = channel.unary_unary("/meepo.push.v1.Push/" + name, serialize, reply.FromString)
    return method(request, metadata=TOKEN, timeout=20)


with grpc.insecure_channel(os.environ.get("PUSH_GRPC", "127.0.0.1:19908")) as channel:
    send = push_pb2.SendRequest(to=push_pb2.Target(groups=["lobby"]), text="tea is ready")
    call(channel, "Send", send, push_pb2.SendReply)
    count = push_pb2.CountRequest(filter=push_pb2.Filter(groups=["lobby"]))
    print(call(channel, "Count", count, push_pb2.CountReply).count, "are there")
