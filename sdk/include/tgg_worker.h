// SPDX-License-Identifier: MIT
#ifndef TGG_WORKER_H
#define TGG_WORKER_H
// libtggworker: write a business worker in C for tgg, or for any gateway of a GatewayWorker cluster.
//
// A worker connects to one or several Registers, learns from them the internal addresses of all gateways,
// keeps one TCP link to each, and receives the events of the clients that the gateways bind to it. What it
// does is said to the gateways through the tggw_* calls below, which are those of PHP's
// GatewayWorker\Lib\Gateway. The gateways hold all state (who is online, uids, groups, sessions); the worker
// may restart at any time.
//
// Threads: a struct tggw belongs to one thread; none of its calls may run at the same time as another one on
// the
//     same object. tggw_stop() is the exception: any thread and any signal handler may call it. Different
//     objects share nothing. The tggw_value_*, tggw_session_* and list functions keep no state.
// Errors: functions that return int return 0 (or a count) on success and a negative errno on failure. Common
// ones:
//     -EINVAL a malformed client_id, an empty uid or group (as in PHP "" and "0" are empty), text that has to
//     travel as JSON and is not UTF-8; -ENOTCONN no link to that client's gateway (or to any gateway);
//     -ENOBUFS the output buffer to that gateway is full, the message was not queued; -EMSGSIZE longer than a
//     packet may be; -ENOMEM. A message to several gateways is tried on all of them; the first error is
//     returned.
// Blocking: nothing blocks but the queries (see there), tggw_run() and tggw_poll(), and the name look-up of a
//     Register or gateway that is given by host name and not by number.
// Order: calls take effect at a gateway in the order in which they were made, per gateway. A query leaves on
// a
//     connection of its own, after what was queued before it has been handed to the kernel.
// Strings: client_id is 20 hexadecimal digits with a NUL. uid and group are NUL-terminated. Payloads and
// sessions
//     are bytes with a length. Everything passed in is copied before the call returns.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define TGGW_API __attribute__((visibility("default")))
#else
#define TGGW_API
#endif

#define TGGW_CLIENT_ID_LEN  20
#define TGGW_CLIENT_ID_SIZE 21 // with the NUL

// Flags of the send calls.
#define TGGW_RAW 0x02u // the payload is already framed for the client: the gateway sends it as it is

struct tggw;

// The client of the event that is being delivered. Valid, with all it points at, until the callback returns.
struct tggw_client {
    char client_id[TGGW_CLIENT_ID_SIZE];
    uint8_t body_serialized; // 1: the event's bytes are PHP serialize() of a value, 0: a plain string
    uint16_t client_port;
    uint32_t client_ip;    // IPv4 of the client, host byte order
    uint16_t gateway_port; // the listening port that the client came to
    uint16_t local_port;   // with local_ip: the internal address of the gateway, as in client_id
    uint32_t local_ip;     // host byte order
    uint32_t connection_id;
    const void *session; // PHP serialize() of an array, as last set; NULL when empty
    size_t session_len;
    void *link; // of the library
};

enum tggw_log_level { TGGW_LOG_ERROR, TGGW_LOG_WARNING, TGGW_LOG_INFO };

// All may be NULL. They run on the worker's thread, inside tggw_run() or tggw_poll(), and may call everything
// but tggw_run, tggw_poll, tggw_flush and tggw_free. `user` is that of the configuration.
struct tggw_callbacks {
    // Before the first connection is tried, and after the loop of tggw_run() has ended.
    void (*on_worker_start)(struct tggw *w, void *user);
    void (*on_worker_stop)(struct tggw *w, void *user);
    // A client was accepted (for WebSocket: usually before its handshake; what is sent now waits for it).
    void (*on_connect)(struct tggw *w, const struct tggw_client *c, void *user);
    // The handshake is done; data is serialize() of ["get" => [...], "server" => [...], "cookie" => [...]],
    // which tggw_value_parse() reads.
    void (*on_websocket_connect)(struct tggw *w, const struct tggw_client *c, const void *data, size_t len,
                                 void *user);
    void (*on_message)(struct tggw *w, const struct tggw_client *c, const void *data, size_t len, void *user);
    // The client is gone: sending to it reaches nobody. c->session is the last one.
    void (*on_close)(struct tggw *w, const struct tggw_client *c, void *user);
    // The link to a gateway has come up or gone. address is "ip:port".
    void (*on_gateway)(struct tggw *w, const char *address, bool up, void *user);
    // One line without its newline. NULL: standard error.
    void (*on_log)(struct tggw *w, enum tggw_log_level level, const char *line, void *user);
};

