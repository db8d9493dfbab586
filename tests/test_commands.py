# SPDX-License-Identifier: MIT
"""Every command of the internal protocol, from a worker's and from GatewayClient's side.

Every expectation here has been checked against PHP's gateway (TGG_ORACLE_GATEWAY); replies are compared as bytes
where the order of array elements cannot differ, else as values that only PHP's own form of them reads as.
"""

import json
import random
import struct
import time

import pytest

from gwproto import (BATCH_GET_CLIENT_COUNT_BY_GROUP, BATCH_GET_CLIENT_ID_BY_UID, BIND_UID, FLAG_RAW, FLAG_SCALAR, GET_ALL_CLIENT_SESSIONS,
                     GET_CLIENT_COUNT_BY_GROUP, GET_CLIENT_ID_BY_UID, GET_CLIENT_SESSIONS_BY_GROUP, GET_GROUP_ID_LIST,
                     GET_SESSION_BY_CLIENT_ID, IS_ONLINE, JOIN_GROUP, KICK, LEAVE_GROUP, ON_CLOSE, ON_MESSAGE, SELECT, SEND_TO_GROUP,
                     SEND_TO_ONE, SEND_TO_UID, SET_SESSION, UNBIND_UID, LinkClosed, Packet, packet, to_json)
from phpvalue import array, serialize, unserialize, values
from wsclient import CLOSE, TEXT, server_frame

pytestmark = pytest.mark.shards(1, 3)

UNKNOWN = 0xFFFFFFF0
END = b"--end--"


def received(site, client):
    """The messages that have come to a client before one that is sent now."""
    site.g.send_to_one(client.id, END)
    messages = []
    while True:
        message = client.read_message()
        if message == END:
            return messages
        messages.append(message)


def ids(clients):
    return sorted(client.id for client in clients)


def expect_kicked(client, before=()):
    """These messages, then the end of the stream; tgg says it with a close frame first, PHP does not."""
    for message in before:
        assert client.read_message() == message
    try:
        got = client.read_frame()
        assert got.opcode == CLOSE and got.code == 1000, got
        client.send_frame(CLOSE, got.payload)
        client.expect_end()
    except LinkClosed:
        pass


# ---- SEND_TO_ONE


def test_send_to_one(site):
    one, other = site.client(), site.client()
    site.g.send_to_one(one.id, b"hello")
    assert one.read_message() == b"hello"
    assert received(site, other) == []


def test_send_to_one_from_the_worker_link(site):
    client = site.client()
    site.worker.send_to_one(client.id, b"hello")
    assert client.read_message() == b"hello"


def test_send_to_one_empty_body_is_an_empty_message(site):
    client = site.client()
    site.g.send_to_one(client.id, b"")
    assert client.read_message() == b""


def test_send_to_an_unknown_connection_is_ignored(site):
    client = site.client()
    for connection_id in (0, UNKNOWN):
        site.g.send_to_one(connection_id, b"x")
    assert received(site, client) == []


@pytest.mark.tgg_only
def test_send_to_an_unknown_connection_is_counted(site):
    site.g.send_to_one(UNKNOWN, b"x")
    site.g.sync()
    site.wait_counter("dropped_client_gone", 1)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 200_000])
def test_send_every_length_form(site, size):
    client = site.client()
    body = bytes(i % 26 + 97 for i in range(size))
    site.g.send_to_one(client.id, body)
    assert client.read_message() == body


@pytest.mark.parametrize("body, text", [
    (None, b"null"),
    ([], b"[]"),
    ({}, b"[]"),
    ([1, 2, 3], b"[1,2,3]"),
    ({1: "a", 2: "b"}, b'{"1":"a","2":"b"}'),
    ({0: "a", 1: "b"}, b'["a","b"]'),
    ({"type": "say", "to": [], "nested": {"k": [True, False, None]}}, b'{"type":"say","to":[],"nested":{"k":[true,false,null]}}'),
    ([1.5, 2.0, 0.1, 1e25, -3.0e-7], b"[1.5,2,0.1,1.0e+25,-3.0e-7]"),
    (["\u00e9\u4e2d\U0001f600"], '["\u00e9\u4e2d\U0001f600"]'.encode()),
    (['/ " \\ \b\f\n\r\t \x01\x7f <>&\''], b'["\\/ \\" \\\\ \\b\\f\\n\\r\\t \\u0001\x7f <>&\'"]'),
    ({"0123": 1, "-5": 2, "": 3}, b'{"0123":1,"-5":2,"":3}'),
    ([2**63 - 1, -(2**63)], b"[9223372036854775807,-9223372036854775808]"),
    (["\u2028\u2029"], b'["\\u2028\\u2029"]'),
])
def test_a_body_that_is_not_a_string_goes_out_as_json(site, body, text):
    client = site.client()
    site.g.send_to_one(client.id, body)
    assert client.read_message() == text


@pytest.mark.parametrize("body, text", [(7, b"7"), (-1.5, b"-1.5"), (True, b"1"), (b"plain", b"plain")])
@pytest.mark.tgg_only  # a serialized scalar ends the PHP process (a string excepted)
def test_a_serialized_scalar_goes_out_as_php_would_print_it(site, body, text):
    client = site.client()
    site.g.send_packet(Packet(SEND_TO_ONE, client.id, body=serialize(body), flag=0))
    assert client.read_message() == text


def test_a_serialized_string_goes_out_as_the_string(site):
    client = site.client()
    site.g.send_packet(Packet(SEND_TO_ONE, client.id, body=serialize(b"plain"), flag=0))
    assert client.read_message() == b"plain"


@pytest.mark.tgg_only  # ends the PHP process
@pytest.mark.parametrize("body", [b"", b"garbage", b"a:1:{i:0;", b's:5:"abc";', b"a:99999999:{}"])
def test_a_body_that_is_not_serialized_is_refused_and_the_link_stays(site, body):
    client = site.client()
    site.g.send_packet(Packet(SEND_TO_ONE, client.id, body=body, flag=0))
    assert received(site, client) == []
    assert site.counter("command_refused") + site.counter("dropped_not_a_string") == 1


def test_bytes_after_a_serialized_body_are_ignored(site):
    client = site.client()
    site.g.send_packet(Packet(SEND_TO_ONE, client.id, body=b"a:1:{i:0;i:1;}trailing", flag=0))
    assert client.read_message() == b"[1]"


