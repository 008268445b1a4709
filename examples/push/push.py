"""Sends a message to a group, and asks for its members."""

import json
import os
import urllib.error
import urllib.request

API = os.environ.get("PUSH_API", "http://127.0.0.1:19908/api/")
HEADERS = {
    "Authorization": "Bearer " + os.environ.get("PUSH_TOKEN", ""),
    "Content-Type": "application/json",
}


def push(call, **fields):
    request = urllib.request.Request(API + call, json.dumps(fields).encode(), HEADERS)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        problem = json.load(error)
        raise RuntimeError(f"{problem.get('field', call)}: {problem['detail']}") from error


sent = push("send", to={"groups": ["lobby"]}, text="tea is ready")
if sent["missing"]:
    print("these gateways may not have sent the message:", sent["missing"])
for client in push("query/select", filter={"groups": ["lobby"]}, uid=True)["clients"]:
    print(client["id"], client["uid"])
