// SPDX-License-Identifier: MIT
/* What one process hands to another when it takes over connections (transfer.h); docs/TRANSFER-FORMAT.md is
 * made from this list. Of each record: NAME(U, B): U(tag, field, "...") an unsigned number, B(tag, field,
 * "...") bytes. What is 0 or empty is not written, and what is not there reads as 0 or empty.
 *
 * Rules for changes: a tag is never used again for something else; a new field gets the next tag and must
 * mean, when it is missing, what was so before it came; the version of the record grows with each new field
 * (for people: readers skip what they do not know). What a reader MUST understand is a new record type
 * instead: an unknown type is refused, and the upgrade with it. tests/transfer/ keeps records of every
 * released version. */
#pragma once

// clang-format off
/* X(name, type, version, fields, "what it is") */
#define TRANSFER_RECORDS(X) \
    X(shard, 1, 1, TRANSFER_SHARD, "A shard that hands over. The first of its records, to every shard that takes over.") \
    X(worker, 2, 1, TRANSFER_WORKER, "A business worker whose link this shard has, or one that is gone and that clients of it are still bound to. To every shard that takes over.") \
    X(link, 3, 1, TRANSFER_LINK, "An internal connection, of a worker or a GatewayClient. Its descriptor goes with it.") \
    X(client, 4, 1, TRANSFER_CLIENT, "A client connection. Its descriptor goes with it.") \
    X(ws_decoder, 5, 1, TRANSFER_WS_DECODER, "Within a client: the decoder of WebSocket frames in the middle of a message or frame (proto/ws/frame.h).") \
    X(deflate, 6, 1, TRANSFER_DEFLATE, "Within a client: permessage-deflate as it was agreed (RFC 7692).") \
    X(homeless, 7, 1, TRANSFER_HOMELESS, "An event of a client that is gone, for which no worker is there.") \
    X(end, 8, 1, TRANSFER_END, "There is no more of that phase from this shard to this one.") \
    X(tls, 9, 1, TRANSFER_TLS_CONN, "Within a client: a TLS connection whose handshake is done (tls/tls.h). It holds keys: who has it can read and forge what is said.") \
    X(register_peer, 12, 1, TRANSFER_REGISTER_PEER, "A connection to the register; gateways first, in the order of their coming. Its descriptor goes with it.") \
    X(register_listener, 13, 1, TRANSFER_REGISTER_LISTENER, "A socket that the register listens on. Its descriptor goes with it.") \
    X(register_word, 14, 1, TRANSFER_REGISTER_WORD, "What the two registers of an upgrade say to each other, in both directions.") \
    X(offer, 16, 1, TRANSFER_OFFER, "Between supervisors (supervisor/upgrade_wire.h), as those that follow: what the node is that is to be taken over.") \
    X(offer_socket, 17, 1, TRANSFER_OFFER_SOCKET, "A listening socket; its descriptors go with it, of a listener one for each edge shard that has one.") \
    X(offer_listener, 18, 1, TRANSFER_OFFER_LISTENER, "A listener of the configuration that the node runs with.") \
    X(offer_ids, 19, 1, TRANSFER_OFFER_IDS, "Connection ids of a shard number, as of the last record that there is; also of shards that an earlier run had.") \
    X(course, 20, 1, TRANSFER_COURSE, "A step of the upgrade has been taken, or is to be.")

#define TRANSFER_SHARD(U, B) \
    U(1, shard, "its number") \
    U(2, next_seq, "sequence of its next connection id") \
    B(3, left_unix_s, "64 times u64, little-endian: when each block of ids was left (common/shard_shm.h)") \
    B(4, ages, "pairs of u64, little-endian, the oldest first: how many ids before next_seq, and the unix time in ms at which that one was next") \
    B(5, counters, "a list (transfer_list): name, value as 8 bytes little-endian, name, value, ...; gauges are not among them") \
    U(6, drained, "1: it takes no new clients (tgg ctl drain); 2: nor links (tgg ctl evacuate)") \
    U(7, uid_binds, "the number of the last bind of a uid (one_connection_per_uid), of the node")

#define TRANSFER_WORKER(U, B) \
    U(1, number, "by which records of clients from this shard's node name it") \
    B(2, key, "remote ip + ':' + worker key") \
    U(3, gone, "1: its link has ended") \
    U(4, draining, "1: nobody is bound to it any more (tgg ctl drain)")

