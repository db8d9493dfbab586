// SPDX-License-Identifier: MIT
/* A tool of the build, not installed: man/tgg_conf.ini.5 (--man) and docs/CONFIGURATION.md (--markdown) from
 * config_keys.def, on stdout. */
#include <stdio.h>
#include <string.h>

#include "common/config.h"
#include "common/config_table.h"

#define COLUMNS 78

static const char generated[] = "Generated from src/common/config_keys.def by make docs: change it there.";

static const char *section_title(enum config_section s)
{
    return s == CONFIG_SECTION_listen ? "listen NAME" : config_section_names[s];
}

static const char *default_text(const struct config_key *k)
{
    if (k->def == NULL)
        return "none, must be set";
    return k->def[0] != '\0' ? k->def : "empty";
}

/* A listener whose START keys change is removed, and another one is added. */
static const char *change_text(const struct config_key *k, const char *reload, const char *anew,
                               const char *start)
{
    if (k->live)
        return reload;
    return k->section == CONFIG_SECTION_listen ? anew : start;
}

/* ---- mdoc */

static void put_mdoc(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '\\')
            fputs("\\e", stdout);
        else
            putchar(text[i]);
    }
}

/* Words filled to COLUMNS; a sentence begins a line, as mandoc wants it. */
static void fill_mdoc(const char *text)
{
    size_t column = 0;
    while (*text != '\0') {
        size_t n = strcspn(text, " ");
        if (column > 0 && column + 1 + n > COLUMNS) {
            putchar('\n');
            column = 0;
        }
        if (column > 0) {
            putchar(' ');
            column++;
        } else if (*text == '.' || *text == '\'') {
            fputs("\\&", stdout);
        }
        put_mdoc(text, n);
        column += n;
        bool sentence_end = n > 0 && (text[n - 1] == '.' || text[n - 1] == '?');
        text += n + strspn(text + n, " ");
        if (sentence_end && *text != '\0') {
            putchar('\n');
            column = 0;
        }
    }
    putchar('\n');
}

static void man_key(const struct config_key *k)
{
    char expected[256], line[1024];
    printf(".It Cm %s\n", k->name);
    fill_mdoc(k->text);
    snprintf(line, sizeof line, "Takes %s; default: %s; changes %s.",
             config_value_expected(k, expected, sizeof expected), default_text(k),
             change_text(k, "at a reload", "at a reload (the listener is made anew)", "at a start"));
    fill_mdoc(line);
    if (k->php[0] != '\0') {
        snprintf(line, sizeof line, "In PHP: %s.", k->php);
        fill_mdoc(line);
    }
}

static void man_section(enum config_section s)
{
    printf(".Ss Section %s\n", section_title(s));
    fill_mdoc(config_section_texts[s]);
    printf(".Bl -tag -width Ds\n");
    for (unsigned i = 0; i < config_keys_n; i++) {
        if (config_keys[i].section == s)
            man_key(&config_keys[i]);
    }
    printf(".El\n");
}