def test_raw_bodies_go_out_as_they_are(site):
    client = site.client()
    site.g.send_to_one(client.id, server_frame(TEXT, b"framed by the worker"), raw=True)
    assert client.read_message() == b"framed by the worker"
    assert received(site, client) == []


def test_raw_fan_out(site):
    clients = [site.client() for _ in range(3)]
    site.g.bind_uid(clients[0].id, b"u")
    site.g.join_group(clients[1].id, b"g")
    site.g.send_to_all(server_frame(TEXT, b"all"), raw=True)
    site.g.send_to_uid([b"u"], server_frame(TEXT, b"uid"), raw=True)
    site.g.send_to_group([b"g"], server_frame(TEXT, b"group"), raw=True)
    assert received(site, clients[0]) == [b"all", b"uid"]
    assert received(site, clients[1]) == [b"all", b"group"]
    assert received(site, clients[2]) == [b"all"]


# ---- SEND_TO_ALL


def test_send_to_all(site):
    clients = [site.client() for _ in range(5)]
    site.g.send_to_all(b"news")
    for client in clients:
        assert received(site, client) == [b"news"]


def test_send_to_all_json_body(site):
    clients = [site.client() for _ in range(2)]
    site.g.send_to_all({"a": 1})
    for client in clients:
        assert received(site, client) == [b'{"a":1}']


def number(i):
    return i


def text(i):
    return str(i)


@pytest.mark.parametrize("form", [number, text], ids=["numbers", "strings"])
@pytest.mark.parametrize("shape", ["array", "object"])
def test_send_to_chosen_connections(site, form, shape):
    clients = [site.client() for _ in range(4)]
    chosen = [form(clients[0].id), form(clients[2].id), form(UNKNOWN)]
    site.g.send_to_all(b"x", connections=chosen if shape == "array" else {str(c): c for c in chosen})
    assert [received(site, client) for client in clients] == [[b"x"], [], [b"x"], []]


def test_connections_may_have_any_keys(site):
    clients = [site.client() for _ in range(2)]
    site.g.send_to_all(b"x", connections={"first": clients[1].id})
    assert [received(site, client) for client in clients] == [[], [b"x"]]


def test_an_id_that_stands_twice_gets_it_twice(site):
    client = site.client()
    site.g.send_to_all(b"x", connections=[client.id, str(client.id)])
    assert received(site, client) == [b"x", b"x"]


def test_empty_connections_are_nobody(site):
    client = site.client()
    for shape in (b'{"connections":[]}', b'{"connections":{}}'):
        site.g.send_to_all(b"x", ext=shape)
    assert received(site, client) == []


def test_null_connections_are_everybody(site):
    client = site.client()
    site.g.send_to_all(b"x", ext=b'{"connections":null}')
    site.g.send_to_all(b"y", ext=b"{}")
    site.g.send_to_all(b"z", ext=b"[]")
    assert received(site, client) == [b"x", b"y", b"z"]


@pytest.mark.parametrize("form", [number, text], ids=["numbers", "strings"])
def test_send_to_all_but_some(site, form):
    clients = [site.client() for _ in range(4)]
    excluded = {str(clients[i].id): form(clients[i].id) for i in (1, 3)}
    excluded[str(UNKNOWN)] = UNKNOWN
    site.g.send_to_all(b"x", exclude=excluded)
    assert [received(site, client) for client in clients] == [[b"x"], [], [b"x"], []]


@pytest.mark.tgg_only  # PHP takes the positions in the array for the ids, which nobody can mean
@pytest.mark.parametrize("form", [number, text], ids=["numbers", "strings"])
def test_exclude_may_be_an_array(site, form):
    clients = [site.client() for _ in range(4)]
    site.g.send_to_all(b"x", exclude=[form(clients[1].id), form(clients[3].id)])
    site.g.join_group(clients[0].id, b"g")
    site.g.join_group(clients[1].id, b"g")
    site.g.send_to_group([b"g"], b"y", exclude=[form(clients[1].id)])
    assert [received(site, client) for client in clients] == [[b"x", b"y"], [], [b"x"], []]


def test_empty_exclude_is_nobody(site):
    client = site.client()
    for shape in (b'{"exclude":[]}', b'{"exclude":{}}', b'{"exclude":null}'):
        site.g.send_to_all(b"x", ext=shape)
    assert received(site, client) == [b"x"] * 3


@pytest.mark.tgg_only
@pytest.mark.parametrize("ext", [b"{", b'{"connections":[1,', b'{"connections":"x"}', b'"x"', b'{"connections":[[1]]}', b"\xff\xfe"])
def test_nonsense_in_ext_leaves_the_link_and_the_others_alone(site, ext):
    """PHP sends to everybody or ends, by the nonsense. Whether it is refused or taken is our own affair, to die is not."""
    client = site.client()
    site.g.send_to_all(b"x", ext=ext)
    assert set(received(site, client)) <= {b"x"}
    assert site.counter("link_bad_packet") == 0


# ---- KICK, DESTROY


def test_kick_with_a_body(site):
    client = site.client()
    site.g.kick(client.id, b"bye")
    expect_kicked(client, [b"bye"])
    assert site.worker.wait(ON_CLOSE, client.id).body == b""


def test_kick_with_null_sends_nothing(site):
    client = site.client()
    packet_ = packet(KICK, client.id, body=None)
    assert packet_.flag == 0 and packet_.body == b"N;"
    site.g.send_packet(packet_)
    expect_kicked(client)
    site.worker.wait(ON_CLOSE, client.id)


def test_kick_with_an_empty_string_sends_an_empty_message(site):
    client = site.client()
    site.g.kick(client.id, b"")
    expect_kicked(client, [b""])
    site.worker.wait(ON_CLOSE, client.id)


def test_kick_with_an_array_sends_json(site):
    client = site.client()
    site.g.kick(client.id, {"type": "logout"})
    expect_kicked(client, [b'{"type":"logout"}'])


def test_kick_comes_after_what_was_sent_before(site):
    client = site.client()
    big = b"x" * 300_000
    site.g.send_to_one(client.id, b"first")
    site.g.send_to_one(client.id, big)
    site.g.kick(client.id, b"bye")
    site.g.send_to_one(client.id, b"too late")
    expect_kicked(client, [b"first", big, b"bye"])


