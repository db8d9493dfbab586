// SPDX-License-Identifier: MIT
/* Where load goes, and from which addresses it comes. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "load/codec.h"

#define TARGET_TEXT_MAX 512

struct load_target {
    enum load_protocol protocol;
    bool tls;
    char host[TARGET_TEXT_MAX]; /* a name, or an address without brackets; or the path of a Unix socket */
    bool is_unix;
    uint16_t port;
    char path[TARGET_TEXT_MAX]; /* WebSocket: what is asked for, "/" at least, with its query */
    struct sockaddr_storage address;
    socklen_t address_len;
};

#define TARGET_ERROR_MAX 256

/* ws://HOST[:PORT][/PATH], wss://..., text://HOST:PORT, frame://HOST:PORT, tcp://HOST:PORT; an IPv6 address
 * stands in brackets; unix:PATH in place of HOST:PORT is a Unix socket, ws://unix:PATH:/PATH with the path
 * that is asked for. False: error says why. The address is not looked up yet. */
bool load_target_parse(const char *url, struct load_target *ret, char error[TARGET_ERROR_MAX]);
/* Looks the host up (may block); fills in address. Of several addresses it takes the first that a connection
 * is taken at, which it tries, else the first. */
bool load_target_resolve(struct load_target *t, char error[TARGET_ERROR_MAX]);
/* "HOST:PORT", as it stands in the header Host. */
void load_target_host(const struct load_target *t, char *buf, size_t cap);

/* Addresses that connections come from, in turn; none: the kernel's choice. */
struct load_sources {
    struct sockaddr_storage *list;
    size_t n;
};
/* "A,B,C". Adds to what is there. */
bool load_sources_add(struct load_sources *s, const char *text, char error[TARGET_ERROR_MAX]);
/* "A-B", IPv4, at most 65,536 of them. */
bool load_sources_add_range(struct load_sources *s, const char *text, char error[TARGET_ERROR_MAX]);
void load_sources_fini(struct load_sources *s);

/* A non-blocking socket, its connect to the target under way, from source number `n` (counted round). The
 * descriptor or -errno. A connect that failed at once is -errno too. */
int load_socket_connect(const struct load_target *t, const struct load_sources *s, uint64_t n);
