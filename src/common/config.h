// SPDX-License-Identifier: MIT
/* The configuration: one INI file, one table of keys (config_keys.def), from which the members below, the
 * parser, `tgg gateway -t`, man/tgg_conf.ini.5 and docs/CONFIGURATION.md come.
 *
 * Read at start, by the supervisor or the register, before anything is opened; the shards inherit it by fork.
 * At a reload (HUP) the supervisor reads it again and sends it to the shards, which take over the values of
 * keys that are LIVE (config_apply_live) and leave the rest. Units are those of the table (a time of unit "s"
 * is a number of seconds). */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* ---- enums: CONFIG_ENUM_<name>(X) lists X(constant, "as written in the file"); ENUM(<name>) in the table
 * becomes enum config_<name>. */
#define CONFIG_ENUM_ping_mode(X) X(PING_MODE_DATA, "data") X(PING_MODE_WEBSOCKET, "websocket")
#define CONFIG_ENUM_worker_backpressure(X)                                                                   \
    X(WORKER_BACKPRESSURE_PAUSE, "pause") X(WORKER_BACKPRESSURE_CLOSE, "close")
#define CONFIG_ENUM_slow_reader_policy(X)                                                                    \
    X(SLOW_READER_CLOSE, "close")                                                                            \
    X(SLOW_READER_DROP_NEWEST, "drop_newest")                                                                \
    X(SLOW_READER_DROP_OLDEST, "drop_oldest")
#define CONFIG_ENUM_router(X)                                                                                \
    X(ROUTER_LEAST_CONNECTIONS, "least_connections")                                                         \
    X(ROUTER_RANDOM, "random")                                                                               \
    X(ROUTER_ROUND_ROBIN, "round_robin")                                                                     \
    X(ROUTER_CLIENT_HASH, "client_hash")
#define CONFIG_ENUM_on_connect(X) X(ON_CONNECT_ACCEPT, "accept") X(ON_CONNECT_HANDSHAKE, "handshake")
#define CONFIG_ENUM_protocol(X)                                                                              \
    X(PROTOCOL_WEBSOCKET, "websocket")                                                                       \
    X(PROTOCOL_TEXT, "text")                                                                                 \
    X(PROTOCOL_FRAME, "frame")                                                                               \
    X(PROTOCOL_TCP, "tcp")
#define CONFIG_ENUM_send_type(X)                                                                             \
    X(SEND_TYPE_TEXT, "text") X(SEND_TYPE_BINARY, "binary") X(SEND_TYPE_AUTO, "auto")
#define CONFIG_ENUM_rate_policy(X) X(RATE_POLICY_PAUSE, "pause") X(RATE_POLICY_CLOSE, "close")
#define CONFIG_ENUM_sandbox(X)     X(SANDBOX_OFF, "off") X(SANDBOX_ON, "on")
#define CONFIG_ENUM_proxy_protocol(X)                                                                        \
    X(PROXY_PROTOCOL_OFF, "off")                                                                             \
    X(PROXY_PROTOCOL_OPTIONAL, "optional")                                                                   \
    X(PROXY_PROTOCOL_REQUIRED, "required")
#define CONFIG_ENUM_forwarded(X)                                                                             \
    X(FORWARDED_OFF, "off")                                                                                  \
    X(FORWARDED_X_FORWARDED_FOR, "x_forwarded_for")                                                          \
    X(FORWARDED_X_REAL_IP, "x_real_ip")                                                                      \
    X(FORWARDED_RFC7239, "forwarded")
#define CONFIG_ENUM_tls_version(X) X(TLS_VERSION_1_2, "1.2") X(TLS_VERSION_1_3, "1.3")
#define CONFIG_ENUM_tls_client_verify(X)                                                                     \
    X(TLS_CLIENT_VERIFY_OFF, "off")                                                                          \
    X(TLS_CLIENT_VERIFY_OPTIONAL, "optional")                                                                \
    X(TLS_CLIENT_VERIFY_REQUIRED, "required")