def test_kick_of_an_unknown_connection_is_ignored(site):
    site.g.kick(UNKNOWN, b"bye")
    site.g.destroy(UNKNOWN)
    assert site.g.is_online(UNKNOWN) == 0


def test_a_kicked_client_is_offline_and_in_no_index(site):
    client, other = site.client(), site.client()
    site.g.bind_uid(client.id, b"u")
    site.g.join_group(client.id, b"g")
    site.g.kick(client.id)
    site.worker.wait(ON_CLOSE, client.id)
    assert site.g.is_online(client.id) == 0
    assert site.g.is_online(other.id) == 1
    assert site.g.ids_by_uid(b"u") == {}
    assert site.g.group_list() == {}
    assert site.g.session(client.id) is None


def test_destroy_closes_at_once(site):
    client = site.client()
    site.g.destroy(client.id)
    site.worker.wait(ON_CLOSE, client.id)
    assert client.is_ended(within=20)
    assert not client.buffer
    assert site.g.is_online(client.id) == 0


# ---- IS_ONLINE


def test_is_online_bytes(site):
    client = site.client()
    assert site.g.query(packet(IS_ONLINE, client.id)) == b"i:1;"
    assert site.g.query(packet(IS_ONLINE, UNKNOWN)) == b"i:0;"
    assert site.g.query(packet(IS_ONLINE, 0)) == b"i:0;"


def test_a_client_that_has_gone_is_offline(site):
    client = site.client()
    client.close()
    site.worker.wait(ON_CLOSE, client.id)
    assert site.g.is_online(client.id) == 0


# ---- sessions


def test_session_is_an_empty_array_at_first(site):
    client = site.client()
    assert site.g.session_bytes(client.id) == b"a:0:{}"


def test_session_of_an_unknown_connection_is_null(site):
    assert site.g.session_bytes(UNKNOWN) == b"N;"


@pytest.mark.parametrize("session", [b'a:1:{s:4:"name";s:3:"Tom";}', b"not serialized at all", b"a:0:{}", b"\0\xff\n", b"1", b"00",
                                     b'O:8:"stdClass":1:{s:1:"a";i:1;}'])
def test_set_session_keeps_the_bytes(site, session):
    client = site.client()
    site.g.set_session(client.id, session)
    assert site.g.session_bytes(client.id) == session
    assert site.g.all_sessions() == {client.id: session}


@pytest.mark.parametrize("session", [b"", b"0"])
def test_a_session_that_is_empty_in_php_reads_as_an_empty_array(site, session):
    client = site.client()
    site.g.set_session(client.id, {"a": 1})
    site.g.set_session(client.id, session)
    assert site.g.session_bytes(client.id) == b"a:0:{}"
    assert site.g.all_sessions() == {client.id: session}


def test_set_session_replaces(site):
    client = site.client()
    site.g.set_session(client.id, {"a": 1, "b": 2})
    site.g.set_session(client.id, {"c": 3})
    assert site.g.session(client.id) == {b"c": 3}


def test_sessions_of_unknown_connections_are_ignored(site):
    site.g.set_session(UNKNOWN, {"a": 1})
    site.g.update_session(UNKNOWN, {"a": 1})
    assert site.g.session(UNKNOWN) is None
    assert site.g.all_sessions() == {}


def test_a_large_session(site):
    client = site.client()
    session = serialize({"blob": b"x" * 100_000})
    site.g.set_session(client.id, session)
    assert site.g.session_bytes(client.id) == session
    client.send_text("hi")
    assert site.worker.wait(ON_MESSAGE, client.id).ext == session


@pytest.mark.parametrize("first", [b"", b"0"])
def test_update_of_an_empty_session_keeps_the_bytes(site, first):
    client = site.client()
    site.g.set_session(client.id, first)
    site.g.update_session(client.id, b"anything goes here")
    assert site.g.session_bytes(client.id) == b"anything goes here"


@pytest.mark.parametrize("base, change, merged", [
    ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
    ({"a": 1, "b": 2}, {"a": 3}, {"a": 3, "b": 2}),
    ({"a": {"x": 1, "y": 2}}, {"a": {"y": 3, "z": 4}}, {"a": {"x": 1, "y": 3, "z": 4}}),
    ({"a": {"x": 1}}, {"a": 5}, {"a": 5}),
    ({"a": 5}, {"a": {"x": 1}}, {"a": {"x": 1}}),
    ({"a": [1, 2, 3]}, {"a": [9]}, {"a": [9, 2, 3]}),
    ({"a": 1}, {"a": None}, {"a": None}),
    ({"a": {"b": {"c": {"d": 1}}}}, {"a": {"b": {"c": {"e": 2}}}}, {"a": {"b": {"c": {"d": 1, "e": 2}}}}),
    ({5: "five", "k": 1.5}, {"5": "cinq", 6: True}, {5: "cinq", "k": 1.5, 6: True}),
    ({"a": 1}, {}, {"a": 1}),
    ({}, {"a": 1}, {"a": 1}),
    ({"a": {}}, {"a": {"x": 1}}, {"a": {"x": 1}}),
    ({"a": {"x": 1}}, {"a": {}}, {"a": {"x": 1}}),
    ({"f": 0.1, "g": 1e100, "h": -0.0, "u": "\u00e9"}, {"f": 2.0}, {"f": 2.0, "g": 1e100, "h": -0.0, "u": "\u00e9"}),
])
def test_update_session_merges_as_array_replace_recursive(site, base, change, merged):
    client = site.client()
    site.g.set_session(client.id, base)
    site.g.update_session(client.id, change)
    assert site.g.session_bytes(client.id) == serialize(merged)


def test_bytes_after_the_array_of_an_update_are_ignored(site):
    client = site.client()
    site.g.set_session(client.id, b'a:1:{s:1:"a";i:1;}x')
    site.g.update_session(client.id, b'a:1:{s:1:"b";i:2;}y')
    assert site.g.session_bytes(client.id) == b'a:2:{s:1:"a";i:1;s:1:"b";i:2;}'


def test_update_session_goes_into_the_next_event(site):
    client = site.client()
    site.g.set_session(client.id, {"a": 1})
    site.g.update_session(client.id, {"b": 2})
    site.g.sync()
    client.send_text("x")
    assert unserialize(site.worker.wait(ON_MESSAGE, client.id).ext) == {b"a": 1, b"b": 2}


