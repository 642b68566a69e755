"""An MQTT 3.1.1 connection as a queue of events: the one file that imports paho, and disarms its traps.

Traps: an exception kills paho's thread silently, so callbacks only enqueue, and `poll` starts a new thread; at a
reconnect paho floods the broker with its whole queue, so that is emptied first and the caller sends again; a publish
while disconnected is kept in memory only, so it is refused here; an acknowledgement while disconnected could
go out before the next CONNECT, so it is dropped.
"""

import contextlib
import queue
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edgeclient.link import limits, refusal, tcp
from edgeclient.link.backoff import Backoff
from edgeclient.link.endpoint import Endpoint
from edgeclient.link.events import Connected, Disconnected, Event, LinkDown, Message, SubscriptionRefused, Will
from edgeclient.link.limits import CutOffs, Limits
from edgeclient.settings import ConfigError
from edgeclient.settings.device import MAX_PACKET_BYTES
from edgeclient.wire import topics

__all__ = ["Connected", "Disconnected", "Endpoint", "Link", "LinkDown", "Message", "SubscriptionRefused", "Will"]

MAX_UNREAD_BYTES: Final = 16 << 20  # then QoS 0, which promises nothing, is dropped ...
MAX_UNREAD: Final = 1 << 16  # ... as well as then: an empty message takes memory, too
_GOODBYE_S: Final = 2.0
_MAYBE_THE_LINK: Final = 4  # times that a broker which tells no limit may hang up at one message
_LOOK_S: Final = 1.0  # between two looks at the password file of a broker that refuses us


class _Client(Client):
    """Leaves the time between two connections to the link: paho would not be woken, and forgets how long it waited."""

    between: Callable[[], None]

    def _reconnect_wait(self) -> None:
        self.between()


