// SPDX-License-Identifier: MIT
#include "main/web_server.h"

#include <fcntl.h>
#include <microhttpd.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "admin/static_file.h"
#include "base/log.h"

struct web_server {
    int dir_fd;
    unsigned websocket_port;
};

static enum MHD_Result send_response(struct MHD_Connection *c, unsigned status, struct MHD_Response *r,
                                     const char *type)
{
    if (r == NULL)
        return MHD_NO;
    MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache");
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    enum MHD_Result result = MHD_queue_response(c, status, r);
    MHD_destroy_response(r);
    return result;
}

static enum MHD_Result send_text(struct MHD_Connection *c, unsigned status, const char *text,
                                 const char *type)
{
    struct MHD_Response *r =
        MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
    return send_response(c, status, r, type);
}

static enum MHD_Result send_config(struct MHD_Connection *c, const struct web_server *web)
{
    char text[64];
    snprintf(text, sizeof text, "{\"websocket_port\":%u}\n", web->websocket_port);
    return send_text(c, MHD_HTTP_OK, text, "application/json");
}

static enum MHD_Result send_file(struct MHD_Connection *c, const struct web_server *web, const char *name)
{
    size_t len;
    int fd = static_file_open(web->dir_fd, name, &len);

    if (fd < 0)
        return send_text(c, MHD_HTTP_NOT_FOUND, "not found\n", "text/plain");
    struct MHD_Response *r = MHD_create_response_from_fd(len, fd); /* takes the fd */
    if (r == NULL)
        close(fd);
    return send_response(c, MHD_HTTP_OK, r, static_file_type(name));
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *c, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *upload_size, void **state)
{
    static int head_seen; /* any address: the first call of a request has *state NULL */
    const struct web_server *web = arg;

    (void)version;
    (void)upload;
    if (*state == NULL) {
        *state = &head_seen;
        return MHD_YES;
    }
    *upload_size = 0;
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return send_text(c, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD\n", "text/plain");
    if (strcmp(url, "/config.json") == 0)
        return send_config(c, web);
    return send_file(c, web, strcmp(url, "/") == 0 ? "index.html" : url + 1);
}

static void wait_for_end(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    while (sigwaitinfo(&set, NULL) < 0)
        continue;
}

int web_server_run(const char *dir, int listen_fd, unsigned websocket_port)
{
    struct web_server web = {.websocket_port = websocket_port};

    web.dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (web.dir_fd < 0) {
        LOG(LOG_ERROR, "web_not_started", "path=\"%s\"", dir);
        return 1;
    }
    struct MHD_Daemon *daemon =
        MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL, 0, NULL, NULL, on_request, &web,
                         MHD_OPTION_LISTEN_SOCKET, listen_fd, MHD_OPTION_CONNECTION_LIMIT, 64u,
                         MHD_OPTION_CONNECTION_TIMEOUT, 10u, MHD_OPTION_END);
    if (daemon == NULL) {
        LOG(LOG_ERROR, "web_not_started", "path=\"%s\"", dir);
        close(web.dir_fd);
        return 1;
    }
    wait_for_end();
    MHD_stop_daemon(daemon);
    close(web.dir_fd);
    return 0;
}