def test_update_session_keeps_objects(site):
    client = site.client()
    site.g.set_session(client.id, b'a:2:{s:1:"o";O:3:"Foo":1:{s:1:"p";i:1;}s:1:"k";i:1;}')
    site.g.update_session(client.id, {"k": 2})
    assert site.g.session_bytes(client.id) == b'a:2:{s:1:"o";O:3:"Foo":1:{s:1:"p";i:1;}s:1:"k";i:2;}'


@pytest.mark.tgg_only  # ends the PHP process
@pytest.mark.parametrize("base, change", [
    (b"garbage", b'a:1:{s:1:"a";i:1;}'),
    (b'a:1:{s:1:"a";i:1;}', b"garbage"),
    (b'a:1:{s:1:"a";i:1;}', b""),
    (b'a:1:{s:1:"a";i:1;}', b"N;"),
    (b'a:1:{s:1:"a";i:1;}', b's:3:"abc";'),
    (b"i:5;", b'a:1:{s:1:"a";i:1;}'),
    (b'a:1:{s:1:"a";i:1;}', b"a:4000000000:{}"),
    (b'a:1:{s:1:"a";i:1;}', b'a:1:{s:1:"a";s:99999999:"x";}'),
    (b'a:1:{s:1:"a";i:1;}', b"a:1:{i:0;" * 5000),
])
def test_an_update_that_cannot_be_merged_changes_nothing(site, base, change):
    client = site.client()
    site.g.set_session(client.id, base)
    site.g.update_session(client.id, change)
    assert site.g.session_bytes(client.id) == base
    assert site.counter("command_refused") == 1


def test_get_all_client_sessions(site):
    assert site.g.query(packet(GET_ALL_CLIENT_SESSIONS)) == b"a:0:{}"
    clients = [site.client() for _ in range(3)]
    site.g.set_session(clients[1].id, {"n": 1})
    assert site.g.all_sessions() == {clients[0].id: b"", clients[1].id: serialize({"n": 1}), clients[2].id: b""}


def test_get_all_client_sessions_of_one_byte_for_byte(site):
    client = site.client()
    site.g.set_session(client.id, b"abc")
    assert site.g.query(packet(GET_ALL_CLIENT_SESSIONS)) == b'a:1:{i:%d;s:3:"abc";}' % client.id


# ---- uids


def test_bind_and_get_by_uid(site):
    a, b, c = (site.client() for _ in range(3))
    site.g.bind_uid(a.id, b"tom")
    site.g.bind_uid(b.id, b"tom")
    site.g.bind_uid(c.id, b"eve")
    assert sorted(values(site.g.ids_by_uid(b"tom"))) == ids([a, b])
    assert site.g.query(packet(GET_CLIENT_ID_BY_UID, ext=b"eve")) == serialize([c.id])
    assert site.g.query(packet(GET_CLIENT_ID_BY_UID, ext=b"nobody")) == b"a:0:{}"


def test_a_list_of_ids_has_keys_from_zero(site):
    clients = [site.client() for _ in range(4)]
    for client in clients:
        site.g.bind_uid(client.id, b"u")
    site.g.unbind_uid(clients[0].id)
    assert sorted(site.g.ids_by_uid(b"u")) == [0, 1, 2]


def test_a_second_bind_moves_the_client(site):
    client = site.client()
    site.g.bind_uid(client.id, b"one")
    site.g.bind_uid(client.id, b"two")
    assert site.g.ids_by_uid(b"one") == {}
    assert values(site.g.ids_by_uid(b"two")) == [client.id]


def test_bind_twice_to_the_same_uid(site):
    client = site.client()
    site.g.bind_uid(client.id, b"one")
    site.g.bind_uid(client.id, b"one")
    assert values(site.g.ids_by_uid(b"one")) == [client.id]
    site.g.send_to_uid([b"one"], b"x")
    assert received(site, client) == [b"x"]


def test_unbind_takes_whatever_uid_there_is(site):
    """The uid that UNBIND_UID names does not matter, as in PHP."""
    client = site.client()
    site.g.bind_uid(client.id, b"one")
    site.g.unbind_uid(client.id, b"another")
    assert site.g.ids_by_uid(b"one") == {}
    site.g.unbind_uid(client.id, b"one")
    site.g.unbind_uid(UNKNOWN, b"one")
    assert site.g.ids_by_uid(b"one") == {}


@pytest.mark.parametrize("empty", [b"", b"0"])
def test_an_empty_uid_is_refused(site, empty):
    client = site.client()
    site.g.bind_uid(client.id, b"kept")
    site.g.bind_uid(client.id, empty)
    assert site.g.ids_by_uid(empty) == {}
    assert values(site.g.ids_by_uid(b"kept")) == [client.id]
    if not site.gateway.is_oracle:
        assert site.counter("command_refused") == 1


def test_bind_of_an_unknown_connection_is_ignored(site):
    site.g.bind_uid(UNKNOWN, b"u")
    assert site.g.ids_by_uid(b"u") == {}


def test_a_closed_client_leaves_its_uid(site):
    a, b = site.client(), site.client()
    for client in (a, b):
        site.g.bind_uid(client.id, b"u")
    site.g.sync()
    a.close()
    site.worker.wait(ON_CLOSE, a.id)
    assert values(site.g.ids_by_uid(b"u")) == [b.id]


def test_uids_are_any_bytes(site):
    clients = [site.client() for _ in range(4)]
    uids = [b"a\0b", b"\xff\xfe", "\u4e2d\u6587".encode(), b"x" * 5000]
    for client, uid in zip(clients, uids):
        site.g.bind_uid(client.id, uid)
    for client, uid in zip(clients, uids):
        assert values(site.g.ids_by_uid(uid)) == [client.id]


def test_send_to_uid(site):
    clients = [site.client() for _ in range(4)]
    for client, uid in zip(clients, (b"a", b"a", b"b", b"c")):
        site.g.bind_uid(client.id, uid)
    site.g.send_to_uid([b"a", b"c", b"nobody"], b"x")
    assert [received(site, client) for client in clients] == [[b"x"], [b"x"], [], [b"x"]]


def test_send_to_uid_numbers_and_strings_are_the_same(site):
    client = site.client()
    site.g.bind_uid(client.id, b"123")
    site.g.send_to_uid([123], b"number")
    site.g.send_to_uid(["123"], b"string")
    site.g.send_to_uid({"k": 123}, b"object")
    site.g.send_to_uid(["0123", "123 ", "1234", -123], b"not this one")
    assert received(site, client) == [b"number", b"string", b"object"]