class Link:
    """A connection that keeps coming back.

    Args:
        endpoint: the broker.
        client_id_prefix: a random suffix makes the id, since two clients of one id fight for ever.
        will: see Will.
        exact: be called as the endpoint's client_id says, where it does; others beside it get an end of their own.

    Example:
        >>> link = Link(Endpoint("127.0.0.1", 1883), client_id_prefix="pi-7")
        >>> link.connected, link.poll(0.0)
        (False, [])
    """

    def __init__(
        self, endpoint: Endpoint, *, client_id_prefix: str, will: Will | None = None, exact: bool = False
    ) -> None:
        self._endpoint, self._will = endpoint, will
        self._stamp = endpoint.stamp  # of the password file as it was read
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._connection = 0
        # By a CONNACK, in this connection.
        self._answered = self._refused = False
        self._refuses = False  # what keeps us off does not heal by waiting
        self._verdict = ""  # on why the broker hangs up, as long as it does
        self._why = "not connected yet"
        self._backoff, self._cut_offs = Backoff(), CutOffs()
        self._limits = Limits(endpoint.max_packet_bytes)
        self._hung_up = 0  # in a row, before a CONNACK
        self._begun_s, self._begun_bytes = 0.0, 0  # of this connection
        self._ending = threading.Event()
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
        prefix = endpoint.client_id or client_id_prefix
        self._client_id = prefix if exact and endpoint.client_id else f"{prefix[:48]}-{secrets.token_hex(4)}"
        self._client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            clean_session=True,
            protocol=MQTTProtocolVersion.MQTTv311,
            manual_ack=True,
        )
        self._client.suppress_exceptions = True
        # The caller's window paces; paho's counter leaks when its queue is emptied.
        self._client.max_inflight_messages = 0
        self._client.between = self._between
        if endpoint.username is not None:
            self._client.username_pw_set(endpoint.username, endpoint.password)
        if endpoint.tls is not None:
            self._client.tls_set_context(endpoint.tls)
        self._set_will()
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish
        self._client.on_subscribe = self._on_subscribe
        self._client.on_socket_open = self._on_socket_open
        self._client.on_socket_close = self._on_socket_close

    def start(self) -> None:
        """Begin to connect; the first connect is retried like any other."""
        self._running = True
        self._ending.clear()
        # Brokers wait half as long again as a keep-alive says before they take its client for gone.
        self._client.connect_async(self._endpoint.host, self._endpoint.port, 2 * self._endpoint.keepalive_s // 3)
        self._client.loop_start()
        self._thread = self._client._thread  # noqa: SLF001 (paho shows it nowhere, and `alive` must not wait for a CONNACK)

    def stop(self) -> None:
        """Let what was published go out (at most 2 s), say goodbye (at most 2 s), end the thread.

        A connect under way is waited for, at most 5 s.
        """
        self._running = False
        self._ending.set()
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
        self._client._reset_sockets()  # noqa: SLF001 (its pair for wake-ups stays open otherwise)

    def poll(self, timeout_s: float, *, limit: int = 64) -> list[Event]:
        """Wait for the first event, at most so long, and return what is there, at most `limit` events."""
        events: list[Event] = []
        if self._running and not self.alive:
            self._lose("paho's thread has died: a new one connects")
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

    def subscribe(self, *wanted: str, qos: int = 1) -> None:
        """Ask for topics; a refusal comes as SubscriptionRefused.

        Raises:
            LinkDown: not connected.
        """
        if wanted:
            # Under the lock, so that the answer finds the question.
            with self._mutex:
                result, mid = self._client.subscribe([(self._place(topic), qos) for topic in wanted])
                self._check(result)
                assert mid is not None
                self._asked[mid] = wanted

    def unsubscribe(self, *unwanted: str) -> None:
        """Ask for topics no more.

        Raises:
            LinkDown: not connected.
        """
        if unwanted:
            self._check(self._client.unsubscribe([self._place(topic) for topic in unwanted])[0])

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Hand a message to the connection. Only an answer from the other side says that it arrived.

        Raises:
            LinkDown: not connected, or a connection ago the broker took more than it takes now.
            ValueError: the packet is over the endpoint's limit.
        """
        size = limits.packet_bytes(self._place(topic), len(payload))
        if size > self._endpoint.max_packet_bytes:
            raise ValueError(f"{size} bytes on {topic}, the broker takes {self._endpoint.max_packet_bytes}")
        if not self.connected or size > self._limits.packet_bytes:
            raise LinkDown(self._why or f"{size} bytes on {topic}, the broker takes {self._limits.packet_bytes}")
        qos = min(qos, self._limits.qos)
        self._check(self._client.publish(self._place(topic), payload, qos=qos, retain=retain).rc)
        self._published += 1

    def room(self, topic: str, packet_bytes: int = MAX_PACKET_BYTES) -> int:
        """Bytes that a payload on `topic` may have within a packet of so many; may be fewer after a reconnect."""
        return self._limits.within(Limits(packet_bytes)).room(self._place(topic))

    def reconnect(self, why: str) -> None:
        """Give this connection up for a new one: it is there, and nothing comes of it."""
        with self._bytes_mutex, contextlib.suppress(OSError):
            if self._socket is not None:
                self._why = why
                self._socket.shutdown(socket.SHUT_RDWR)

    def acknowledge(self, message: Message) -> None:
        """Tell the broker that a message is processed; one of an earlier connection comes again by itself."""
        if message.qos and message.connection == self._connection and self.connected:
            self._client.ack(message.mid, message.qos)

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us and nothing has broken since, as far as we know."""
        return self._client.is_connected() and self.alive

    @property
    def why(self) -> str:
        """Why there is no connection; "" when there is one."""
        return "" if self.connected else self._why

    @property
    def connection(self) -> int:
        """Number of the newest connection; 0 before the first."""
        return self._connection

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

    def _place(self, topic: str) -> str:
        return topics.placed(topic, self._endpoint.prefix)

    def _set_will(self) -> None:
        if self._will is not None:
            topic, payload = self._place(self._will.topic), self._will.payload
            self._client.will_set(topic, payload, qos=min(1, self._limits.qos), retain=True)

    def _check(self, result: MQTTErrorCode) -> None:
        if result != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise LinkDown(f"{self._endpoint.where}: {result.name}")

    def _lose(self, why: str, *, refused: bool = False) -> None:
        self._why, self._refuses = why, refused
        self._events.put(Disconnected(why))

    # In paho's thread: only enqueue.

    def _on_connect(self, client: Client, _: Any, __: ConnectFlags, reason: ReasonCode, ___: Properties | None) -> None:
        self._answered = True
        if reason.is_failure:
            self._refused = True  # said here, in full: the disconnect that follows knows less
            self._lose(refusal.of_mqtt(reason.value, str(reason)), refused=True)
            return
        client.drop_out_messages()
        self._published = self._acknowledged = self._hung_up = 0
        self._begun_s, self._begun_bytes = time.monotonic(), self._arrived_bytes
        with self._mutex:
            self._asked.clear()
        self._connection += 1
        self._why = ""
        self._events.put(Connected(self._connection))

    def _on_connect_fail(self, _: Client, __: Any) -> None:
        # paho calls this while it handles the error, and hands it to nobody.
        why, refused = refusal.of_error(sys.exception(), self._endpoint.where)
        self._lose(why, refused=refused)

    def _on_disconnect(
        self, _: Client, __: Any, ___: DisconnectFlags, reason: ReasonCode, ____: Properties | None
    ) -> None:
        if self._answered and not self._refused:
            lasted_s = time.monotonic() - self._begun_s
            arrived = self._arrived_bytes - self._begun_bytes
            self._backoff.ended(lasted_s=lasted_s, arrived_bytes=arrived, acknowledged=self._acknowledged)
            self._lose(self._why or self._verdict or refusal.of_end(reason.value, 4 / 3 * self._endpoint.keepalive_s))
        elif not self._refused:
            self._hung_up += 1
            tls, known = self._endpoint.tls is not None, self._connection > 0
            self._lose(self._verdict or refusal.of_silence(reason.value, self._endpoint.where, tls=tls, known=known))
        self._answered = self._refused = False

    def _between(self) -> None:
        """After an attempt or a connection: look at how it ended, then wait."""
        if self._ending.is_set():
            return
        left = [limits.packet_bytes(each.topic, len(each.payload)) for each in self._client.drop_out_messages()]
        if self._hung_up == 0:
            self._cut_offs.note(max(left, default=0))
        if self._cut_offs.asks or limits.doubled(self._hung_up):
            self._judge()
        elif max(self._cut_offs.times, self._hung_up) < limits.ASKED_AFTER:
            self._verdict = ""
        self._refuses |= bool(self._verdict)
        until_s = time.monotonic() + self._backoff.next_s(refused=self._refuses)
        while (left_s := until_s - time.monotonic()) > 0 and not self._ending.wait(min(_LOOK_S, left_s)):
            if self._refuses and self._endpoint.stamp != self._stamp:
                break
        if self._refuses:
            self._read_password()

    def _judge(self) -> None:
        """The broker hangs up at the same thing again and again: which of its limits is that?"""
        answer = limits.asked(self._endpoint, f"{self._client_id[:56]}-asks")
        size, times, before = self._cut_offs.bytes, self._cut_offs.times, self._limits
        self._limits = told = before if answer is None else answer.limits
        self._verdict = ""
        if not told.retain:
            self._verdict = refusal.NO_RETAIN
        elif told.packet_bytes < limits.LEAST_BYTES:
            self._verdict = refusal.SMALL_PACKETS.format(told.packet_bytes)
        elif told != before:
            shrunk = told.packet_bytes < before.packet_bytes
            self._lose(refusal.SHRUNK.format(told.packet_bytes) if shrunk else refusal.QOS_0)
            self._set_will()
            self._backoff.begin()
        elif answer is None and (tried := self._cut_offs.halves(told.packet_bytes)) is not None:
            self._limits = told.within(Limits(tried))
            self._lose(refusal.GUESSED.format(times, size, tried))
        elif times > (limits.ASKED_AFTER if answer is None else _MAYBE_THE_LINK):
            self._verdict = refusal.OTHER_LIMIT.format(times, size)
        if self._verdict:
            self._lose(self._verdict)

    def _read_password(self) -> None:
        """Again: somebody may have put it right."""
        self._stamp = self._endpoint.stamp
        try:
            self._endpoint = self._endpoint.renewed()
        except ConfigError as error:
            self._lose(str(error), refused=True)
            return
        if self._endpoint.username is not None:
            self._client.username_pw_set(self._endpoint.username, self._endpoint.password)

    def _on_message(self, _: Client, __: Any, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""  # no topic of ours; it is dropped, and acknowledged, where topics are read
        # The broker waits with QoS 1 for our acknowledgements; nothing else holds QoS 0 back while we are busy.
        unread = self._arrived_bytes - self._read_bytes
        if message.qos == 0 and (unread > MAX_UNREAD_BYTES or self.backlog > MAX_UNREAD):
            return
        # What nobody has acknowledged in time comes again, and again: while we are busy that must not pile up.
        if message.qos:
            if (self._connection, message.mid) in self._unread:
                return
            self._unread.add((self._connection, message.mid))
        self._arrived_bytes += len(message.payload)
        topic = topics.found(topic, self._endpoint.prefix)
        self._events.put(
            Message(topic, bytes(message.payload), message.retain, self._connection, message.mid, message.qos)
        )

    def _on_publish(self, _: Client, __: Any, ___: int, ____: ReasonCode, _____: Properties) -> None:
        self._acknowledged += 1

    def _on_subscribe(
        self, _: Client, __: Any, mid: int, reasons: Sequence[ReasonCode], ___: Properties | None
    ) -> None:
        with self._mutex:
            asked = self._asked.pop(mid, ())
        refused = tuple(self._place(topic) for topic, why in zip(asked, reasons, strict=False) if why.is_failure)
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
