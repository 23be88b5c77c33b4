/* dns.c - asks name servers, with c-ares. */
#include "net/dns.h"

#include "core/check.h"

#include <ares.h>
#include <arpa/nameser.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>

#define RESOLV_CONF "/etc/resolv.conf"
#define TIMEOUT_MS  1000 /* until the first repetition; then twice that */
#define TRIES       2

struct mr_dns {
    ares_channel channel;
    char *servers; /* NULL: those of resolv.conf */
    struct timespec conf_at;
    uint32_t n_open; /* questions */
};

/* A question of our user: for one host, or for a service with several. */
struct question {
    struct mr_dns *dns;
    mr_dns_done *done;
    void *arg;
    uint32_t n_open; /* hosts, and one while they are being asked for */
    bool has_ttl;
    struct mr_dns_answer answer;
};

/* One host of a question. */
struct host {
    struct question *question;
    uint16_t port;
};

/* ---- the channel ---- */

static struct timespec changed_at(void)
{
    struct stat st;

    return stat(RESOLV_CONF, &st) == 0 ? st.st_mtim : (struct timespec){0};
}

static enum mr_result open_channel(struct mr_dns *dns, struct mr_error *err)
{
    struct ares_options options = {.timeout = TIMEOUT_MS, .tries = TRIES};

    dns->conf_at = changed_at();
    int rc = ares_init_options(&dns->channel, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES);
    if (rc != ARES_SUCCESS)
        return mr_fail(err, MR_ESYS, "cannot read the settings for DNS: %s", ares_strerror(rc));
    if (dns->servers == NULL)
        return MR_OK;
    rc = ares_set_servers_ports_csv(dns->channel, dns->servers);
    if (rc == ARES_SUCCESS)
        return MR_OK;
    ares_destroy(dns->channel);
    return mr_fail(err, MR_ESYS, "cannot use the name servers %s: %s", dns->servers,
                   ares_strerror(rc));
}

/* Takes over a new resolv.conf. While questions are open, that has to wait. */
static void reread(struct mr_dns *dns)
{
    const struct timespec at = changed_at();
    struct mr_dns fresh = *dns;
    struct mr_error err;

    if (dns->n_open > 0 || dns->servers != NULL ||
        (at.tv_sec == dns->conf_at.tv_sec && at.tv_nsec == dns->conf_at.tv_nsec))
        return;
    if (open_channel(&fresh, &err) != MR_OK)
        return; /* it is tried again with the next question */
    ares_destroy(dns->channel);
    *dns = fresh;
}

bool mr_dns_is_server_list(const char *servers)
{
    ares_channel channel;

    if (servers[0] == '\0' || ares_init(&channel) != ARES_SUCCESS)
        return false;
    const bool good = ares_set_servers_ports_csv(channel, servers) == ARES_SUCCESS;
    ares_destroy(channel);
    return good;
}

enum mr_result mr_dns_open(struct mr_dns **dns, const char *servers, struct mr_error *err)
{
    struct mr_dns *made = calloc(1, sizeof(*made));
    const int rc = ares_library_init(ARES_LIB_INIT_ALL);

    MR_CHECK(made != NULL);
    MR_CHECK(rc == ARES_SUCCESS);
    if (servers != NULL) {
        made->servers = strdup(servers);
        MR_CHECK(made->servers != NULL);
    }
    const enum mr_result result = open_channel(made, err);
    if (result != MR_OK) {
        free(made->servers);
        free(made);
        ares_library_cleanup();
        return result;
    }
    *dns = made;
    return MR_OK;
}

void mr_dns_close(struct mr_dns *dns)
{
    if (dns == NULL)
        return;
    ares_destroy(dns->channel);
    free(dns->servers);
    free(dns);
    ares_library_cleanup();
}

/* ---- questions ---- */

static struct question *new_question(struct mr_dns *dns, mr_dns_done *done, void *arg)
{
    struct question *q = calloc(1, sizeof(*q));

    MR_CHECK(q != NULL);
    reread(dns);
    dns->n_open++;
    q->dns = dns;
    q->done = done;
    q->arg = arg;
    q->n_open = 1;
    return q;
}

static void one_less(struct question *q)
{
    if (--q->n_open > 0)
        return;
    if (q->answer.n > 0)
        q->answer.error = NULL;
    else if (q->answer.error == NULL)
        q->answer.error = "it has no addresses";
    q->dns->n_open--;
    q->done(q->arg, &q->answer);
    free(q);
}

static void fail(struct question *q, int status)
{
    q->answer.partial = true;
    q->answer.error = ares_strerror(status);
}

