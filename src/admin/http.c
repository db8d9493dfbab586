// SPDX-License-Identifier: MIT
/* Requests and answers. libmicrohttpd calls from http_run only (it has no thread of its own); a request whose
 * answer takes time is suspended and goes on in the http_run after request_answer. */
#include "admin/admin_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/secret.h"

#define CONNECTIONS_MAX  128u
#define CONNECTION_BYTES ((size_t)32 << 10) /* target and head of a request */
#define IDLE_S           30u
#define HEAD_MS          10000 /* a connection, or what follows an answer, until the head of a request is whole */
#define BODY_MAX         ((size_t)64 << 10)

/* ---- the answer */

static void wake(struct request *r)
{
    if (r->suspended)
        request_resume(r);
}

void request_answer(struct request *r, unsigned status)
{
    ASSERT(r->stage == REQUEST_BODY || r->stage == REQUEST_WAITS);
    r->status = r->body.failed ? MHD_HTTP_INTERNAL_SERVER_ERROR : status;
    r->stage = REQUEST_ANSWERED;
    wake(r);
}

void request_respond(struct request *r, unsigned status, struct MHD_Response *response)
{
    r->response = response;
    if (response == NULL)
        request_error(r, MHD_HTTP_INTERNAL_SERVER_ERROR, "no memory");
    else
        request_answer(r, status);
}

void request_error(struct request *r, unsigned status, const char *fmt, ...)
{
    struct json_writer w = {.out = &r->body};
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    bytes_clear(&r->body);
    r->type = NULL;
    json_begin(&w, '{');
    json_member_str(&w, "error", text);
    if (r->missing != 0)
        request_missing(r, &w);
    json_end(&w, '}');
    request_answer(r, status);
}

void request_wrong(struct request *r)
{
    request_error(r, MHD_HTTP_BAD_REQUEST, "%s", r->query.why);
}

/* ---- asking */

struct control_head *request_head(struct request *r, enum control_op op)
{
    struct control_head *h = &r->gather.ask.req.head;
    h->op = (uint16_t)op;
    return h;
}

static void gathered(struct gather *g)
{
    struct request *r = CONTAINER_OF(g, struct request, gather);
    r->missing |= gather_missing(g);
    r->then(r);
}

static void begin_ask(struct request *r, enum gather_form form, void (*then)(struct request *r))
{
    r->gather.form = form;
    r->gather.done = gathered;
    r->then = then;
    r->stage = REQUEST_WAITS;
}

static void check_asked(struct request *r, int err)
{
    if (err < 0)
        request_error(r, MHD_HTTP_SERVICE_UNAVAILABLE,
                      "%d questions to the shards are under way, which is the most; try again", ASKS_MAX);
}

void request_ask(struct request *r, uint64_t mask, uint64_t timeout_ms, enum gather_form form,
                 void (*then)(struct request *r))
{
    begin_ask(r, form, then);
    check_asked(r, gather_ask(r->admin->shards, &r->gather, mask, admin_now_ms(), timeout_ms));
}

void request_ask_supervisor(struct request *r, uint64_t timeout_ms, void (*then)(struct request *r))
{
    begin_ask(r, GATHER_OBJECT, then);
    check_asked(r, gather_ask_supervisor(r->admin->shards, &r->gather, admin_now_ms(), timeout_ms));
}

static unsigned status_of(int err)
{
    switch (err) {
    case -ENOENT: return MHD_HTTP_NOT_FOUND;
    case -EINVAL:
    case -EMSGSIZE: return MHD_HTTP_BAD_REQUEST;
    default: return MHD_HTTP_CONFLICT;
    }
}

/* {"error":"..."} of one that answered so, else what the number says. */
static struct slice error_json(const struct request *r, int err)
{
    for (unsigned i = 0; i < PEERS_MAX; i++) {
        struct slice json = gather_json(&r->gather, i);
        if (r->gather.of[i].answered && r->gather.of[i].status == err && json.len > 0)
            return json;
    }
    return (struct slice){NULL, 0};
}

bool request_failed(struct request *r)
{
    bool one = false;
    for (unsigned i = 0; i < PEERS_MAX; i++)
        one = one || gather_has(&r->gather, i);
    if (one)
        return false;
    int err = gather_error(&r->gather);
    if (err == 0) {
        request_error(r, MHD_HTTP_SERVICE_UNAVAILABLE,
                      "no answer in time: see /api/status for the state of the shards");
        return true;
    }
    struct slice json = error_json(r, err);
    if (json.len == 0) {
        request_error(r, status_of(err), "%s", strerror(-err));
        return true;
    }
    bytes_clear(&r->body);
    bytes_append(&r->body, json.data, json.len);
    request_answer(r, status_of(err));
    return true;
}