// Zero means the default everywhere. Copied by tggw_new().
struct tggw_config {
    const char *const *registers; // "host:port" or "[ipv6]:port"; of several, each is told everything
    size_t register_count;
    const char *const *gateways; // internal addresses to connect to without asking a Register
    size_t gateway_count;
    const char *name;          // worker_key is "name:id", and must be unique among the workers of one machine
    unsigned id;               // (a second one with the same key throws the first out); default "tggworker"
    const char *secret_key;    // of the Registers and gateways; default ""
    size_t out_bytes_max;      // queued towards one gateway before -ENOBUFS; default 64 MiB
    size_t packet_bytes_max;   // a longer packet from a gateway closes the link; default 64 MiB
    size_t reply_bytes_max;    // a longer reply to a query is an error; default 256 MiB
    unsigned query_timeout_ms; // default 5000
    unsigned reconnect_ms;     // after a lost or failed connection; default 1000
    unsigned register_ping_ms; // ping to a Register that is not on 127.0.0.1; default 25000
    // Send and query only, as GatewayClient does: the gateways bind no clients to it and no client events
    // come.
    bool client_only;
    struct tggw_callbacks cb;
    void *user;
};

struct tggw_stats {
    uint64_t packets_in, packets_out;
    uint64_t bytes_in, bytes_out;
    uint64_t reads, writes;   // system calls on gateway links
    uint64_t no_buffer;       // messages refused with -ENOBUFS
    uint64_t links_lost;      // gateway links that were up and closed
    uint64_t protocol_errors; // links closed because of what came over them
    size_t gateways_up;
};

// ---- life
// -------------------------------------------------------------------------------------------------------

// Allocates; connects nothing yet. -EINVAL: an address that is not host:port, or neither Register nor
// gateway.
TGGW_API int tggw_new(const struct tggw_config *config, struct tggw **ret_w);
// Closes all connections without sending what is still queued; pending asynchronous queries call back with
// -ECANCELED. NULL does nothing. Not from a callback.
TGGW_API void tggw_free(struct tggw *w);

// Runs until tggw_stop(), then sends what is queued for up to 1 s. 0, or the error of epoll.
TGGW_API int tggw_run(struct tggw *w);
// Ends tggw_run() at the end of the current turn. Thread-safe and async-signal-safe.
TGGW_API void tggw_stop(struct tggw *w);

// To embed in another event loop: wait until tggw_fd() is readable or tggw_timeout_ms() have passed (-1: no
// limit), then call tggw_poll(w, 0). The first tggw_poll() starts the worker. What is sent outside a callback
// leaves with the next tggw_poll() or with tggw_flush().
TGGW_API int tggw_fd(const struct tggw *w);
TGGW_API int tggw_timeout_ms(struct tggw *w);
// One turn: waits up to timeout_ms (-1: until something happens), delivers events, writes once per gateway.
// The number of events handled, or a negative errno.
TGGW_API int tggw_poll(struct tggw *w, int timeout_ms);
// Writes what is queued, as far as the kernel takes it.
TGGW_API void tggw_flush(struct tggw *w);

TGGW_API void tggw_get_stats(const struct tggw *w, struct tggw_stats *ret_stats);
TGGW_API void *tggw_user(const struct tggw *w);
TGGW_API size_t tggw_gateways_up(const struct tggw *w);

// ---- to clients
// -------------------------------------------------------------------------------------------------

// sendToCurrentClient: to the client of the event being delivered; the cheapest send.
TGGW_API int tggw_send_to_current(struct tggw *w, const struct tggw_client *c, const void *data, size_t len,
                                  unsigned flags);
TGGW_API int tggw_send_to_client(struct tggw *w, const char *client_id, const void *data, size_t len,
                                 unsigned flags);
TGGW_API int tggw_send_to_all(struct tggw *w, const void *data, size_t len, unsigned flags);
// sendToAll with a list. An empty list sends nothing; malformed ids are passed over.
TGGW_API int tggw_send_to_clients(struct tggw *w, const char *const *client_ids, size_t count,
                                  const void *data, size_t len, unsigned flags);
// sendToAll with exclusions.
TGGW_API int tggw_send_to_all_except(struct tggw *w, const char *const *client_ids, size_t count,
                                     const void *data, size_t len, unsigned flags);
TGGW_API int tggw_send_to_uid(struct tggw *w, const char *uid, const void *data, size_t len, unsigned flags);
TGGW_API int tggw_send_to_uids(struct tggw *w, const char *const *uids, size_t count, const void *data,
                               size_t len, unsigned flags);
TGGW_API int tggw_send_to_group(struct tggw *w, const char *group, const void *data, size_t len,
                                unsigned flags);
// A client in two of the groups gets the message twice. exclude may be NULL.
TGGW_API int tggw_send_to_groups(struct tggw *w, const char *const *groups, size_t count,
                                 const char *const *exclude, size_t exclude_count, const void *data,
                                 size_t len, unsigned flags);
