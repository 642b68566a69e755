"""An MQTT 3.1.1 connection as a queue of events: the one file that imports paho, and disarms its traps.

Traps: an exception kills paho's thread silently, so callbacks only enqueue, and `poll` starts a new thread; at a
reconnect paho floods the broker with its whole queue, so that is emptied first and the caller sends again; a publish
while disconnected is kept in memory only, so it is refused here; an acknowledgement while disconnected could
go out before the next CONNECT, so it is dropped.
"""

import contextlib
import queue
import random
import secrets
import socket
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edgeclient.link import refusal, tcp
from edgeclient.link.endpoint import Endpoint
from edgeclient.link.events import Connected, Disconnected, Event, LinkDown, Message, SubscriptionRefused, Will

__all__ = ["Connected", "Disconnected", "Endpoint", "Link", "LinkDown", "Message", "SubscriptionRefused", "Will"]

MAX_BACKOFF_S: Final = 8
REFUSED_BACKOFF_S: Final = 300  # a wrong password does not get better by asking
MAX_UNREAD_BYTES: Final = 16 << 20  # then QoS 0, which promises nothing, is dropped
_GOODBYE_S: Final = 2.0


class Link:
    """A connection that keeps coming back.

    Args:
        endpoint: the broker.
        client_id_prefix: a random suffix makes the id, since two clients of one id fight for ever.
        will: see Will.

    Example:
        >>> link = Link(Endpoint("127.0.0.1", 1883), client_id_prefix="pi-7")
        >>> link.connected, link.poll(0.0)
        (False, [])
    """

    def __init__(self, endpoint: Endpoint, *, client_id_prefix: str, will: Will | None = None) -> None:
        self._endpoint = endpoint
        self._where = f"{endpoint.host}:{endpoint.port}"
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._connection = 0
        # By a CONNACK, in this connection.
        self._answered = self._refused = False
        self._mutex = threading.Lock()
        # Counted without a lock: paho calls on_publish while it holds one that publish() takes.
        self._published = 0
        self._acknowledged = 0
        # Of messages; each is written by one thread alone.
        self._arrived_bytes = 0
        self._read_bytes = 0
        self._asked: dict[int, tuple[str, ...]] = {}
        self._unread: set[tuple[int, int]] = set()  # connection and id of messages with QoS 1 that wait in `poll`
        self._bytes_mutex = threading.Lock()
        self._socket: socket.socket | None = None
        self._past_bytes = (0, 0)
        self._thread: threading.Thread | None = None
        self._running = False
        self._client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{client_id_prefix[:48]}-{secrets.token_hex(4)}",
            clean_session=True,
            protocol=MQTTProtocolVersion.MQTTv311,
            manual_ack=True,
        )
        self._client.suppress_exceptions = True
        # The caller's window paces; paho's counter leaks when its queue is emptied.
        self._client.max_inflight_messages = 0
        # A fleet that lost its broker comes back all at once; paho takes fractions, whatever its annotation says.
        self._backoff_s: Any = random.uniform(0.5, 1.5)  # noqa: S311 (no secret)
        self._back_off(MAX_BACKOFF_S)
        if endpoint.username is not None:
            self._client.username_pw_set(endpoint.username, endpoint.password)
        if endpoint.tls is not None:
            self._client.tls_set_context(endpoint.tls)
        if will is not None:
            self._client.will_set(will.topic, will.payload, qos=1, retain=True)
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish
        self._client.on_subscribe = self._on_subscribe
        self._client.on_socket_open = self._on_socket_open
        self._client.on_socket_close = self._on_socket_close

    def start(self) -> None:
        """Begin to connect; the first connect is retried like any other, at most 8 s apart."""
        self._running = True
        self._client.connect_async(self._endpoint.host, self._endpoint.port, self._endpoint.keepalive_s)
        self._client.loop_start()
        self._thread = self._client._thread  # noqa: SLF001 (paho shows it nowhere, and `alive` must not wait for a CONNACK)

    def stop(self) -> None:
        """Let what was published go out (at most 2 s), say goodbye (at most 2 s), end the thread.

        A connect under way is waited for, at most 5 s.
        """
        self._running = False
        until_s = time.monotonic() + _GOODBYE_S
        while self.connected and self.pending and time.monotonic() < until_s:
            time.sleep(0.005)
        self._client.disconnect()
        if self._thread is not None:
            self._thread.join(_GOODBYE_S)
            # With a full send buffer the goodbye never leaves, and loop_stop waits for it (over 12 s measured).
            with self._bytes_mutex, contextlib.suppress(OSError):
                if self._thread.is_alive() and self._socket is not None:
                    self._socket.shutdown(socket.SHUT_RDWR)
        self._client.loop_stop()

    def poll(self, timeout_s: float, *, limit: int = 64) -> list[Event]:
        """Wait for the first event, at most so long, and return what is there, at most `limit` events."""
        events: list[Event] = []
        if self._running and not self.alive:
            self._events.put(Disconnected("paho's thread has died: a new one connects"))
            self._client._reset_sockets()  # noqa: SLF001 (nothing else closes what the thread has left open)
            self.start()
        with contextlib.suppress(queue.Empty):
            first = self._events.get(timeout=timeout_s) if timeout_s > 0 else self._events.get_nowait()
            events += [] if first is None else [first]
            while len(events) < limit:
                event = self._events.get_nowait()
                events += [] if event is None else [event]
        for event in events:
            if isinstance(event, Message):
                self._read_bytes += len(event.payload)
                self._unread.discard((event.connection, event.mid))
        return events

    def wake(self) -> None:
        """Make a waiting `poll` return; from a signal handler or another thread, too."""
        self._events.put(None)

    def subscribe(self, *topics: str, qos: int = 1) -> None:
        """Ask for topics; a refusal comes as SubscriptionRefused.

        Raises:
            LinkDown: not connected.
        """
        if topics:
            # Under the lock, so that the answer finds the question.
            with self._mutex:
                result, mid = self._client.subscribe([(topic, qos) for topic in topics])
                self._check(result)
                assert mid is not None
                self._asked[mid] = topics

    def unsubscribe(self, *topics: str) -> None:
        """Ask for topics no more.

        Raises:
            LinkDown: not connected.
        """
        if topics:
            self._check(self._client.unsubscribe(list(topics))[0])

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Hand a message to the connection. Only an answer from the other side says that it arrived.

        Raises:
            LinkDown: not connected.
            ValueError: the payload is over the endpoint's limit.
        """
        if len(payload) > self._endpoint.max_payload_bytes:
            raise ValueError(f"{len(payload)} bytes on {topic}, the broker takes {self._endpoint.max_payload_bytes}")
        if not self.connected:
            raise LinkDown(f"no connection to {self._where}")
        self._check(self._client.publish(topic, payload, qos=qos, retain=retain).rc)
        self._published += 1

    def acknowledge(self, message: Message) -> None:
        """Tell the broker that a message is processed; one of an earlier connection comes again by itself."""
        if message.qos and message.connection == self._connection and self.connected:
            self._client.ack(message.mid, message.qos)

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us and nothing has broken since, as far as we know."""
        return self._client.is_connected() and self.alive

    @property
    def alive(self) -> bool:
        """Whether paho's thread runs; if it does not, nothing comes or goes any more."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def pending(self) -> int:
        """Messages of this connection that have not left (QoS 0) or that the broker has not acknowledged (QoS 1)."""
        return max(0, self._published - self._acknowledged)

    @property
    def backlog(self) -> int:
        """Events that `poll` has not returned yet."""
        return self._events.qsize()

    def socket_bytes(self) -> tuple[int, int]:
        """TCP payload bytes sent (and acknowledged) and received, over all connections; 0 where TCP does not tell.

        Linux counts the SYN and the FIN of a connection as a byte each.
        """
        with self._bytes_mutex:
            sent, received = self._past_bytes
            now_sent, now_received = tcp.payload_bytes(self._socket)
            return sent + now_sent, received + now_received

    def _back_off(self, most_s: int) -> None:
        self._client.reconnect_delay_set(self._backoff_s, most_s)

    def _check(self, result: MQTTErrorCode) -> None:
        if result != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise LinkDown(f"{self._where}: {result.name}")

    # In paho's thread: only enqueue.

    def _on_connect(self, client: Client, _: Any, __: ConnectFlags, reason: ReasonCode, ___: Properties | None) -> None:
        self._back_off(REFUSED_BACKOFF_S if reason.is_failure else MAX_BACKOFF_S)
        self._answered = True
        if reason.is_failure:
            self._refused = True  # said here, in full: the disconnect that follows knows less
            self._events.put(Disconnected(refusal.of_mqtt(reason.value, str(reason))))
            return
        client.drop_out_messages()
        self._published = self._acknowledged = 0
        with self._mutex:
            self._asked.clear()
        self._connection += 1
        self._events.put(Connected(self._connection))

    def _on_connect_fail(self, _: Client, __: Any) -> None:
        # paho calls this while it handles the error, and hands it to nobody.
        why = refusal.of_tls(sys.exception(), self._where)
        self._back_off(MAX_BACKOFF_S if why is None else REFUSED_BACKOFF_S)
        if why is not None:
            self._events.put(Disconnected(why))

    def _on_disconnect(
        self, _: Client, __: Any, ___: DisconnectFlags, reason: ReasonCode, ____: Properties | None
    ) -> None:
        why = str(reason) if self._answered else refusal.of_silence(tls=self._endpoint.tls is not None)
        if not self._refused:
            self._events.put(Disconnected(why))
        self._answered = self._refused = False

    def _on_message(self, _: Client, __: Any, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""  # no topic of ours; it is dropped, and acknowledged, where topics are read
        # The broker waits with QoS 1 for our acknowledgements; nothing else holds QoS 0 back while we are busy.
        if message.qos == 0 and self._arrived_bytes - self._read_bytes > MAX_UNREAD_BYTES:
            return
        # What nobody has acknowledged in time comes again, and again: while we are busy that must not pile up.
        if message.qos:
            if (self._connection, message.mid) in self._unread:
                return
            self._unread.add((self._connection, message.mid))
        self._arrived_bytes += len(message.payload)
        self._events.put(
            Message(topic, bytes(message.payload), message.retain, self._connection, message.mid, message.qos)
        )

    def _on_publish(self, _: Client, __: Any, ___: int, ____: ReasonCode, _____: Properties) -> None:
        self._acknowledged += 1

    def _on_subscribe(
        self, _: Client, __: Any, mid: int, reasons: Sequence[ReasonCode], ___: Properties | None
    ) -> None:
        with self._mutex:
            topics = self._asked.pop(mid, ())
        refused = tuple(topic for topic, reason in zip(topics, reasons, strict=False) if reason.is_failure)
        if refused:
            self._events.put(SubscriptionRefused(refused))

    def _on_socket_open(self, _: Client, __: Any, sock: Any) -> None:
        with self._bytes_mutex:
            self._socket = sock
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _on_socket_close(self, _: Client, __: Any, sock: Any) -> None:
        # One step for who asks meanwhile: the totals never fall.
        with self._bytes_mutex:
            sent, received = tcp.payload_bytes(sock)
            self._past_bytes = (self._past_bytes[0] + sent, self._past_bytes[1] + received)
            self._socket = None