void request_missing(const struct request *r, struct json_writer *w)
{
    json_key(w, "missing");
    json_begin(w, '[');
    for (unsigned i = 0; i < NODE_SHARDS_MAX; i++) {
        if ((r->missing >> i & 1) != 0)
            json_uint(w, i);
    }
    json_end(w, ']');
}

/* ---- suspended */

static void on_hangup(struct watch *w, uint32_t events)
{
    struct request *r = CONTAINER_OF(w, struct request, hangup);
    shards_cancel(r->admin->shards, &r->gather.ask);
    r->stage = REQUEST_GONE;
    request_resume(r);
}

void request_suspend(struct request *r, uint32_t events)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    ASSERT(!r->suspended);
    r->suspended = true;
    MHD_suspend_connection(r->connection);
    /* libmicrohttpd does not look at a suspended one. Without memory for it here: its end is seen later. */
    r->hangup.ready = on_hangup;
    if (info == NULL || admin_watch(r->admin, &r->hangup, info->connect_fd, events) < 0)
        r->hangup.fd = -1;
}

void request_resume(struct request *r)
{
    ASSERT(r->suspended);
    r->suspended = false;
    admin_unwatch(r->admin, &r->hangup);
    MHD_resume_connection(r->connection);
}

/* ---- who may ask */

static const char *header(const struct request *r, const char *name)
{
    return MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, name);
}

/* A page of another site may send requests here, but its Origin is not ours. */
static bool origin_is_ours(const struct request *r)
{
    const char *origin = header(r, MHD_HTTP_HEADER_ORIGIN), *host = header(r, MHD_HTTP_HEADER_HOST);
    if (origin == NULL)
        return true;
    const char *authority = strstr(origin, "://");
    return authority != NULL && host != NULL && strcasecmp(authority + 3, host) == 0;
}

static bool has_token(const struct request *r)
{
    static const char scheme[] = "Bearer ";
    const char *value = header(r, MHD_HTTP_HEADER_AUTHORIZATION), *token = r->admin->token;
    if (value == NULL || token == NULL || token[0] == '\0' ||
        strncasecmp(value, scheme, sizeof scheme - 1) != 0)
        return false;
    value += sizeof scheme - 1;
    value += strspn(value, " ");
    return secret_equal(value, strlen(value), token, strlen(token));
}

/* Who reaches the Unix socket may do everything, but a browser that is led there (ssh -L, a proxy) must not
 * be led by others: a page of another site says so in Origin, and one whose name has been made to lead here
 * (DNS rebinding) has that name in Host. */
static bool host_is_ours(const struct request *r)
{
    struct net_addr addr;
    const char *host = header(r, MHD_HTTP_HEADER_HOST);
    if (host == NULL)
        return true;
    bool in_brackets = host[0] == '[';
    host += in_brackets;
    size_t len = strcspn(host, in_brackets ? "]" : ":");
    return net_addr_parse_ip(host, len, &addr) == 0 || (len == 3 && strncasecmp(host, "tgg", len) == 0) ||
           (len == 9 && strncasecmp(host, "localhost", len) == 0);
}

static bool may_ask(struct request *r)
{
    if (!origin_is_ours(r)) {
        request_error(r, MHD_HTTP_FORBIDDEN, "this request comes from a page of another site (Origin)");
        return false;
    }
    if (!r->tcp) {
        if (!host_is_ours(r))
            request_error(r, MHD_HTTP_FORBIDDEN, "expected tgg, localhost or an address as Host");
        return r->status == 0;
    }
    if ((!r->post && routes_is_open(r->admin, r->query.path)) || has_token(r))
        return true;
    request_error(
        r, MHD_HTTP_UNAUTHORIZED,
        "expected the header \"Authorization: Bearer TOKEN\" with the token of this gateway ([admin] "
        "token, or the file admin.token in runtime_dir)");
    return false;
}

/* Who it was, for the log. */
static const char *asker(const struct request *r, char *buf, size_t cap)
{
    const union MHD_ConnectionInfo *info;
    if (r->tcp) {
        struct net_addr peer = {.family = AF_UNIX};
        info = MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
        if (info != NULL && info->client_addr != NULL)
            net_addr_from_sockaddr((const struct sockaddr_storage *)(const void *)info->client_addr, &peer);
        return net_addr_format(&peer, buf, cap);
    }
    struct ucred cred = {.pid = 0};
    socklen_t len = sizeof cred;
    info = MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (info != NULL)
        (void)getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, &cred, &len);
    snprintf(buf, cap, "uid %u pid %d", (unsigned)cred.uid, (int)cred.pid);
    return buf;
}