#define TRANSFER_LINK(U, B) \
    B(1, peer, "address (transfer_put_address)") \
    U(2, authorized, "1: it has shown the secret key, or none is needed") \
    B(3, worker, "the key of the worker that it is; empty: a GatewayClient, or not said yet") \
    U(4, decided, "1: it has said what it is") \
    U(5, number, "of the worker, as in its record") \
    B(6, in, "read and not executed yet; whole and unfinished packets") \
    B(7, out, "a list: what waits to be written, in order; of each element the first byte is its kind (0: events, whole packets; 1: replies), the rest its bytes") \
    U(8, out_written, "bytes of the first element that are written already") \
    U(9, auth_left_ms, "how long it still has to show the key") \
    U(10, since_unix_ms, "accepted") \
    U(11, read_ago_ms, "since its last byte") \
    U(12, packets_in, "for figures, as the next three") \
    U(13, bytes_in, "") \
    U(14, events_out, "") \
    U(15, bytes_out, "")

#define TRANSFER_CLIENT(U, B) \
    U(1, id, "connection id; 0: it has none yet, or no more") \
    U(2, state, "0 waits for a PROXY header, 1 TLS handshake that has not begun, 2 WebSocket handshake, 3 open, 4 closing") \
    B(3, listener, "name of its listener") \
    B(4, peer, "address of the client, as found out so far") \
    U(5, gateway_port, "") \
    U(6, flags, "a bit each, see enum transfer_client_flag") \
    B(7, uid, "") \
    U(8, has_uid, "1: uid is set (it may be empty)") \
    B(9, groups, "a list: names") \
    B(10, session, "") \
    U(11, worker, "1 + number of the worker that it is bound to; 0: none") \
    B(12, parked, "packets that wait because no worker is there, one behind the other") \
    U(13, parked_events, "how many these are") \
    U(14, parked_messages, "of them, messages") \
    U(15, parked_moved, "so many of the first had been handed to a worker once") \
    U(16, parked_ago_ms, "since the first message among them") \
    U(17, state_ago_ms, "since the begin of its state; open: since its last heartbeat") \
    U(18, read_ago_ms, "since its last byte") \
    U(19, silent_beats, "heartbeats since it has said something, plus 1; 0: none has been sent") \
    U(20, control_frames, "pings and pongs in this second") \
    B(21, raw, "read and not decoded yet") \
    U(22, raw_scanned, "bytes of raw that the decoder has looked at") \
    B(23, message, "websocket: what is there of a message") \
    U(24, message_compressed, "1: message is compressed") \
    U(25, message_ago_ms, "since the message began") \
    B(26, ws_decoder, "a record ws_decoder, without its head; empty: between messages") \
    B(27, out, "a list: what waits to be sent, in order; of each element the first byte has flags (1: never dropped, 2: part of a compressed stream), the rest is as it goes to the client (with TLS: before it is encrypted)") \
    U(28, out_written, "bytes of the first element that are sent already") \
    B(29, deflate, "a record deflate, without its head; empty: no compression was agreed") \
    B(30, tls, "a record tls (of tls/), without its head; empty: a plain connection, or nothing of the handshake was answered yet") \
    B(31, tls_in, "ciphertext that is not a whole record yet") \
    U(32, rate_left_ms, "it is over its rate: not read for so long") \
    U(33, record_ago_ms, "since the incomplete TLS record began")

#define TRANSFER_WS_DECODER(U, B) \
    U(1, opcode, "of the message under way") \
    U(2, frame, "opcode and flags of the frame whose payload is being read") \
    U(3, first, "1: no piece of the message has been handed out") \
    U(4, text_state, "of the UTF-8 check (base/utf8.h)") \
    U(5, compressed, "1: the message is") \
    B(6, header, "bytes of an incomplete frame header") \
    B(7, key, "masking key, turned to the next byte") \
    U(8, fragments, "frames of the message that have begun") \
    U(9, left, "bytes of the frame's payload that are still to come") \
    U(10, message_len, "bytes of the message under way, those to come of this frame included") \
    B(11, control, "payload of an incomplete control frame")

#define TRANSFER_DEFLATE(U, B) \
    U(1, takeover, "1: ours may refer to earlier messages") \
    U(2, client_takeover, "1: the client's may") \
    U(3, window_bits, "") \
    U(4, client_window_bits, "") \
    B(5, window, "the last bytes that the client sent, decompressed: its next message may refer to them. Ours begins anew, which the receiver does not notice")

#define TRANSFER_HOMELESS(U, B) \
    B(1, packet, "whole") \
    U(2, counted, "1: as handed to a worker, before") \
    U(3, ago_ms, "since the first message among them")

