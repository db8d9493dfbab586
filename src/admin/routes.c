// SPDX-License-Identifier: MIT
/* Which path is whose (docs/ADMIN-API.md). */
#include <string.h>

#include "admin/admin_priv.h"

struct route {
    const char *path;
    bool post;
    void (*run)(struct request *r);
};

static const struct route routes[] = {
    {"/api/status", false, api_status},
    {"/api/counters", false, api_counters},
    {"/api/names", false, api_names},
    {"/api/histograms", false, api_histograms},
    {"/api/listeners", false, api_listeners},
    {"/api/workers", false, api_workers},
    {"/api/registers", false, api_registers},
    {"/api/clients", false, api_clients},
    {"/api/uids", false, api_uids},
    {"/api/groups", false, api_groups},
    {"/api/top", false, api_top},
    {"/api/tables", false, api_tables},
    {"/api/closes", false, api_closes},
    {"/api/check", false, api_check},
    {"/api/bans", false, api_bans},
    {"/api/trace", false, api_trace},
    {"/metrics", false, api_metrics},
    {"/livez", false, api_livez},
    {"/readyz", false, api_readyz},
    {"/api/close", true, api_close},
    {"/api/kick", true, api_kick},
    {"/api/ban", true, api_ban},
    {"/api/unban", true, api_unban},
    {"/api/drain", true, api_drain},
    {"/api/undrain", true, api_undrain},
    {"/api/evacuate", true, api_evacuate},
    {"/api/rebalance", true, api_rebalance},
    {"/api/log", true, api_log},
    {"/api/reload", true, api_reload},
    {"/api/inject", true, api_inject},
};

#define CLIENT_PREFIX "/api/clients/"

static bool begins(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static const struct route *find(const char *path)
{
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        if (strcmp(routes[i].path, path) == 0)
            return &routes[i];
    }
    return NULL;
}

bool routes_is_open(const struct admin *a, const char *path)
{
    if (strcmp(path, "/metrics") == 0)
        return a->cfg->admin.metrics_open;
    return !begins(path, "/api/");
}

static void wrong_method(struct request *r, bool post)
{
    request_error(r, MHD_HTTP_METHOD_NOT_ALLOWED, "%s; expected %s", r->post ? "POST" : "GET",
                  post ? "POST" : "GET");
}

void routes_run(struct request *r)
{
    const char *path = r->query.path;
    const struct route *route = find(path);

    if (route != NULL && route->post != r->post)
        wrong_method(r, route->post);
    else if (route != NULL)
        route->run(r);
    else if (r->post && !begins(path, "/api/"))
        wrong_method(r, false);
    else if (begins(path, CLIENT_PREFIX) && r->post)
        wrong_method(r, false);
    else if (begins(path, CLIENT_PREFIX))
        api_client(r, path + sizeof CLIENT_PREFIX - 1);
    else if (begins(path, "/api/"))
        request_error(r, MHD_HTTP_NOT_FOUND, "there is nothing at %s; see docs/ADMIN-API.md", path);
    else
        page_answer(r, strcmp(path, "/") == 0 ? "index.html" : path + 1);
}