// Closes after everything sent so far, and data (unless NULL), has been written to the client.
TGGW_API int tggw_close_client(struct tggw *w, const char *client_id, const void *data, size_t len);
// Closes at once; what is queued for the client is lost.
TGGW_API int tggw_destroy_client(struct tggw *w, const char *client_id);

// ---- uids, groups, sessions
// -------------------------------------------------------------------------------------

// A client has one uid: a second bind moves it. A uid may have many clients.
TGGW_API int tggw_bind_uid(struct tggw *w, const char *client_id, const char *uid);
TGGW_API int tggw_unbind_uid(struct tggw *w, const char *client_id, const char *uid);
TGGW_API int tggw_join_group(struct tggw *w, const char *client_id, const char *group);
TGGW_API int tggw_leave_group(struct tggw *w, const char *client_id, const char *group);
// Dissolves the group at all gateways.
TGGW_API int tggw_ungroup(struct tggw *w, const char *group);
// session: serialize() of an array (tggw_session_build() makes one of strings), or empty. set replaces,
// update merges as array_replace_recursive does. Events of the client carry it from then on.
TGGW_API int tggw_set_session(struct tggw *w, const char *client_id, const void *session, size_t len);
TGGW_API int tggw_update_session(struct tggw *w, const char *client_id, const void *session, size_t len);

// ---- PHP serialized values
// --------------------------------------------------------------------------------------

enum tggw_type {
    TGGW_NULL,
    TGGW_BOOL,   // i
    TGGW_INT,    // i
    TGGW_DOUBLE, // d
    TGGW_STRING, // s, len
    TGGW_ARRAY,  // count; s and len are its elements' bytes, for struct tggw_iter
    TGGW_OTHER,  // an object, enum case or reference: s and len are its serialized bytes
};

// A view into the bytes that were parsed: valid as long as those.
struct tggw_value {
    enum tggw_type type;
    int64_t i;
    double d;
    const char *s;
    size_t len;
    size_t count;
};

// Walks an array. Keys are TGGW_INT or TGGW_STRING.
struct tggw_iter {
    const char *pos, *end;
    size_t left;
};

// Reads one value from the start of data and checks all of it (no length in it is believed, nesting is
// limited to 128). -EBADMSG: not serialize() data. ret_used (may be NULL): the bytes it took.
TGGW_API int tggw_value_parse(const void *data, size_t len, struct tggw_value *ret_value, size_t *ret_used);
TGGW_API void tggw_iter_init(struct tggw_iter *it, const struct tggw_value *array);
// 1 and the next element, 0 at the end (or when the value was no array), -EBADMSG for damaged bytes.
TGGW_API int tggw_iter_next(struct tggw_iter *it, struct tggw_value *ret_key, struct tggw_value *ret_value);
// The element under a key; as in PHP the key "12" finds the integer 12. -ENOENT: none, or not an array.
TGGW_API int tggw_value_find(const struct tggw_value *array, const char *key, struct tggw_value *ret_value);
// Is the value (a key, a uid) this text? An integer is compared by its decimal form.
TGGW_API bool tggw_value_is(const struct tggw_value *v, const char *text);

// Flat sessions of strings.
struct tggw_pair {
    const char *key;
    const void *value;
    size_t value_len;
};
// Writes serialize() of the array into buf. Returns the bytes needed (nothing usable is in buf when that is
// more than size, as with snprintf); buf may be NULL when size is 0.
TGGW_API size_t tggw_session_build(const struct tggw_pair *pairs, size_t count, void *buf, size_t size);
// The string under key. -ENOENT: no session, no such key, or not a string; -EBADMSG: damaged.
TGGW_API int tggw_session_get(const void *session, size_t len, const char *key, const char **ret_value,
                              size_t *ret_len);

// ---- queries
// ---------------------------------------------------------------------------------------------------- A
// query goes to one gateway or to all that the Registers list, over a second connection to each. These calls
// block up to query_timeout_ms (default 5 s); no callback runs meanwhile. They fail as a whole when one
// gateway fails: -ECONNREFUSED and so on, -ECONNRESET (also: a wrong secret key), -ETIMEDOUT, -EBADMSG (what
// came is no answer), -ENOTCONN (no gateway known).

// 1 online, 0 not (also when its gateway is unknown).
TGGW_API int tggw_is_online(struct tggw *w, const char *client_id);
TGGW_API int tggw_is_uid_online(struct tggw *w, const char *uid);
// serialize() of the session ("a:0:{}" when none was set), to be freed by the caller with free().
// -ENOENT: no such client.
TGGW_API int tggw_get_session(struct tggw *w, const char *client_id, void **ret_session, size_t *ret_len);