/* The same order as enum log_level and enum log_format of base/log.h. */
#define CONFIG_ENUM_log_level(X)                                                                             \
    X(LOG_LEVEL_ERROR, "error")                                                                              \
    X(LOG_LEVEL_WARN, "warn")                                                                                \
    X(LOG_LEVEL_NOTICE, "notice")                                                                            \
    X(LOG_LEVEL_INFO, "info")                                                                                \
    X(LOG_LEVEL_DEBUG, "debug")
#define CONFIG_ENUM_log_format(X) X(LOG_FORMAT_TEXT, "text") X(LOG_FORMAT_JSON, "json")
#define CONFIG_ENUM_log_target(X) X(LOG_TARGET_STDERR, "stderr") X(LOG_TARGET_FILE, "file")
#define CONFIG_ENUM_log_closes(X)                                                                            \
    X(LOG_CLOSES_NONE, "none") X(LOG_CLOSES_ABNORMAL, "abnormal") X(LOG_CLOSES_ALL, "all")

/* Every enum of the table once. */
#define CONFIG_ENUMS(E)                                                                                      \
    E(ping_mode)                                                                                             \
    E(worker_backpressure)                                                                                   \
    E(slow_reader_policy)                                                                                    \
    E(router)                                                                                                \
    E(on_connect)                                                                                            \
    E(protocol)                                                                                              \
    E(send_type)                                                                                             \
    E(rate_policy)                                                                                           \
    E(sandbox)                                                                                               \
    E(proxy_protocol)                                                                                        \
    E(forwarded)                                                                                             \
    E(tls_version)                                                                                           \
    E(tls_client_verify)                                                                                     \
    E(log_level)                                                                                             \
    E(log_format)                                                                                            \
    E(log_target)                                                                                            \
    E(log_closes)

#define CONFIG_ENUM_CONSTANT(constant, text) constant,
#define CONFIG_ENUM_DEFINE(name)             enum config_##name{CONFIG_ENUM_##name(CONFIG_ENUM_CONSTANT)};
CONFIG_ENUMS(CONFIG_ENUM_DEFINE)

struct config_address {
    char *host; /* as written: a number or a name; without the brackets of IPv6 */
    uint16_t port;
    unsigned line;
};
struct config_addresses {
    struct config_address *list;
    unsigned n;
};

/* ---- the sections. A member per key, of the C type of its kind; and in `line`, under the same name, the
 * line of the file that set it (0: the default, CONFIG_LINE_CODE: set by config_set). */
#define CONFIG_LINE_CODE UINT32_MAX

#define CONFIG_TYPE_UINT       uint64_t
#define CONFIG_TYPE_BOOL       bool
#define CONFIG_TYPE_STRING     char *   /* never NULL */
#define CONFIG_TYPE_IPV4       uint32_t /* host order */
#define CONFIG_TYPE_ADDRESSES  struct config_addresses
#define CONFIG_TYPE_ENUM(name) enum config_##name

/* Keep the keys of one section. */
#define CONFIG_IN_gateway_gateway(...) __VA_ARGS__
#define CONFIG_IN_gateway_listen(...)
#define CONFIG_IN_gateway_register(...)
#define CONFIG_IN_gateway_log(...)
#define CONFIG_IN_gateway_admin(...)
#define CONFIG_IN_listen_gateway(...)
#define CONFIG_IN_listen_listen(...) __VA_ARGS__
#define CONFIG_IN_listen_register(...)
#define CONFIG_IN_listen_log(...)
#define CONFIG_IN_listen_admin(...)
#define CONFIG_IN_register_gateway(...)
#define CONFIG_IN_register_listen(...)
#define CONFIG_IN_register_register(...) __VA_ARGS__
#define CONFIG_IN_register_log(...)
#define CONFIG_IN_register_admin(...)
#define CONFIG_IN_log_gateway(...)
#define CONFIG_IN_log_listen(...)
#define CONFIG_IN_log_register(...)
#define CONFIG_IN_log_log(...) __VA_ARGS__
#define CONFIG_IN_log_admin(...)
#define CONFIG_IN_admin_gateway(...)
#define CONFIG_IN_admin_listen(...)
#define CONFIG_IN_admin_register(...)
#define CONFIG_IN_admin_log(...)
#define CONFIG_IN_admin_admin(...) __VA_ARGS__

