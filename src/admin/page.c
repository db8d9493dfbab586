// SPDX-License-Identifier: MIT
/* The files of the web page, and the headers that keep a browser to them. */
#include <unistd.h>

#include "admin/admin_priv.h"
#include "admin/static_file.h"

void page_answer(struct request *r, const char *name)
{
    size_t len;
    int fd = static_file_open(r->admin->page_fd, name, &len);

    if (fd < 0) {
        request_error(r, MHD_HTTP_NOT_FOUND, "there is nothing at %s; see docs/ADMIN-API.md", r->query.path);
        return;
    }
    struct MHD_Response *response = MHD_create_response_from_fd(len, fd); /* takes the fd */
    if (response == NULL)
        close(fd);
    else {
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, static_file_type(name));
        MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache");
    }
    request_respond(r, MHD_HTTP_OK, response);
}

void page_headers(struct MHD_Response *response)
{
    static const char *const headers[][2] = {
        {"Content-Security-Policy",
         "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"},
        {"X-Content-Type-Options", "nosniff"},
        {"X-Frame-Options", "DENY"},
        {"Referrer-Policy", "no-referrer"},
        {"Cross-Origin-Resource-Policy", "same-origin"},
    };
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++)
        MHD_add_response_header(response, headers[i][0], headers[i][1]);
}