#define TRANSFER_END(U, B) \
    U(1, phase, "1: workers and links; 2: clients and all the rest") \
    U(2, records, "how many records there were in this phase to this shard, without this one") \
    U(3, workers, "phase 1: workers whose links this shard had, to whichever shard they go")

#define TRANSFER_TLS_CONN(U, B) \
    U(1, version, "0x0303 TLS 1.2, 0x0304 TLS 1.3") \
    U(2, suite, "cipher suite, as IANA numbers it") \
    B(3, read_secret, "of what the client sends; TLS 1.3: the traffic secret, TLS 1.2: key, then the IV as it comes out of the key block") \
    B(4, write_secret, "of what goes to the client, likewise") \
    U(5, read_seq, "sequence number of the client's next record") \
    U(6, write_seq, "of the next record to the client") \
    U(7, nonce_base, "TLS 1.2 with GCM: the explicit nonce of the record number 0 to the client; each record has one more") \
    U(8, fragment_max, "bytes in a record, when the client asked for a maximum (RFC 6066 section 4)") \
    U(9, flags, "1 the client has ended its side, 2 we have ended ours, 4 nothing is read any more, 8 an earlier session was resumed, 16 a KeyUpdate is owed, 32 a no_renegotiation is owed") \
    U(10, idle_records, "records without data since the last with data") \
    B(11, message, "begin of an incomplete handshake message of the client") \
    U(12, message_left, "TLS 1.2: bytes of it that are still to come") \
    B(13, in, "ciphertext of records that have not been read: usually a part of one") \
    B(14, out, "ciphertext that waits to be sent") \
    B(15, server_name, "that the client asked for (SNI)") \
    B(16, client_subject, "of the client's certificate, shortened (RFC 2253)")

#define TRANSFER_REGISTER_PEER(U, B) \
    B(1, peer, "address (transfer_put_address)") \
    B(2, address, "of a gateway: what it has registered; empty: it is none") \
    U(3, worker, "1: it gets the list") \
    B(4, in, "an incomplete line") \
    B(5, out, "what it has not taken yet") \
    U(6, auth_left_ms, "of one that has not said yet what it is: how long it still has")

#define TRANSFER_REGISTER_LISTENER(U, B) \
    U(1, kind, "0: gateways and workers come to it; 1: tgg upgrade --register does") \
    B(2, path, "of kind 1")

#define TRANSFER_REGISTER_WORD(U, B) \
    U(1, word, "1 ready (new), 2 taken: all is there (new), 3 go (old), 4 serving (new), 5 failed (new)") \
    U(2, peers, "with taken: how many connections") \
    B(3, text, "with ready: its version; with failed: why")

#define TRANSFER_OFFER(U, B) \
    U(1, n_shards, "") \
    U(2, edges, "shards that take clients, a bit each") \
    U(3, links, "shards that take workers, a bit each") \
    B(4, home, "64 * 64 bytes: which shard has which ids (common/node_shared.h)") \
    U(5, clients, "client connections at this moment") \
    U(6, connections, "internal connections at this moment") \
    U(7, deadline_ns, "when the upgrade is given up, CLOCK_MONOTONIC") \
    B(8, version, "of the program, for people") \
    B(9, runtime_dir, "") \
    U(10, lan_ip, "in client ids, host order") \
    U(11, start_port, "likewise")

#define TRANSFER_OFFER_SOCKET(U, B) \
    U(1, kind, "0 of a listener, 1 internal port, 2 Unix socket of the admin process, 3 its port, 4 upgrade.sock") \
    B(2, address, "as configured; unix:PATH") \
    U(3, port, "") \
    U(4, backlog, "") \
    U(5, mode, "of the file of a Unix socket") \
    U(6, device, "of that file") \
    U(7, inode, "of that file")

#define TRANSFER_OFFER_LISTENER(U, B) \
    B(1, name, "") \
    B(2, protocol, "") \
    B(3, address, "") \
    U(4, port, "") \
    U(5, clients, "1: it may have clients")

#define TRANSFER_OFFER_IDS(U, B) \
    U(1, shard, "") \
    U(2, next_seq, "sequence of its next connection id") \
    B(3, left_unix_s, "as in shard")

#define TRANSFER_COURSE(U, B) \
    U(1, step, "enum upgrade_step") \
    U(2, phase, "imported") \
    U(3, n, "hold: deadline of the pause, CLOCK_MONOTONIC in ns") \
    U(4, clients, "exported, imported: handed over so far") \
    U(5, links, "likewise") \
    B(6, text, "for people") \
    B(7, registers, "leaving: a list, addresses of the registers that know the gateway")
// clang-format on
