/* link.c - connections to pools, on hiredis. */
#include "copy/link.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#define CONNECT_S 5
#define REPLY_S   30 /* a server that has frozen must not stop us for ever */
#define MAX_WORDS 12

void mr_link_close(struct mr_link *link)
{
    if (link->context != NULL)
        redisFree(link->context);
    link->context = NULL;
    link->unread = 0;
    link->unsent = 0;
}

/* The address to connect to for one that is listened on: any becomes the loopback. */
static redisContext *dial(const struct mr_addr *addr)
{
    const struct timeval patience = {.tv_sec = CONNECT_S};
    struct in6_addr any = IN6ADDR_ANY_INIT;
    char text[INET6_ADDRSTRLEN];

    switch (addr->sa.any.sa_family) {
    case AF_UNIX:
        return redisConnectUnixWithTimeout(addr->sa.un.sun_path, patience);
    case AF_INET6:
        if (memcmp(&addr->sa.in6.sin6_addr, &any, sizeof(any)) == 0)
            (void)snprintf(text, sizeof(text), "::1");
        else
            (void)inet_ntop(AF_INET6, &addr->sa.in6.sin6_addr, text, sizeof(text));
        return redisConnectWithTimeout(text, ntohs(addr->sa.in6.sin6_port), patience);
    default:
        if (addr->sa.in.sin_addr.s_addr == htonl(INADDR_ANY))
            (void)snprintf(text, sizeof(text), "127.0.0.1");
        else
            (void)inet_ntop(AF_INET, &addr->sa.in.sin_addr, text, sizeof(text));
        return redisConnectWithTimeout(text, ntohs(addr->sa.in.sin_port), patience);
    }
}

/* Reads the reply to one request, which must be good. */
static enum mr_result expect_ok(struct mr_link *link, const char *what, struct mr_error *err)
{
    redisReply *reply = mr_link_reply(link);
    enum mr_result rc = MR_OK;

    if (reply == NULL)
        return mr_fail(err, MR_EPROTO, "pool '%s': %s", link->pool->name, link->trouble);
    if (reply->type == REDIS_REPLY_ERROR)
        rc = mr_fail(err, MR_EPROTO, "pool '%s': %s: %s", link->pool->name, what, reply->str);
    freeReplyObject(reply);
    return rc;
}

static enum mr_result log_in(struct mr_link *link, struct mr_error *err)
{
    char db[16];

    if (link->user != NULL) {
        mr_link_ask(link, "AUTH", link->user, link->password, NULL);
        const enum mr_result rc = expect_ok(link, "AUTH", err);
        if (rc != MR_OK)
            return rc;
    } else if (link->pool->redis_auth != NULL) {
        mr_link_ask(link, "AUTH", link->pool->redis_auth, NULL);
        const enum mr_result rc = expect_ok(link, "AUTH", err);
        if (rc != MR_OK)
            return rc;
    }
    (void)snprintf(db, sizeof(db), "%u", link->db);
    if (link->db != link->pool->redis_db)
        mr_link_ask(link, "SELECT", db, NULL);
    else
        mr_link_ask(link, "PING", NULL); /* is there a need to log in? */
    return expect_ok(link, link->user == NULL ? "without --user" : "as this user", err);
}

enum mr_result mr_link_open(struct mr_link *link, struct mr_error *err)
{
    const struct timeval patience = {.tv_sec = REPLY_S};

    if (link->context != NULL)
        return MR_OK;
    redisContext *c = dial(&link->pool->listens.at[0].addr);
    if (c == NULL || c->err != 0) {
        const enum mr_result rc =
            mr_fail(err, MR_ESYS, "pool '%s': no millrace answers at %s: %s", link->pool->name,
                    link->pool->listens.at[0].text, c != NULL ? c->errstr : "out of memory");
        if (c != NULL)
            redisFree(c);
        return rc;
    }
    (void)redisSetTimeout(c, patience);
    link->context = c;
    link->unread = 0;
    link->unsent = 0;
    const enum mr_result rc = log_in(link, err);
    if (rc != MR_OK)
        mr_link_close(link);
    return rc;
}

void mr_link_send(struct mr_link *link, int n, const char **args, const size_t *lens)
{
    MR_CHECK(redisAppendCommandArgv(link->context, n, args, lens) == REDIS_OK);
    link->unread++;
    for (int i = 0; i < n; i++)
        link->unsent += lens[i];
}

void mr_link_ask(struct mr_link *link, const char *first, ...)
{
    const char *args[MAX_WORDS] = {first};
    size_t lens[MAX_WORDS] = {strlen(first)};
    int n = 1;
    va_list ap;

    va_start(ap, first);
    for (const char *word = va_arg(ap, const char *); word != NULL;
         word = va_arg(ap, const char *)) {
        MR_CHECK(n < MAX_WORDS);
        args[n] = word;
        lens[n++] = strlen(word);
    }
    va_end(ap);
    mr_link_send(link, n, args, lens);
}

redisReply *mr_link_reply(struct mr_link *link)
{
    void *reply = NULL;

    if (link->context == NULL)
        return NULL;
    link->unsent = 0;
    if (redisGetReply(link->context, &reply) != REDIS_OK) {
        (void)snprintf(link->trouble, sizeof(link->trouble), "%s", link->context->errstr);
        mr_link_close(link);
        return NULL;
    }
    link->unread--;
    return reply;
}