static void add_address(struct question *q, const struct sockaddr *sa, socklen_t len, uint16_t port,
                        int ttl_s)
{
    struct mr_dns_answer *answer = &q->answer;
    struct mr_addr *addr = &answer->addrs[answer->n];
    const uint32_t ttl = ttl_s > 0 ? (uint32_t)ttl_s : 0;

    if (answer->n == MR_DNS_ADDRESSES || !mr_addr_inet(addr, sa, len, port))
        return;
    for (uint32_t i = 0; i < answer->n; i++)
        if (mr_addr_eq(&answer->addrs[i], addr))
            return;
    answer->n++;
    if (!q->has_ttl || ttl < answer->ttl_s)
        answer->ttl_s = ttl;
    q->has_ttl = true;
}

static void on_host(void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
    struct host *host = arg;
    struct question *q = host->question;

    (void)timeouts;
    if (status != ARES_SUCCESS)
        fail(q, status);
    for (struct ares_addrinfo_node *i = status == ARES_SUCCESS ? info->nodes : NULL; i != NULL;
         i = i->ai_next)
        add_address(q, i->ai_addr, i->ai_addrlen, host->port, i->ai_ttl);
    if (info != NULL)
        ares_freeaddrinfo(info);
    free(host);
    one_less(q);
}

static void ask_host(struct question *q, const char *name, uint16_t port)
{
    const struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct host *host = malloc(sizeof(*host));

    MR_CHECK(host != NULL);
    *host = (struct host){.question = q, .port = port};
    q->n_open++;
    ares_getaddrinfo(q->dns->channel, name, NULL, &hints, on_host, host);
}

void mr_dns_ask_host(struct mr_dns *dns, const char *host, uint16_t port, mr_dns_done *done,
                     void *arg)
{
    struct question *q = new_question(dns, done, arg);

    ask_host(q, host, port);
    one_less(q);
}

/* The targets with the lowest priority number come first. A target of "." is none. */
static void ask_targets(struct question *q, const struct ares_srv_reply *list)
{
    int32_t done = -1;

    for (;;) {
        int32_t next = INT32_MAX;
        for (const struct ares_srv_reply *i = list; i != NULL; i = i->next)
            if (i->priority > done && i->priority < next)
                next = i->priority;
        if (next == INT32_MAX)
            return;
        for (const struct ares_srv_reply *i = list; i != NULL; i = i->next)
            if (i->priority == next && i->host[0] != '\0' && strcmp(i->host, ".") != 0 &&
                i->port > 0)
                ask_host(q, i->host, i->port);
        done = next;
    }
}

static void on_service(void *arg, int status, int timeouts, unsigned char *bytes, int len)
{
    struct question *q = arg;
    struct ares_srv_reply *list = NULL;

    (void)timeouts;
    if (status == ARES_SUCCESS)
        status = ares_parse_srv_reply(bytes, len, &list);
    if (status == ARES_SUCCESS)
        ask_targets(q, list);
    else
        fail(q, status);
    if (list != NULL)
        ares_free_data(list);
    one_less(q);
}

void mr_dns_ask_service(struct mr_dns *dns, const char *service, mr_dns_done *done, void *arg)
{
    struct question *q = new_question(dns, done, arg);

    ares_query(dns->channel, service, ns_c_in, ns_t_srv, on_service, q);
}

/* ---- sockets ---- */

uint32_t mr_dns_prepare(struct mr_dns *dns, struct pollfd *fds, int *wait_ms)
{
    ares_socket_t sockets[ARES_GETSOCK_MAXNUM];
    const unsigned bits = (unsigned)ares_getsock(dns->channel, sockets, ARES_GETSOCK_MAXNUM);
    struct timeval max = {.tv_sec = *wait_ms / 1000, .tv_usec = *wait_ms % 1000 * 1000L}, until;
    uint32_t n = 0;

    _Static_assert(ARES_GETSOCK_MAXNUM <= MR_DNS_SOCKETS, "room for all sockets");
    for (int i = 0; i < ARES_GETSOCK_MAXNUM; i++) {
        /* the library's macros shift into the sign */
        const bool reads = (bits >> i & 1u) != 0,
                   writes = (bits >> (i + ARES_GETSOCK_MAXNUM) & 1u) != 0;
        if (reads || writes)
            fds[n++] = (struct pollfd){
                .fd = sockets[i], .events = (short)((reads ? POLLIN : 0) | (writes ? POLLOUT : 0))};
    }
    const struct timeval *at = ares_timeout(dns->channel, &max, &until);
    if (at != NULL)
        *wait_ms = (int)(at->tv_sec * 1000 + (at->tv_usec + 999) / 1000);
    return n;
}

void mr_dns_handle(struct mr_dns *dns, const struct pollfd *fds, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (fds[i].revents != 0)
            ares_process_fd(dns->channel, fds[i].revents & ~POLLOUT ? fds[i].fd : ARES_SOCKET_BAD,
                            fds[i].revents & POLLOUT ? fds[i].fd : ARES_SOCKET_BAD);
    ares_process_fd(dns->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD); /* time-outs */
}
