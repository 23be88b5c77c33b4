/* config_reference.c - prints docs/configuration.md from the schema. */
#include "config/schema.h"

#include <stdio.h>

static void table(enum mr_config_scope scope)
{
    puts("| key | default | meaning |\n|---|---|---|");
    for (size_t i = 0; i < MR_CONFIG_KEY_COUNT; i++) {
        const struct mr_config_key *k = &MR_CONFIG_KEYS[i];
        if (k->scope != scope)
            continue;
        if (k->default_text[0] != '\0')
            printf("| `%s` | `%s` | %s |\n", k->name, k->default_text, k->help);
        else
            printf("| `%s` | | %s |\n", k->name, k->help);
    }
}

int main(void)
{
    puts("# Configuration reference\n"
         "\n"
         "This page is generated from `src/config/schema.def` by `./dev docs`.\n"
         "\n"
         "A file is either in twemproxy's layout (pools at the top level, optionally with a\n"
         "`global:` section beside them) or in Meitu's (`global:` and `pools:`). The keys are the\n"
         "same. Every twemproxy file works unchanged; flow style, comments and "
         "quotes are fine.\n"
         "`millrace -t -c FILE` checks a file and says line, column, key and what is allowed.\n"
         "\n"
         "```yaml\n"
         "global:                       # optional\n"
         "  worker_processes: auto\n"
         "cache:                        # a pool\n"
         "  listen: 127.0.0.1:22121\n"
         "  redis: true\n"
         "  timeout: 400\n"
         "  servers:\n"
         "   - 10.0.0.1:6379:1 cache-a  # host:port:weight and a name\n"
         "   - 10.0.0.2:6379:1 cache-b\n"
         "```\n"
         "\n"
         "Plain numbers of twemproxy's own keys are milliseconds or counts. Keys that millrace\n"
         "adds take units: `250ms`, `30s`, `5m`, `1h`; `64kb`, `16mb`, `1gb`.\n"
         "\n"
         "## Pool keys\n");
    table(MR_KEY_POOL);
    puts("\n## Global keys\n");
    table(MR_KEY_GLOBAL);
    puts(
        "\n"
        "## Servers\n"
        "\n"
        "`host:port:weight[ name]` or `/path/to.sock:weight[ name]`. The name is what ketama "
        "hashes\n"
        "and what the statistics show; give one, and a server can move to another address without\n"
        "moving its keys. Without one it is `host:port`, or `host` alone for port 11211, or the\n"
        "path followed by `:`. Servers are ordered by length of name, then by name; `modula` "
        "counts\n"
        "in that order. Write IPv6 addresses with or without brackets; in brackets the line needs\n"
        "quotes: `'[::1]:6379:1'`.\n"
        "\n"
        "Host names are looked up by a helper process at start and every `resolve_interval`; a\n"
        "server whose name gets another address is followed, requests already sent finish on the\n"
        "old connection.");
    return 0;
}