// NUL-terminated strings; one allocation, freed by tggw_strings_free().
struct tggw_strings {
    size_t count;
    char **str;
};
TGGW_API void tggw_strings_free(struct tggw_strings *list);

TGGW_API int tggw_get_client_id_by_uid(struct tggw *w, const char *uid, struct tggw_strings *ret_client_ids);
// ret_client_ids is an array of count lists, one for each uid, each to be freed.
TGGW_API int tggw_batch_get_client_id_by_uid(struct tggw *w, const char *const *uids, size_t count,
                                             struct tggw_strings *ret_client_ids);
TGGW_API int64_t tggw_get_client_count(struct tggw *w);
TGGW_API int64_t tggw_get_client_count_by_group(struct tggw *w, const char *group);
TGGW_API int tggw_batch_get_client_count_by_group(struct tggw *w, const char *const *groups, size_t count,
                                                  int64_t *ret_counts);
// Sorted, each once.
TGGW_API int tggw_get_group_id_list(struct tggw *w, struct tggw_strings *ret_groups);
TGGW_API int tggw_get_client_ids(struct tggw *w, const char *group_or_null,
                                 struct tggw_strings *ret_client_ids);
TGGW_API int tggw_get_uids(struct tggw *w, const char *group_or_null, struct tggw_strings *ret_uids);
// To be freed with free(). -ENOENT: no such client, or it has no uid.
TGGW_API int tggw_get_uid_by_client_id(struct tggw *w, const char *client_id, char **ret_uid);

// The raw replies, one from each gateway that was asked.
struct tggw_result;
// Walks all gateways' replies that are arrays with connection ids as keys, as one: client_id and value.
struct tggw_result_iter {
    const struct tggw_result *result;
    size_t next;
    uint32_t ip;
    uint16_t port;
    struct tggw_iter it;
};

// value: the session as a string of serialize() bytes, or an empty string. group NULL: all clients.
TGGW_API int tggw_get_client_sessions(struct tggw *w, const char *group_or_null,
                                      struct tggw_result **ret_result);

// select: value is an array with the fields asked for; one that a client has not is null.
#define TGGW_FIELD_UID     0x01u // string (or integer: use tggw_value_is)
#define TGGW_FIELD_GROUPS  0x02u // array name => name
#define TGGW_FIELD_SESSION 0x04u // string of serialize() bytes
// Clients that meet any of the conditions; with none of them: all clients.
struct tggw_where {
    const char *const *groups;
    size_t group_count;
    const char *const *uids;
    size_t uid_count;
    const char *const *client_ids;
    size_t client_id_count;
};
TGGW_API int tggw_select(struct tggw *w, unsigned fields, const struct tggw_where *where,
                         struct tggw_result **ret_result);

// Any query of the protocol by its command number (15 GET_CLIENT_ID_BY_UID, 24 GET_CLIENT_COUNT_BY_GROUP...)
// and its ext_data: to the gateway of client_id, or (NULL) to all. Only commands that have a reply.
TGGW_API int tggw_query(struct tggw *w, int cmd, const char *client_id, const void *ext, size_t ext_len,
                        struct tggw_result **ret_result);
// The same without waiting. cb is called exactly once, from tggw_poll() or tggw_free(), never from within
// this call, with 0 or the first error of a gateway; the result is the library's and goes when cb returns.
// When this returns an error cb is not called.
typedef void tggw_query_cb(struct tggw *w, int error, const struct tggw_result *result, void *arg);
TGGW_API int tggw_query_async(struct tggw *w, int cmd, const char *client_id, const void *ext, size_t ext_len,
                              tggw_query_cb *cb, void *arg);

TGGW_API void tggw_result_free(struct tggw_result *r); // NULL does nothing
TGGW_API size_t tggw_result_count(const struct tggw_result *r);
// The reply of the i-th gateway (parsed; views into the result) and its internal address (may be NULL).
TGGW_API int tggw_result_get(const struct tggw_result *r, size_t i, struct tggw_value *ret_value,
                             uint32_t *ret_ip, uint16_t *ret_port);
TGGW_API void tggw_result_iter_init(struct tggw_result_iter *it, const struct tggw_result *r);
// 1, 0 at the end, or -EBADMSG.
TGGW_API int tggw_result_next(struct tggw_result_iter *it, char ret_client_id[TGGW_CLIENT_ID_SIZE],
                              struct tggw_value *ret_value);

// ---- client ids
// -------------------------------------------------------------------------------------------------

TGGW_API void tggw_client_id_format(uint32_t ip, uint16_t port, uint32_t connection_id,
                                    char ret_client_id[TGGW_CLIENT_ID_SIZE]);
TGGW_API int tggw_client_id_parse(const char *client_id, uint32_t *ret_ip, uint16_t *ret_port,
                                  uint32_t *ret_connection_id);

#ifdef __cplusplus
}
#endif

#endif