/* ---- connections */

/* One that has no request under way; libmicrohttpd's own limit counts from the last byte, and lets a peer
 * that sends one now and then keep its place for good. */
struct idle {
    struct list link; /* in http_listener.idle; not linked while a request is under way */
    uint64_t since_ms;
    int fd;
};

static struct idle *idle_of(struct MHD_Connection *c)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info != NULL ? info->socket_context : NULL;
}

static void idle_begins(struct http_listener *l, struct idle *i)
{
    if (i == NULL)
        return;
    i->since_ms = admin_now_ms();
    list_append(&l->idle, &i->link);
}

static void idle_ends(struct idle *i)
{
    if (i != NULL)
        list_remove(&i->link);
}

static void on_connection(void *arg, struct MHD_Connection *c, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct http_listener *l = arg;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
        struct idle *i = info != NULL ? calloc(1, sizeof *i) : NULL;
        if (i != NULL)
            i->fd = info->connect_fd;
        *context = i;
        idle_begins(l, i);
        return;
    }
    idle_ends(*context);
    free(*context);
    *context = NULL;
}

void http_end_idle(struct http_listener *l, uint64_t now_ms)
{
    while (l->daemon != NULL && !list_is_empty(&l->idle)) {
        struct idle *i = CONTAINER_OF(l->idle.next, struct idle, link);
        if (now_ms - i->since_ms < HEAD_MS)
            return;
        list_remove(&i->link);
        shutdown(i->fd, SHUT_RDWR); /* libmicrohttpd finds it ended */
    }
}

/* ---- a request */

static enum MHD_Result count_header(void *arg, enum MHD_ValueKind kind, const char *name, const char *value)
{
    unsigned *n = arg;
    *n += strcasecmp(name, MHD_HTTP_HEADER_CONTENT_LENGTH) == 0 ||
          strcasecmp(name, MHD_HTTP_HEADER_TRANSFER_ENCODING) == 0;
    return MHD_YES;
}

/* RFC 9112 section 6.3: a proxy in front may have believed the other one. */
static bool has_two_lengths(const struct request *r)
{
    unsigned n = 0;
    MHD_get_connection_values(r->connection, MHD_HEADER_KIND, count_header, &n);
    return n > 1;
}

/* The body of a request means nothing, and whoever sends one means something. */
static void begin(struct request *r)
{
    char from[NET_ADDR_STRLEN];
    r->began_ms = admin_now_ms();
    int err = query_parse(r->target, &r->query);
    if (err == -ENOMEM)
        request_error(r, MHD_HTTP_INTERNAL_SERVER_ERROR, "no memory");
    else if (err < 0)
        request_wrong(r);
    else if (!may_ask(r))
        LOG(LOG_WARN, "admin_refused", "status=%u from=\"%s\" path=%s", r->status,
            asker(r, from, sizeof from), log_quote(r->query.path, strlen(r->query.path)));
    else if (has_two_lengths(r))
        request_error(r, MHD_HTTP_BAD_REQUEST, "more than one of Content-Length and Transfer-Encoding");
    else if (r->body_bytes > 0)
        request_error(
            r, MHD_HTTP_BAD_REQUEST,
            "the request has a body of %zu bytes; expected parameters behind the path (?name=value) and "
            "no body",
            r->body_bytes);
    else {
        if (r->post)
            LOG(LOG_NOTICE, "admin_order", "from=\"%s\" target=%s", asker(r, from, sizeof from),
                log_quote(r->target, strlen(r->target)));
        routes_run(r);
    }
}

