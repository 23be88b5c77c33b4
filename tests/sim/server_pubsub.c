/* server_pubsub.c - publish and subscribe in a model of Redis. */
#include "server.h"

#include <string.h>

struct sim_topic {
    struct sim_topic *next;
    struct mr_slice name;
};

static struct sim_topic **find(struct sim_server_conn *sc, struct mr_slice name)
{
    struct sim_topic **at = &sc->topics;

    while (*at != NULL && !mr_slice_eq((*at)->name, name))
        at = &(*at)->next;
    return at;
}

static void confirm(const struct sim_server_conn *sc, const char *what, struct mr_slice name,
                    struct sim_bytes *out)
{
    unsigned n = 0;

    for (const struct sim_topic *t = sc->topics; t != NULL; t = t->next)
        n++;
    sim_bytes_addf(out, "*3\r\n$%zu\r\n%s\r\n$%zu\r\n%.*s\r\n:%u\r\n", strlen(what), what, name.len,
                   (int)name.len, name.at, n);
}

static void subscribe(struct sim_server_conn *sc, struct mr_slice name, struct sim_bytes *out)
{
    struct sim_topic **at = find(sc, name);

    if (*at == NULL) {
        char *copy = sim_alloc(name.len + 1);
        memcpy(copy, name.at, name.len);
        *at = sim_alloc(sizeof(**at));
        (*at)->name = (struct mr_slice){copy, name.len};
    }
    confirm(sc, "subscribe", name, out);
}

static void unsubscribe(struct sim_server_conn *sc, struct mr_slice name, struct sim_bytes *out)
{
    struct sim_topic **at = find(sc, name);

    if (*at != NULL)
        *at = (*at)->next;
    confirm(sc, "unsubscribe", name, out);
}

static void publish(struct sim_server *s, struct mr_slice name, struct mr_slice message,
                    struct sim_bytes *out)
{
    unsigned n = 0;

    for (struct sim_server_conn *sc = s->conns; sc != NULL; sc = sc->next) {
        struct sim_bytes push = {0};
        if (sc->silent || sc->closing || *find(sc, name) == NULL)
            continue;
        sim_bytes_addf(&push, "*3\r\n$7\r\nmessage\r\n$%zu\r\n%.*s\r\n$%zu\r\n%.*s\r\n", name.len,
                       (int)name.len, name.at, message.len, (int)message.len, message.at);
        sim_bytes_send(&push, sc->conn);
        n++;
    }
    sim_bytes_addf(out, ":%u\r\n", n);
}

bool sim_server_pubsub(struct sim_server_conn *sc, const struct mr_slice *args, uint32_t n,
                       struct sim_bytes *out)
{
    if (mr_slice_eq_nocase(args[0], "subscribe") && n == 2)
        subscribe(sc, args[1], out);
    else if (mr_slice_eq_nocase(args[0], "unsubscribe") && n == 2)
        unsubscribe(sc, args[1], out);
    else if (mr_slice_eq_nocase(args[0], "publish") && n == 3)
        publish(sc->server, args[1], args[2], out);
    else if (mr_slice_eq_nocase(args[0], "ping") && sc->topics != NULL)
        sim_bytes_addf(out, "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
    else
        return false;
    return true;
}