static void print_man(void)
{
    printf(".\\\" SPDX-License-Identifier: MIT\n.\\\" %s\n", generated);
    fputs(".Dd November 22, 2026\n"
          ".Dt TGG_CONF.INI 5\n"
          ".Os\n"
          ".Sh NAME\n"
          ".Nm tgg_conf.ini\n"
          ".Nd configuration of the tgg gateway and register\n"
          ".Sh DESCRIPTION\n"
          "Sections of the form\n"
          ".Bq SECTION ,\n"
          "each with lines of the form KEY = VALUE.\n"
          "A value is the rest of its line, without the blanks around it;\n"
          "a line that begins with\n"
          ".Sq #\n"
          "or\n"
          ".Sq \\&;\n"
          "is a comment.\n"
          "A key that is left out has its default.\n"
          "An unknown section or key, a value out of its range and a key set twice are\n"
          "errors: nothing is started then.\n"
          ".Ql tgg gateway -t\n"
          "checks the file and prints the effective values.\n"
          "The file is read at the start, and again at a reload (HUP to the supervisor, or\n"
          ".Ql tgg reload ) :\n"
          "what each key says about changes is then followed, and a file with an error changes nothing.\n"
          "Sections of listeners may come and go with a reload.\n"
          "A listener that is made anew takes its new value as one that was removed and another that was\n"
          "added: clients that are there stay with the old one.\n"
          ".Pp\n"
          "Numbers of bytes may end in k, m or g, times in s, m or h.\n",
          stdout);
    for (unsigned s = 0; s < CONFIG_SECTION_N; s++)
        man_section((enum config_section)s);
    fputs(".Sh FILES\n"
          ".Bl -tag -width Ds\n"
          ".It Pa /etc/tgg_gw/tgg_conf.ini\n"
          "the default path\n"
          ".El\n"
          ".Sh EXAMPLES\n"
          "One WebSocket port, workers on the same machine:\n"
          ".Bd -literal -offset indent\n"
          "[gateway]\n"
          "lan_ip = 127.0.0.1\n"
          "start_port = 2900\n"
          "register_address = 127.0.0.1:1236\n"
          "\n"
          "[listen websocket]\n"
          "port = 8282\n"
          "protocol = websocket\n"
          ".Ed\n"
          ".Sh SEE ALSO\n"
          ".Xr tgg 8\n",
          stdout);
}

/* ---- markdown */

static void put_cell(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '|' || *text == '<')
            putchar('\\');
        putchar(*text);
    }
}

static void markdown_key(const struct config_key *k)
{
    char expected[256];
    printf("| `%s` | ", k->name);
    put_cell(config_value_expected(k, expected, sizeof expected));
    if (k->def != NULL && k->def[0] != '\0')
        printf(" | `%s` | ", k->def);
    else
        printf(" | %s | ", default_text(k));
    printf("%s | ", change_text(k, "reload", "reload: made anew", "start"));
    put_cell(k->php);
    printf(" | ");
    put_cell(k->text);
    printf(" |\n");
}

static void markdown_section(enum config_section s)
{
    printf("\n## [%s]\n\n%s\n\n| key | takes | default | changes at | in PHP | meaning |\n"
           "|---|---|---|---|---|---|\n",
           section_title(s), config_section_texts[s]);
    for (unsigned i = 0; i < config_keys_n; i++) {
        if (config_keys[i].section == s)
            markdown_key(&config_keys[i]);
    }
}

static void print_markdown(void)
{
    printf("<!-- %s -->\n", generated);
    fputs(
        "# Configuration\n\n"
        "One INI file, by default `/etc/tgg_gw/tgg_conf.ini`; another with `-c FILE`. A value is the rest "
        "of its line,\n"
        "without the blanks around it; a line that begins with `#` or `;` is a comment. A key that is left "
        "out has its\n"
        "default. An unknown section or key, a value out of its range and a key set twice are errors, told "
        "with file,\n"
        "line and what was expected; nothing is started then. `tgg gateway -t` checks the file and prints "
        "the effective\n"
        "values. At a reload (`tgg reload`, or HUP to the supervisor) it is read again: keys that change at "
        "a reload take\n"
        "effect, for clients that are connected too; others are named in the log. A file with an error "
        "changes "
        "nothing.\n"
        "Sections of listeners may come and go with a reload. *made anew*: a listener with another value is "
        "one that was\n"
        "removed and another that was added; clients that are there stay with the old one until they "
        "leave.\n\n"
        "Numbers of bytes may end in k, m or g (1024, 1024^2, 1024^3), times in s, m or h.\n",
        stdout);
    for (unsigned s = 0; s < CONFIG_SECTION_N; s++)
        markdown_section((enum config_section)s);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--man") == 0) {
        print_man();
    } else if (argc == 2 && strcmp(argv[1], "--markdown") == 0) {
        print_markdown();
    } else {
        fprintf(stderr, "usage: config_doc --man | --markdown\n");
        return 2;
    }
    return fflush(stdout) == 0 ? 0 : 1;
}