def test_send_to_uid_named_twice_sends_twice(site):
    client = site.client()
    site.g.bind_uid(client.id, b"u")
    site.g.send_to_uid([b"u", b"u"], b"x")
    assert received(site, client) == [b"x", b"x"]


def test_send_to_uid_unicode_escapes(site):
    client = site.client()
    site.g.bind_uid(client.id, "\u00e9\U0001f600/".encode())
    site.g.send_packet(packet(SEND_TO_UID, ext=b'["\\u00e9\\ud83d\\ude00\\/"]', body=b"x"))
    assert received(site, client) == [b"x"]


def test_batch_get_by_uid(site):
    a, b, c = (site.client() for _ in range(3))
    for client, uid in ((a, b"tom"), (b, b"tom"), (c, b"42")):
        site.g.bind_uid(client.id, uid)
    reply = site.g.batch_ids_by_uid([b"tom", b"42", b"nobody", b"tom"])
    assert sorted(reply, key=str) == sorted([b"tom", 42, b"nobody"], key=str)
    assert sorted(values(reply[b"tom"])) == ids([a, b])
    assert reply[42] == {0: c.id}
    assert reply[b"nobody"] == {}


def test_batch_get_by_uid_byte_for_byte(site):
    client = site.client()
    site.g.bind_uid(client.id, b"42")
    reply = site.g.query(packet(BATCH_GET_CLIENT_ID_BY_UID, ext=b'["42"]'))
    assert reply == b"a:1:{i:42;a:1:{i:0;i:%d;}}" % client.id
    assert site.g.query(packet(BATCH_GET_CLIENT_ID_BY_UID, ext=b"[42]")) == reply
    assert site.g.query(packet(BATCH_GET_CLIENT_ID_BY_UID, ext=b"[]")) == b"a:0:{}"
    assert site.g.query(packet(BATCH_GET_CLIENT_ID_BY_UID, ext=b'{"a":"x"}')) == b'a:1:{s:1:"x";a:0:{}}'
    assert site.g.query(packet(BATCH_GET_CLIENT_ID_BY_UID, ext=b'["042",-7,"-0"]')) == serialize({"042": [], -7: [], "-0": []})


# ---- groups


def test_join_and_leave(site):
    a, b = site.client(), site.client()
    site.g.join_group(a.id, b"room")
    site.g.join_group(b.id, b"room")
    site.g.join_group(b.id, b"hall")
    assert site.g.group_count(b"room") == 2
    assert sorted(values(site.g.group_list())) == [b"hall", b"room"]
    site.g.leave_group(a.id, b"room")
    assert site.g.group_count(b"room") == 1
    site.g.leave_group(b.id, b"room")
    assert site.g.group_count(b"room") == 0
    assert values(site.g.group_list()) == [b"hall"]


def test_join_twice_counts_once(site):
    client = site.client()
    site.g.join_group(client.id, b"room")
    site.g.join_group(client.id, b"room")
    assert site.g.group_count(b"room") == 1
    site.g.send_to_group([b"room"], b"x")
    assert received(site, client) == [b"x"]
    site.g.leave_group(client.id, b"room")
    assert site.g.group_count(b"room") == 0


@pytest.mark.parametrize("empty", [b"", b"0"])
def test_an_empty_group_is_refused(site, empty):
    client = site.client()
    site.g.join_group(client.id, empty)
    site.g.leave_group(client.id, empty)
    site.g.ungroup(empty)
    assert site.g.group_list() == {}
    assert site.g.group_sessions(empty) == {}
    if not site.gateway.is_oracle:
        assert site.counter("command_refused") == 3


def test_groups_of_unknown_connections_are_ignored(site):
    site.g.join_group(UNKNOWN, b"room")
    site.g.leave_group(UNKNOWN, b"room")
    assert site.g.group_list() == {}


def test_leave_a_group_that_one_is_not_in(site):
    client = site.client()
    site.g.leave_group(client.id, b"room")
    assert site.g.group_list() == {}


def test_group_count_bytes(site):
    client = site.client()
    site.client()
    site.g.join_group(client.id, b"room")
    assert site.g.query(packet(GET_CLIENT_COUNT_BY_GROUP, ext=b"room")) == b"i:1;"
    assert site.g.query(packet(GET_CLIENT_COUNT_BY_GROUP, ext=b"none")) == b"i:0;"
    assert site.g.query(packet(GET_CLIENT_COUNT_BY_GROUP, ext=b"0")) == b"i:0;"
    assert site.g.query(packet(GET_CLIENT_COUNT_BY_GROUP, ext=b"")) == b"i:2;"


def test_batch_group_count(site):
    a, b = site.client(), site.client()
    site.g.join_group(a.id, b"room")
    site.g.join_group(b.id, b"room")
    site.g.join_group(b.id, b"7")
    assert site.g.batch_group_count([b"room", "7", b"none"]) == {b"room": 2, 7: 1, b"none": 0}
    assert site.g.query(packet(BATCH_GET_CLIENT_COUNT_BY_GROUP, ext=b"[7]")) == b"a:1:{i:7;i:1;}"
    assert site.g.query(packet(BATCH_GET_CLIENT_COUNT_BY_GROUP, ext=b'["room"]')) == b'a:1:{s:4:"room";i:2;}'
    assert site.g.query(packet(BATCH_GET_CLIENT_COUNT_BY_GROUP, ext=b"[]")) == b"a:0:{}"


def test_group_names_that_look_like_integers_are_integers(site):
    client = site.client()
    names = [b"123", b"-5", b"0123", b"9223372036854775807", b"9223372036854775808", b"1.5", b" 1", b"-0", b"+1"]
    for name in names:
        site.g.join_group(client.id, name)
    expected = [123, -5, b"0123", 2**63 - 1, b"9223372036854775808", b"1.5", b" 1", b"-0", b"+1"]
    assert sorted(values(site.g.group_list()), key=str) == sorted(expected, key=str)
    groups = site.g.select(["groups"])[client.id][b"groups"]
    assert groups == array(zip(names, names))
    for name in names:
        assert site.g.group_count(name) == 1


