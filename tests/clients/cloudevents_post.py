"""Posts an event in binary and one in structured mode, made by the CloudEvents SDK."""

import sys
import urllib.request

from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

url = sys.argv[1]
for convert, name in ((to_binary_event, "binary"), (to_structured_event, "structured")):
    attributes = {
        "specversion": "1.0", "type": "sdk.event", "source": "/python-sdk", "id": name, "extra": "ü 100%",
        "datacontenttype": "application/json",
    }
    message = convert(CloudEvent(attributes, {"celsius": 21.5}))
    request = urllib.request.Request(url, data=message.body, headers=message.headers, method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 202, answer.status
