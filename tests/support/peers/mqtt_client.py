"""What applications do with MQTT 3.1.1 and 5, by paho: HOST PORT [BYTES]. Says what came of it."""
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

BIG = int(sys.argv[3]) if len(sys.argv) > 3 else 500_000


def talk(host, port, version):
    is_five = version == mqtt.MQTTv5
    connected, subscribed, left = threading.Event(), threading.Event(), threading.Event()
    seen, full = [], threading.Event()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"c{version}", protocol=version)

    def on_message(_, __, message):
        seen.append((message.topic, message.qos, len(message.payload)))
        if len(seen) == 32:
            full.set()

    granted = []

    def on_subscribe(_, __, ___, codes, ____):
        granted.extend(str(code) for code in codes)
        subscribed.set()

    client.on_connect = lambda *_: connected.set()
    client.on_subscribe = on_subscribe
    client.on_unsubscribe = lambda *_: left.set()
    client.on_message = on_message
    client.connect(host, port, keepalive=30)
    client.loop_start()
    assert connected.wait(10)
    client.subscribe([("shop/#", 2), ("other/+", 0)])
    assert subscribed.wait(10)
    properties = None
    if is_five:
        properties = Properties(PacketTypes.PUBLISH)
        properties.ContentType = "text/plain"
        properties.UserProperty = ("traceparent", "00-" + "1" * 32 + "-" + "2" * 16 + "-01")
    for qos in (0, 1, 2):
        for number in range(10):
            info = client.publish(f"shop/{qos}", b"m%d" % number, qos=qos, properties=properties)
            info.wait_for_publish(10)
    client.publish("shop/big", b"x" * BIG, qos=1).wait_for_publish(10)
    client.publish("shop/last", b"", qos=0, retain=False)
    assert full.wait(10), len(seen)
    print(version, granted, sorted(seen)[0], sorted(seen)[-1], len(seen))
    client.unsubscribe("shop/#")
    assert left.wait(10)
    client.disconnect()
    client.loop_stop()


def main(host, port):
    talk(host, port, mqtt.MQTTv311)
    talk(host, port, mqtt.MQTTv5)
    print("done")


main(sys.argv[1], int(sys.argv[2]))