def test_group_sessions(site):
    a, b, c = (site.client() for _ in range(3))
    site.g.set_session(b.id, {"n": 1})
    for client in (a, b):
        site.g.join_group(client.id, b"room")
    assert site.g.group_sessions(b"room") == {a.id: b"", b.id: serialize({"n": 1})}
    assert site.g.query(packet(GET_CLIENT_SESSIONS_BY_GROUP, ext=b"none")) == b"a:0:{}"
    assert site.g.query(packet(GET_CLIENT_SESSIONS_BY_GROUP, ext=b"")) == b"a:0:{}"
    assert site.g.is_online(c.id) == 1


def test_group_list_bytes(site):
    assert site.g.query(packet(GET_GROUP_ID_LIST)) == b"a:0:{}"
    client = site.client()
    site.g.join_group(client.id, b"room")
    assert site.g.query(packet(GET_GROUP_ID_LIST)) == b'a:1:{i:0;s:4:"room";}'


def test_send_to_group(site):
    clients = [site.client() for _ in range(4)]
    for i in (0, 1, 2):
        site.g.join_group(clients[i].id, b"room")
    site.g.send_to_group([b"room"], b"x", exclude={str(clients[1].id): clients[1].id})
    assert [received(site, client) for client in clients] == [[b"x"], [], [b"x"], []]


def test_a_client_in_two_named_groups_gets_it_twice(site):
    a, b = site.client(), site.client()
    site.g.join_group(a.id, b"one")
    site.g.join_group(a.id, b"two")
    site.g.join_group(b.id, b"two")
    site.g.send_to_group([b"one", b"two", b"none"], b"x")
    site.g.send_to_group([b"two", b"two"], b"y")
    assert received(site, a) == [b"x", b"x", b"y", b"y"]
    assert received(site, b) == [b"x", b"y", b"y"]


def test_send_to_group_numbers_and_strings_are_the_same(site):
    client = site.client()
    site.g.join_group(client.id, b"7")
    site.g.send_packet(packet(SEND_TO_GROUP, ext=b'{"group":[7],"exclude":null}', body=b"number"))
    site.g.send_packet(packet(SEND_TO_GROUP, ext=b'{"group":["7"],"exclude":[]}', body=b"string"))
    site.g.send_packet(packet(SEND_TO_GROUP, ext=b'{"exclude":{},"group":{"x":"7"}}', body=b"object"))
    assert received(site, client) == [b"number", b"string", b"object"]


def test_send_to_group_exclude_as_string_ids(site):
    a, b = site.client(), site.client()
    for client in (a, b):
        site.g.join_group(client.id, b"g")
    site.g.send_to_group([b"g"], b"x", exclude={str(a.id): str(a.id)})
    assert [received(site, client) for client in (a, b)] == [[], [b"x"]]


def test_ungroup(site):
    a, b = site.client(), site.client()
    for client in (a, b):
        site.g.join_group(client.id, b"room")
        site.g.join_group(client.id, b"hall")
    site.g.ungroup(b"room")
    site.g.ungroup(b"none")
    assert site.g.group_count(b"room") == 0
    assert values(site.g.group_list()) == [b"hall"]
    assert site.g.select(["groups"]) == {c.id: {b"groups": {b"hall": b"hall"}} for c in (a, b)}
    site.g.send_to_group([b"room"], b"x")
    assert received(site, a) == []
    site.g.join_group(a.id, b"room")
    assert site.g.group_count(b"room") == 1


def test_a_closed_client_leaves_its_groups(site):
    a, b = site.client(), site.client()
    for client in (a, b):
        site.g.join_group(client.id, b"room")
    site.g.join_group(a.id, b"alone")
    site.g.sync()
    a.close()
    site.worker.wait(ON_CLOSE, a.id)
    assert site.g.group_count(b"room") == 1
    assert values(site.g.group_list()) == [b"room"]


def test_many_groups_of_one_client(site):
    client = site.client()
    names = [b"group-%d" % i for i in range(500)]
    for name in names:
        site.g.join_group(client.id, name)
    assert set(values(site.g.group_list())) == set(names)
    for name in names[::2]:
        site.g.leave_group(client.id, name)
    assert set(site.g.select(["groups"])[client.id][b"groups"]) == set(names[1::2])


# ---- SELECT


def populate(site):
    """a: uid 1, group x; b: uid two, groups x and 5, session; c: nothing."""
    a, b, c = (site.client() for _ in range(3))
    site.g.bind_uid(a.id, b"1")
    site.g.bind_uid(b.id, b"two")
    for client, group in ((a, b"x"), (b, b"x"), (b, b"5")):
        site.g.join_group(client.id, group)
    site.g.set_session(b.id, {"n": 1})
    rows = {
        a.id: {b"groups": {b"x": b"x"}, b"uid": b"1", b"session": b""},
        b.id: {b"groups": {b"x": b"x", 5: b"5"}, b"uid": b"two", b"session": serialize({"n": 1})},
        c.id: {b"groups": None, b"uid": None, b"session": b""},
    }
    return (a, b, c), rows


FIELDS = ["groups", "uid", "session"]


def pick(rows, clients, fields=FIELDS):
    return {client.id: {f.encode(): rows[client.id][f.encode()] for f in fields} for client in clients}


@pytest.mark.parametrize("fields", [["groups"], ["uid"], ["session"], ["uid", "groups"], ["session", "uid", "groups"]], ids="-".join)
@pytest.mark.parametrize("where", [b"[]", b"{}", b"null", b'""', b"0"])
def test_select_all(site, fields, where):
    clients, rows = populate(site)
    ext = b'{"fields":%s,"where":%s}' % (json.dumps(fields).encode(), where)
    assert unserialize(site.g.query(packet(SELECT, ext=ext))) == pick(rows, clients, fields)


def test_select_where_groups(site):
    (a, b, c), rows = populate(site)
    assert site.g.select(FIELDS, {"groups": ["x"]}) == pick(rows, (a, b))
    assert site.g.select(FIELDS, {"groups": [5]}) == pick(rows, (b,))
    assert site.g.select(FIELDS, {"groups": ["5", "none", "x"]}) == pick(rows, (a, b))
    assert site.g.select(FIELDS, {"groups": []}) == {}
    assert site.g.select(FIELDS, {"groups": {"k": "x"}}) == pick(rows, (a, b))


