"""Publishes COUNT messages at QoS 0, 1 and 2 with paho-mqtt, by MQTT 3.1.1 and 5.0, and waits until each is acknowledged."""

import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for version, name in ((mqtt.MQTTv311, "v3"), (mqtt.MQTTv5, "v5")):
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=f"paho-{name}", protocol=version)
    client.connect(host, port)
    client.loop_start()
    for qos in (0, 1, 2):
        for number in range(count):
            info = client.publish(f"paho/{name}/{qos}", f'{{"n":{number},"x":1.10}}', qos=qos)
            info.wait_for_publish(10)
            assert info.is_published(), f"{name} QoS {qos} number {number} was not acknowledged"
    if version == mqtt.MQTTv5:
        properties = Properties(PacketTypes.PUBLISH)
        properties.ContentType = "application/json"
        properties.UserProperty = [
            ("specversion", "1.0"), ("id", "from-paho"), ("source", "/paho"), ("type", "paho.event"), ("extra", "ü"),
        ]
        info = client.publish("paho/event", '{"celsius": 21.50}', qos=1, properties=properties)
        info.wait_for_publish(10)
        assert info.is_published()
    client.disconnect()
    client.loop_stop()