#define CONFIG_MEMBER(type, name) CONFIG_TYPE_##type name;

struct config_gateway_lines {
#define KEY(section, name, ...) CONFIG_IN_gateway_##section(uint32_t name;)
#include "common/config_keys.def"
#undef KEY
};
struct config_listen_lines {
#define KEY(section, name, ...) CONFIG_IN_listen_##section(uint32_t name;)
#include "common/config_keys.def"
#undef KEY
};
struct config_register_lines {
#define KEY(section, name, ...) CONFIG_IN_register_##section(uint32_t name;)
#include "common/config_keys.def"
#undef KEY
};
struct config_log_lines {
#define KEY(section, name, ...) CONFIG_IN_log_##section(uint32_t name;)
#include "common/config_keys.def"
#undef KEY
};
struct config_admin_lines {
#define KEY(section, name, ...) CONFIG_IN_admin_##section(uint32_t name;)
#include "common/config_keys.def"
#undef KEY
};

struct config_gateway {
#define KEY(section, name, type, ...) CONFIG_IN_gateway_##section(CONFIG_MEMBER(type, name))
#include "common/config_keys.def"
#undef KEY
    struct config_gateway_lines line;
};
struct config_listen {
#define KEY(section, name, type, ...) CONFIG_IN_listen_##section(CONFIG_MEMBER(type, name))
#include "common/config_keys.def"
#undef KEY
    struct config_listen_lines line;
    char *name;            /* [listen NAME] */
    uint32_t section_line; /* of its heading */
};
struct config_register {
#define KEY(section, name, type, ...) CONFIG_IN_register_##section(CONFIG_MEMBER(type, name))
#include "common/config_keys.def"
#undef KEY
    struct config_register_lines line;
};
struct config_log {
#define KEY(section, name, type, ...) CONFIG_IN_log_##section(CONFIG_MEMBER(type, name))
#include "common/config_keys.def"
#undef KEY
    struct config_log_lines line;
};
struct config_admin {
#define KEY(section, name, type, ...) CONFIG_IN_admin_##section(CONFIG_MEMBER(type, name))
#include "common/config_keys.def"
#undef KEY
    struct config_admin_lines line;
};

#define CONFIG_LISTEN_MAX 64

struct config {
    struct config_gateway gateway;
    struct config_register reg; /* [register] */
    struct config_log log;
    struct config_admin admin;
    unsigned n_listeners;
    struct config_listen listen[CONFIG_LISTEN_MAX];
    char *source_path; /* the file, or "built-in"; for messages */
};

/* ---- what is wrong with a configuration: every problem found, in the order of the file. */
struct config_problem {
    unsigned line; /* 0: not of a line */
    char section[64];
    char key[64];
    char text[512]; /* what was found and what was expected; never a secret */
};
#define CONFIG_PROBLEMS_MAX 64
struct config_error {
    char path[256];
    unsigned n;        /* problems kept */
    unsigned left_out; /* more than that */
    struct config_problem list[CONFIG_PROBLEMS_MAX];
};