def test_select_where_uid(site):
    (a, b, c), rows = populate(site)
    assert site.g.select(FIELDS, {"uid": ["1", "nobody"]}) == pick(rows, (a,))
    assert site.g.select(FIELDS, {"uid": [1, "two"]}) == pick(rows, (a, b))


def test_select_where_connection_id(site):
    (a, b, c), rows = populate(site)
    assert site.g.select(FIELDS, {"connection_id": [a.id, str(c.id), UNKNOWN]}) == pick(rows, (a, c))
    assert site.g.select(FIELDS, {"connection_id": {str(b.id): b.id}}) == pick(rows, (b,))


def test_select_conditions_add_up(site):
    (a, b, c), rows = populate(site)
    assert site.g.select(FIELDS, {"groups": ["5"], "uid": ["1"]}) == pick(rows, (a, b))
    assert site.g.select(FIELDS, {"uid": ["two"], "connection_id": [c.id, b.id], "groups": ["none"]}) == pick(rows, (b, c))


def test_select_without_fields(site):
    (a, b, c), rows = populate(site)
    assert site.g.select([], {"connection_id": [a.id]}) == {a.id: {}}
    assert site.g.select([], {"groups": ["5"]}) == {b.id: {}}
    assert site.g.select([]) == {}


def test_select_unknown_field_is_null(site):
    client = site.client()
    assert site.g.select(["nothing", "uid"]) == {client.id: {b"nothing": None, b"uid": None}}


def test_select_byte_for_byte(site):
    client = site.client()
    site.g.bind_uid(client.id, b"9")
    site.g.join_group(client.id, b"8")
    reply = site.g.query(packet(SELECT, ext=b'{"fields":["groups","uid","session"],"where":{"uid":["9"]}}'))
    assert reply == b'a:1:{i:%d;a:3:{s:6:"groups";a:1:{i:8;s:1:"8";}s:3:"uid";s:1:"9";s:7:"session";s:0:"";}}' % client.id


def test_select_groups_is_null_until_the_first_join_then_an_array(site):
    client = site.client()
    query = packet(SELECT, ext=b'{"fields":["groups"],"where":[]}')
    assert site.g.query(query) == b'a:1:{i:%d;a:1:{s:6:"groups";N;}}' % client.id
    site.g.join_group(client.id, b"g")
    site.g.leave_group(client.id, b"g")
    assert site.g.query(query) == b'a:1:{i:%d;a:1:{s:6:"groups";a:0:{}}}' % client.id
    site.g.join_group(client.id, b"g")
    site.g.ungroup(b"g")
    assert site.g.query(query) == b'a:1:{i:%d;a:1:{s:6:"groups";a:0:{}}}' % client.id


def test_select_uid_is_null_after_unbind(site):
    client = site.client()
    site.g.bind_uid(client.id, b"u")
    site.g.unbind_uid(client.id)
    assert site.g.select(["uid"]) == {client.id: {b"uid": None}}


@pytest.mark.parametrize("ext", [b"", b"[]", b"null", b"{", b"0", b'""', b"false"])
def test_select_with_nonsense_answers_an_empty_array(site, ext):
    site.client()
    assert site.g.query(packet(SELECT, ext=ext)) == b"a:0:{}"


@pytest.mark.tgg_only  # PHP warns its way to an answer or ends
@pytest.mark.parametrize("ext", [b'{"fields":5}', b'{"where":{"groups":5},"fields":["uid"]}', b'{"where":[[]],"fields":["uid"]}', b'"x"', b"[1]",
                                 b'{"fields":[[]],"where":[]}', b'{"where":{"uid":[[]]},"fields":["uid"]}', b'{"where":5,"fields":{}}'])
def test_select_with_the_wrong_shape_is_answered(site, ext):
    """Something must come, or every later reply on the link would be taken for another's."""
    client = site.client()
    assert isinstance(unserialize(site.g.query(packet(SELECT, ext=ext))), dict)
    assert site.g.is_online(client.id) == 1


@pytest.mark.tgg_only
@pytest.mark.parametrize("cmd", [BATCH_GET_CLIENT_ID_BY_UID, BATCH_GET_CLIENT_COUNT_BY_GROUP])
@pytest.mark.parametrize("ext", [b"", b"{", b"null", b"5", b'"x"', b"[[]]", b'[{"a":1}]'])
def test_batch_queries_with_nonsense_are_answered(site, cmd, ext):
    client = site.client()
    assert isinstance(unserialize(site.g.query(packet(cmd, ext=ext))), dict)
    assert site.g.is_online(client.id) == 1


# ---- how packets arrive


def test_unknown_commands_are_skipped(site):
    for cmd in (0, 2, 17, 29, 99, 206, 255):
        site.g.send_packet(packet(cmd, 1, ext=b"e", body=b"b"))
    assert site.g.is_online(UNKNOWN) == 0
    if not site.gateway.is_oracle:
        assert site.counter("command_unknown") == 7


def test_a_packet_byte_by_byte(site):
    client = site.client()
    data = packet(JOIN_GROUP, client.id, ext=b"room").encode() + packet(SEND_TO_GROUP, ext=b'{"group":["room"],"exclude":null}', body=b"x").encode()
    for i in range(len(data)):
        site.g.send_bytes(data[i : i + 1])
    assert client.read_message() == b"x"


def test_many_packets_in_one_write(site):
    client = site.client()
    packets = [packet(SEND_TO_ONE, client.id, body=b"%d" % i) for i in range(2000)]
    site.g.send_bytes(b"".join(p.encode() for p in packets))
    for i in range(2000):
        assert client.read_message() == b"%d" % i


def test_packets_cut_at_any_place(site):
    client = site.client()
    rng = random.Random(7)
    bodies = [b"%d:" % i + b"x" * rng.randrange(300) for i in range(300)]
    data = b"".join(packet(SEND_TO_ONE, client.id, body=body).encode() for body in bodies)
    at = 0
    while at < len(data):
        size = rng.randrange(1, 400)
        site.g.send_bytes(data[at : at + size])
        at += size
    for body in bodies:
        assert client.read_message() == body


def test_a_large_packet(site):
    client = site.client()
    body = b"0123456789" * 90_000
    site.g.send_to_one(client.id, body)
    assert client.read_message() == body


