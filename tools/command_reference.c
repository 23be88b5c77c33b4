/* command_reference.c - prints docs/commands.md from the command table. */
#include "proto/resp/command.h"

#include <stdio.h>

static const struct {
    enum mr_resp_handling handling;
    const char *title, *text;
} GROUPS[] = {
    {MR_RESP_ROUTE, "Forwarded",
     "Sent to the server of the key. If there are several keys, all must be on one server (the "
     "pool has only one, or a `hash_tag` keeps them together). Otherwise the reply is "
     "`-CROSSSLOT Keys in request don't live on the same server`, or with `cross_server: "
     "first_key` the first key decides, as in twemproxy."},
    {MR_RESP_SPLIT_MGET, "Split: values",
     "Split over the servers of the keys; the values are returned in the order of the keys."},
    {MR_RESP_SPLIT_MSET, "Split: writes", "Split over the servers of the keys; not atomic."},
    {MR_RESP_SPLIT_SUM, "Split: counts",
     "Split over the servers of the keys; the counts are added up."},
    {MR_RESP_LOCAL, "Answered by the proxy", "These never reach a server."},
    {MR_RESP_ANYWHERE, "Forwarded to one server", "These have no key, so any server can answer."},
    {MR_RESP_PUBLISH, "Publishing",
     "Goes to the server of the channel; in a cluster any node will do."},
    {MR_RESP_SUBSCRIBE, "Subscribing", "See protocol.md."},
    {MR_RESP_UNSUBSCRIBE, "Ending subscriptions", "The proxy answers."},
    {MR_RESP_WHOLE, "All servers",
     "Sent to all servers and the replies joined, or for SCAN from server to server; see "
     "protocol.md."},
    {MR_RESP_REFUSE_WHOLE, "Refused: whole keyspace", "These concern all keys of all servers."},
    {MR_RESP_BLOCK, "Blocking",
     "All keys must be on one server. The client gets a dedicated connection to it while it "
     "blocks."},
    {MR_RESP_CONFIRM, "Waiting for replicas and disks",
     "In pools with one server, and in replicated ones: the client gets a connection to the "
     "(master) "
     "server for the time. Elsewhere they are refused."},
    {MR_RESP_WATCH, "Watching keys",
     "All keys must be on one server. The client gets a dedicated connection to it until EXEC, "
     "DISCARD or UNWATCH."},
    {MR_RESP_UNWATCH, "Stop watching keys", "Keys watched so far no longer affect EXEC."},
    {MR_RESP_BEGIN, "Beginning a transaction",
     "The proxy queues its commands, and sends them in one run with EXEC."},
    {MR_RESP_COMMIT, "Executing a transaction", "All its keys must be on one server."},
    {MR_RESP_DISCARD, "Discarding a transaction", "Drops the queued commands and watched keys."},
    {MR_RESP_FACADE, "Facades",
     "Answered by the proxy in pools with `present_as`, see facades.md; refused in others."},
    {MR_RESP_REFUSE_ADMIN, "Refused: administration", "Send these to the server itself."},
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