/* One problem as a line without its end: `FILE:LINE: [SECTION] KEY: TEXT`. Returns buf. */
char *config_problem_format(const struct config_error *err, unsigned i, char *buf, size_t cap);
/* All of them, a line each. */
void config_error_print(FILE *out, const struct config_error *err);
/* Add one (also of the caller's own finding, such as a port in use). */
void config_error_add(struct config_error *err, unsigned line, const char *section, const char *key,
                      const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* Every key at its default, no listener. */
void config_defaults(struct config *ret);
void config_fini(struct config *cfg);

/* Read and check a file. 0; -EINVAL: something in it is wrong; other -errno: it could not be read. err tells
 * in every case; *ret is untouched on failure. Does not ask for a listener (see config_check_gateway): a
 * register needs none. */
int config_load(const char *path, struct config *ret, struct config_error *err);
/* The same for text in memory; path only names it in messages. */
int config_load_text(const char *text, size_t len, const char *path, struct config *ret,
                     struct config_error *err);

/* The first half of config_load: the text, to be freed. 0 or -errno, with err set. */
int config_read_text(const char *path, char **ret, size_t *ret_len, struct config_error *err);

/* Set one key as a file would: section "gateway", "register", "log", or "listen NAME" (made when it is new).
 * 0 or -EINVAL with err added to; setting a key again is fine. Call config_check after the last one. */
int config_set(struct config *cfg, const char *section, const char *key, const char *value,
               struct config_error *err);

/* What no single key shows: required keys, two listeners on one address, keys that do not go together.
 * config_load has done it. 0 or -EINVAL. */
int config_check(const struct config *cfg, struct config_error *err);
/* What only a gateway needs: at least one listener. 0 or -EINVAL. */
int config_check_gateway(const struct config *cfg, struct config_error *err);

/* Effective values as a file that could be read again, defaults marked with a comment; secrets as (set) or
 * (empty). */
void config_print(FILE *out, const struct config *cfg);

/* The secret key of the register: its own, else that of [gateway]. */
const char *config_register_secret(const struct config *cfg);

/* A changed file, read into `from`, while `cfg` is in use: the values of all LIVE keys go over (pointers to
 * strings change, cfg itself stays in place), and the listeners, all of them, in the order of `from`. They
 * are exchanged: called again it takes that back; else `from`, which has the listeners of before, each where
 * it was, is then only good for config_listen_take and config_fini. */
void config_apply_live(struct config *cfg, struct config *from);
/* Moves listener i out; cfg is then only good for config_fini. */
void config_listen_take(struct config *cfg, unsigned i, struct config_listen *ret);
void config_listen_fini(struct config_listen *l);
/* Name and values of the START keys: what makes a listener that one, and not another that takes its place.
 * Returns buf; cap >= CONFIG_LISTEN_IDENTITY_MAX. */
#define CONFIG_LISTEN_IDENTITY_MAX 256
char *config_listen_identity(const struct config_listen *l, char *buf, size_t cap);
/* The keys whose values differ, one call each, of listeners those that both have by name: `live` says whether
 * a reload is enough. Secrets are compared, not shown. */
void config_compare(const struct config *a, const struct config *b,
                    void (*differs)(void *ctx, const char *section, const char *key, bool live), void *ctx);
/* Whether it stands on that address and port, however it is written (of Unix sockets the path counts). */
bool config_listen_is_at(const struct config_listen *l, const char *address, uint64_t port);
/* Whether `path` listeners i and j stand on one address and port: j < i has the socket. The first such j; i
 * itself when there is none. */
unsigned config_listen_socket_of(const struct config *cfg, unsigned i);
/* The items of a list as it stands in a value: "a, b , /c". Blanks around an item are skipped, empty items
 * too. *pos begins at the value; false: no more. */
bool config_list_next(const char **pos, const char **ret, size_t *ret_len);

/* "websocket" for PROTOCOL_WEBSOCKET and so on: config_protocol_name(), config_router_name(), ... */
#define CONFIG_ENUM_NAME_DECLARE(name) const char *config_##name##_name(enum config_##name value);
CONFIG_ENUMS(CONFIG_ENUM_NAME_DECLARE)
