"""Posts an event in binary and one in structured mode, made by the CloudEvents SDK."""

import sys
import urllib.request

from cloudevents.v1.http import CloudEvent, to_binary, to_structured

url = sys.argv[1]
for convert, name in ((to_binary, "binary"), (to_structured, "structured")):
    event = CloudEvent({"type": "sdk.event", "source": "/python-sdk", "id": name, "extra": "ü 100%"}, {"celsius": 21.5})
    headers, body = convert(event)
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 202, answer.status
