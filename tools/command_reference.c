/* command_reference.c - prints docs/commands.md from the command table. */
#include "proto/resp/command.h"

#include <stdio.h>

static const struct {
    enum mr_resp_handling handling;
    const char *title, *text;
} GROUPS[] = {
    {MR_RESP_ROUTE, "Forwarded",
     "Sent to the server of their key. With several keys, all must live on one server (a "
     "one-server "
     "pool, or `hash_tag`); else the reply is `-CROSSSLOT Keys in request don't live on the same "
     "server`, or with `cross_server: first_key` the first key decides, as in twemproxy."},
    {MR_RESP_SPLIT_MGET, "Split: values",
     "Split over the servers of the keys; the values come back in the order of the keys."},
    {MR_RESP_SPLIT_MSET, "Split: writes", "Split over the servers of the keys; not atomic."},
    {MR_RESP_SPLIT_SUM, "Split: counts",
     "Split over the servers of the keys; the counts are added."},
    {MR_RESP_LOCAL, "Answered by the proxy", "Never reach a server."},
    {MR_RESP_ANYWHERE, "Forwarded to one server", "Have no key: one server answers for all."},
    {MR_RESP_REFUSE_PUBSUB, "Refused: publish and subscribe",
     "They need a connection of their own."},
    {MR_RESP_REFUSE_WHOLE, "Refused: whole keyspace", "They concern all keys of all servers."},
    {MR_RESP_BLOCK, "Blocking",
     "All keys must live on one server; the client gets a connection to it for the time."},
    {MR_RESP_WATCH, "Watching keys",
     "All keys must live on one server; the client gets a connection to it until EXEC, DISCARD or "
     "UNWATCH."},
    {MR_RESP_UNWATCH, "No more watching",
     "What was watched before has no effect on EXEC any more."},
    {MR_RESP_BEGIN, "Begin of a transaction",
     "Its commands are collected, and sent as one run with EXEC."},
    {MR_RESP_COMMIT, "End of a transaction", "All keys of one must live on one server."},
    {MR_RESP_DISCARD, "End of a transaction that is not executed",
     "What was collected is forgotten, watched keys too."},
    {MR_RESP_REFUSE_ADMIN, "Refused: administration", "Ask the server itself."},
};

int main(void)
{
    puts("# Redis commands\n"
         "\n"
         "This page is generated from `src/proto/resp/commands.def` by `./dev docs`.\n"
         "\n"
         "A refused or unknown command gets an error reply; the connection stays open.");
    for (size_t g = 0; g < sizeof(GROUPS) / sizeof(GROUPS[0]); g++) {
        const char *comma = "";
        printf("\n## %s\n\n%s\n\n", GROUPS[g].title, GROUPS[g].text);
        for (uint32_t i = 0; i < MR_RESP_COMMAND_COUNT; i++)
            if (MR_RESP_COMMANDS[i].handling == GROUPS[g].handling) {
                printf("%s%s", comma, MR_RESP_COMMANDS[i].name);
                comma = ", ";
            }
        puts("");
    }
    return 0;
}