def test_read_your_writes_on_one_link(site):
    client = site.client()
    for i in range(50):
        site.g.bind_uid(client.id, b"uid-%d" % i)
        assert values(site.g.ids_by_uid(b"uid-%d" % i)) == [client.id]
        site.g.join_group(client.id, b"group-%d" % i)
        assert site.g.group_count(b"group-%d" % i) == 1
        site.g.set_session(client.id, {"i": i})
        assert site.g.session(client.id) == {b"i": i}


def test_a_thousand_mixed_queries_are_answered_in_order(site):
    """Commands and queries in one stream, written without waiting: each reply tells what stood at its place."""
    clients = [site.client() for _ in range(8)]
    rng = random.Random(42)
    uid_of, groups_of, session_of = {}, {c.id: set() for c in clients}, {c.id: b"" for c in clients}
    stream, expected = [], []
    for step in range(1000):
        connection_id = rng.choice(clients).id
        uid, group = b"u%d" % rng.randrange(4), b"g%d" % rng.randrange(4)
        change = rng.randrange(5)
        if change == 0:
            stream.append(packet(BIND_UID, connection_id, ext=uid))
            uid_of[connection_id] = uid
        elif change == 1:
            stream.append(packet(UNBIND_UID, connection_id, ext=uid))
            uid_of.pop(connection_id, None)
        elif change == 2:
            stream.append(packet(JOIN_GROUP, connection_id, ext=group))
            groups_of[connection_id].add(group)
        elif change == 3:
            stream.append(packet(LEAVE_GROUP, connection_id, ext=group))
            groups_of[connection_id].discard(group)
        else:
            session_of[connection_id] = serialize({"step": step})
            stream.append(packet(SET_SESSION, connection_id, ext=session_of[connection_id]))
        query = rng.randrange(7)
        if query == 0:
            stream.append(packet(GET_CLIENT_ID_BY_UID, ext=uid))
            expected.append(sorted(i for i, u in uid_of.items() if u == uid))
        elif query == 1:
            stream.append(packet(GET_CLIENT_COUNT_BY_GROUP, ext=group))
            expected.append(sum(group in g for g in groups_of.values()))
        elif query == 2:
            stream.append(packet(GET_SESSION_BY_CLIENT_ID, connection_id))
            expected.append(unserialize(session_of[connection_id]) if session_of[connection_id] else {})
        elif query == 3:
            stream.append(packet(IS_ONLINE, rng.choice([connection_id, UNKNOWN])))
            expected.append(int(stream[-1].connection_id == connection_id))
        elif query == 4:
            stream.append(packet(GET_GROUP_ID_LIST))
            expected.append(sorted(set().union(*groups_of.values())))
        elif query == 5:
            stream.append(packet(GET_ALL_CLIENT_SESSIONS))
            expected.append(dict(session_of))
        else:
            stream.append(packet(BATCH_GET_CLIENT_COUNT_BY_GROUP, ext=to_json([group])))
            expected.append({group: sum(group in g for g in groups_of.values())})
    assert len(expected) == 1000
    site.g.send_bytes(b"".join(p.encode() for p in stream))
    for step, want in enumerate(expected):
        got = unserialize(site.g.read_reply())
        if isinstance(want, list):
            got = sorted(values(got))
        assert got == want, step


def test_two_links_do_not_mix_their_replies(site):
    client = site.client()
    first, second = site.client_link(), site.client_link()
    for i in range(100):
        first.send_packet(packet(IS_ONLINE, client.id))
        second.send_packet(packet(GET_CLIENT_COUNT_BY_GROUP, ext=b""))
    for i in range(100):
        assert first.read_reply() == b"i:1;"
        assert second.read_reply() == b"i:1;"


def test_queries_on_a_worker_link(site):
    worker = site.worker
    assert unserialize(worker.query(packet(GET_CLIENT_COUNT_BY_GROUP))) == 0
    assert worker.query(packet(GET_GROUP_ID_LIST)) == b"a:0:{}"


def test_a_reply_larger_than_any_buffer(site):
    client = site.client()
    session = b"s" * 4_000_000
    site.g.set_session(client.id, session)
    for _ in range(3):
        site.g.send_packet(packet(GET_SESSION_BY_CLIENT_ID, client.id))
    for _ in range(3):
        assert site.g.read_reply() == session


def test_flags_and_other_head_fields_do_not_matter_to_commands(site):
    client = site.client()
    site.g.send_packet(Packet(JOIN_GROUP, client.id, b"g", b"N;", 0, 1, 2, 3, 4, 5))
    site.g.send_packet(Packet(SEND_TO_ONE, client.id, b"ignored", b"x", FLAG_SCALAR, 0xFFFFFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFF, 0xFFFF))
    assert client.read_message() == b"x"
    assert site.g.group_count(b"g") == 1


def test_commands_after_the_client_has_gone_are_ignored(site):
    client = site.client()
    client.close()
    site.worker.wait(ON_CLOSE, client.id)
    site.g.send_to_one(client.id, b"x")
    site.g.send_to_all(b"x", connections=[client.id])
    site.g.join_group(client.id, b"g")
    site.g.bind_uid(client.id, b"u")
    site.g.set_session(client.id, {"a": 1})
    site.g.update_session(client.id, {"a": 1})
    site.g.unbind_uid(client.id)
    site.g.leave_group(client.id, b"g")
    site.g.kick(client.id, b"x")
    site.g.destroy(client.id)
    assert site.g.group_list() == {}
    assert site.g.ids_by_uid(b"u") == {}
    assert site.g.all_sessions() == {}


@pytest.mark.tgg_only  # a known fault of PHP's: raw bytes go out before the handshake is done
def test_raw_bodies_wait_for_the_handshake_too(site):
    client = site.client(open=False)
    site.g.send_to_one(client.id, server_frame(TEXT, b"raw"), raw=True)
    site.g.sync()
    client.handshake()
    assert client.read_message() == b"raw"


def test_reply_lengths_do_not_count_themselves(site):
    site.g.send_packet(packet(IS_ONLINE, UNKNOWN))
    assert site.g.read_exactly(8, time.monotonic() + 20) == struct.pack(">I", 4) + b"i:0;"


def test_the_raw_flag_does_not_matter_to_kick(site):
    """As in PHP: what KICK sends is always framed."""
    client = site.client()
    site.g.send_packet(Packet(KICK, client.id, body=b"bye", flag=FLAG_SCALAR | FLAG_RAW))
    expect_kicked(client, [b"bye"])