static enum MHD_Result send_answer(struct request *r)
{
    struct MHD_Response *response = r->response;
    if (response == NULL) {
        bool failed = r->body.failed;
        response =
            MHD_create_response_from_buffer(failed ? 0 : r->body.len, r->body.data, MHD_RESPMEM_MUST_FREE);
        if (response == NULL)
            return MHD_NO;
        r->body = (struct bytes){0}; /* it is the response's now */
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE,
                                r->type != NULL ? r->type : "application/json");
        MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    }
    r->response = NULL;
    page_headers(response);
    if (r->status == MHD_HTTP_UNAUTHORIZED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
    if (r->status == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, r->post ? "GET, HEAD" : "POST, GET");
    r->admin->requests_refused += r->status >= 400;
    r->stage = REQUEST_SENT;
    enum MHD_Result result = MHD_queue_response(r->connection, r->status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result go_on(struct request *r)
{
    if (r->stage == REQUEST_BODY)
        begin(r);
    switch (r->stage) {
    case REQUEST_ANSWERED: return send_answer(r);
    case REQUEST_WAITS: request_suspend(r, 0); return MHD_YES;
    default: return MHD_NO;
    }
}

static enum MHD_Result take_method(struct request *r, const char *method)
{
    r->stage = REQUEST_BODY;
    idle_ends(idle_of(r->connection));
    r->admin->requests_n++;
    r->post = strcmp(method, MHD_HTTP_METHOD_POST) == 0;
    if (r->post || strcmp(method, MHD_HTTP_METHOD_GET) == 0 || strcmp(method, MHD_HTTP_METHOD_HEAD) == 0)
        return MHD_YES;
    request_error(r, MHD_HTTP_METHOD_NOT_ALLOWED, "method %.16s; expected GET, HEAD or POST", method);
    return send_answer(r);
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *c, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *upload_size, void **state)
{
    struct request *r = *state;
    if (r == NULL)
        return MHD_NO; /* there was no memory */
    if (r->stage == REQUEST_NEW)
        return take_method(r, method);
    if (*upload_size == 0)
        return go_on(r);
    r->body_bytes += *upload_size;
    *upload_size = 0;
    return r->body_bytes <= BODY_MAX ? MHD_YES : MHD_NO;
}

/* The first call of a request: with its target as it came. */
static void *on_target(void *arg, const char *target, struct MHD_Connection *c)
{
    struct http_listener *l = arg;
    struct request *r = calloc(1, sizeof *r);
    if (r == NULL || (r->target = strdup(target)) == NULL) {
        free(r);
        return NULL;
    }
    r->admin = l->admin;
    r->connection = c;
    r->tcp = l->tcp;
    r->hangup.fd = -1;
    list_append(&l->admin->requests, &r->link);
    return r;
}

static void on_completed(void *arg, struct MHD_Connection *c, void **state,
                         enum MHD_RequestTerminationCode code)
{
    struct request *r = *state;
    *state = NULL;
    if (r == NULL)
        return;
    ASSERT(!r->suspended);
    if (r->stage != REQUEST_NEW) /* else it has not begun, and its time goes on */
        idle_begins(arg, idle_of(c));
    shards_cancel(r->admin->shards, &r->gather.ask);
    if (r->job_free != NULL)
        r->job_free(r);
    if (r->response != NULL)
        MHD_destroy_response(r->response);
    gather_fini(&r->gather);
    query_fini(&r->query);
    bytes_fini(&r->body);
    list_remove(&r->link);
    free(r->target);
    free(r);
}

/* ---- libmicrohttpd */

static void on_log(void *arg, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
static void on_log(void *arg, const char *fmt, va_list ap)
{
    char text[256];
    vsnprintf(text, sizeof text, fmt, ap);
    LOG(LOG_INFO, "admin_http", "text=%s", log_quote(text, strlen(text)));
}

/* http_run follows in each turn. */
static void on_daemon(struct watch *w, uint32_t events)
{
}

int http_open(struct admin *a, struct http_listener *l, int fd)
{
    l->admin = a;
    list_init(&l->idle);
    l->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, l,
        MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
        CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        CONNECTION_BYTES, MHD_OPTION_URI_LOG_CALLBACK, on_target, l, MHD_OPTION_NOTIFY_COMPLETED,
        on_completed, l, MHD_OPTION_NOTIFY_CONNECTION, on_connection, l, MHD_OPTION_END);
    if (l->daemon == NULL)
        return -EIO;
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(l->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    l->watch.ready = on_daemon;
    return info == NULL ? -EIO : admin_watch(a, &l->watch, info->epoll_fd, EPOLLIN);
}

void http_run(struct http_listener *l)
{
    if (l->daemon != NULL)
        MHD_run(l->daemon);
}

int http_timeout_ms(struct http_listener *l)
{
    MHD_UNSIGNED_LONG_LONG ms;
    if (l->daemon == NULL || MHD_get_timeout(l->daemon, &ms) != MHD_YES)
        return -1;
    return ms > 60000 ? 60000 : (int)ms;
}

void http_close(struct admin *a)
{
    for (struct list *l = a->requests.next; l != &a->requests; l = l->next) {
        struct request *r = CONTAINER_OF(l, struct request, link);
        if (r->suspended)
            on_hangup(&r->hangup, 0);
    }
    for (unsigned i = 0; i < 2; i++) {
        http_run(&a->http[i]);
        if (a->http[i].daemon == NULL)
            continue;
        admin_unwatch(a, &a->http[i].watch);
        MHD_stop_daemon(a->http[i].daemon);
        a->http[i].daemon = NULL;
    }
}
