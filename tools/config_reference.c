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
    puts(
        "# Configuration reference\n"
        "\n"
        "This page is generated from `src/config/schema.def` by `./dev docs`.\n"
        "\n"
        "A file has either twemproxy's layout (pools at the top level, with an optional\n"
        "`global:` section beside them) or Meitu's (`global:` and `pools:`). The keys are the\n"
        "same. Every twemproxy file works unchanged; flow style, comments and quotes are fine.\n"
        "`millrace -t -c FILE` checks a file, and names all errors and warnings with their place.\n"
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
        "Plain numbers of twemproxy's own keys are milliseconds or counts. Keys added by\n"
        "millrace take units: `250ms`, `30s`, `5m`, `1h`; `64kb`, `16mb`, `1gb`.\n"
        "\n"
        "## Pool keys\n");
    table(MR_KEY_POOL);
    puts("\n## Global keys\n");
    table(MR_KEY_GLOBAL);
    puts(
        "\n"
        "## Servers\n"
        "\n"
        "`host:port:weight[ name]` or `/path/to.sock:weight[ name]`. ketama hashes the name, and\n"
        "the statistics show it. Give servers names, so that they can move to another address\n"
        "without moving their keys. The default is `host:port`, or `host` for port 11211, or the\n"
        "path followed by `:`. Servers are sorted by length of name, then by name; `modula` uses\n"
        "that order. IPv6 addresses may have brackets, and then the line needs quotes:\n"
        "`'[::1]:6379:1'`.\n"
        "\n"
        "A separate process looks up host names, at start and every `resolve_interval`. When a\n"
        "server's address changes, new connections use the new one, and requests already sent\n"
        "finish on the old connection. Seeds of a cluster and sentinels may also be the name of a\n"
        "service, `_redis._tcp.example.com[ name]`. See [names](names.md).");
    return 0;
}
