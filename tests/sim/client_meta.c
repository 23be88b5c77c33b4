/* client_meta.c - scripted clients: memcached's meta commands. */
#include "client_text.h"

#include <string.h>

#define QUIET_MAX 8u
#define FLAGS     "kOsfcv" /* of a retrieval; the first two are for all commands */

/* ---- requests ---- */

/* In e->text: "mg" etc., a blank, and the flags in order. */
struct asking {
    struct sim_expect *e;
    const char *verb;
    char letters[12];
    uint32_t n;
};

static void add_flag(struct sim_client *c, struct asking *a, char letter)
{
    a->letters[a->n++] = letter;
    if (letter == 'O')
        sim_bytes_addf(&c->out, " O%u", a->e->opaque);
    else
        sim_bytes_addf(&c->out, " %c", letter);
}

static void put_key(struct sim_client *c, const struct asking *a, bool base64)
{
    const struct mr_slice key = a->e->keys[0], word = base64 ? sim_to_base64(key) : key;

    sim_bytes_addf(&c->out, "%s %.*s", a->verb, (int)word.len, word.at);
}

/* Adds random flags in any order; quiet requests get flags that identify the reply. */
static void put_flags(struct sim_client *c, struct asking *a, bool base64)
{
    const bool get = strcmp(a->verb, "mg") == 0;
    const uint32_t n = get ? sizeof(FLAGS) - 1 : 2, first = sim_below(n);

    a->e->opaque = ++c->opaque;
    if (base64)
        add_flag(c, a, 'b');
    for (uint32_t i = 0; i < n; i++) {
        const char letter = FLAGS[(first + i) % n];
        if (letter == 'v' || (letter == 'O' && a->e->optional) || sim_once_in(3))
            add_flag(c, a, letter);
    }
    if (a->e->optional)
        sim_bytes_addf(&c->out, " q");
    a->letters[a->n] = '\0';
    a->e->text = sim_text("%s %s", a->verb, a->letters);
    a->e->reply_bytes += 40;
}

static void get(struct sim_client *c, bool quiet)
{
    const bool made = sim_once_in(2), base64 = sim_once_in(4);
    struct asking a = {.e = sim_expect_add(c, made ? SIM_WANT_VALUES : SIM_WANT_STORED),
                       .verb = "mg"};

    a.e->optional = quiet;
    a.e->reply_bytes = c->plan.size;
    if (made) {
        sim_set_keys(a.e, 1);
        a.e->keys[0] = sim_made_key(c, SIZE_MAX, &a.e->reply_bytes);
    } else {
        sim_plan_read(c, a.e);
    }
    put_key(c, &a, base64);
    put_flags(c, &a, base64);
    sim_bytes_addf(&c->out, "\r\n");
}

static void set(struct sim_client *c, bool quiet)
{
    static const char *const MODES[] = {[SIM_SET] = "",
                                        [SIM_ADD] = " ME",
                                        [SIM_REPLACE] = " MR",
                                        [SIM_APPEND] = " MA",
                                        [SIM_CAS] = ""};
    struct asking a = {.e = sim_expect_add(c, SIM_WANT_STORE), .verb = "ms"};
    enum sim_change how = (enum sim_change)sim_below(SIM_CAS + 1);
    const bool base64 = sim_once_in(4);

    a.e->optional = quiet;
    if (how == SIM_CAS && !sim_plan_cas(c, a.e))
        how = SIM_SET;
    if (how != SIM_CAS)
        sim_plan_change(c, a.e, how);
    const struct mr_slice value = sim_bytes_slice(&c->value);
    put_key(c, &a, base64);
    sim_bytes_addf(&c->out, " %zu", value.len);
    if (sim_once_in(2)) { /* before or after the others */
        put_flags(c, &a, base64);
        sim_bytes_addf(&c->out, "%s F%u", MODES[how], a.e->own != NULL ? a.e->version : 0);
    } else {
        sim_bytes_addf(&c->out, "%s F%u", MODES[how], a.e->own != NULL ? a.e->version : 0);
        put_flags(c, &a, base64);
    }
    if (how == SIM_CAS)
        sim_bytes_addf(&c->out, " C%llu", (unsigned long long)a.e->own->cas);
    sim_bytes_addf(&c->out, "\r\n");
    sim_bytes_add(&c->out, value.at, value.len);
    sim_bytes_addf(&c->out, "\r\n");
}

static void delete (struct sim_client *c, bool quiet)
{
    struct asking a = {.e = sim_expect_add(c, SIM_WANT_STORE), .verb = "md"};
    const bool base64 = sim_once_in(4);

    a.e->optional = quiet;
    sim_plan_change(c, a.e, SIM_DELETE);
    put_key(c, &a, base64);
    put_flags(c, &a, base64);
    sim_bytes_addf(&c->out, "\r\n");
}

static void count(struct sim_client *c, bool quiet)
{
    struct asking a = {.e = sim_expect_add(c, SIM_WANT_COUNT), .verb = "ma"};
    const bool makes = sim_once_in(2), down = sim_once_in(3), base64 = sim_once_in(4);
    const uint64_t initial = sim_below(1000), delta = sim_below(1000);

    a.e->optional = quiet;
    sim_plan_count(c, a.e, down, delta, makes ? &initial : NULL);
    put_key(c, &a, base64);
    put_flags(c, &a, base64);
    sim_bytes_addf(&c->out, " v D%u%s", (uint32_t)delta, down ? " MD" : "");
    if (makes)
        sim_bytes_addf(&c->out, " N0 J%u", (uint32_t)initial);
    sim_bytes_addf(&c->out, "\r\n");
}

static void debug(struct sim_client *c)
{
    struct asking a = {.e = sim_expect_add(c, SIM_WANT_START), .verb = "me"};
    const bool base64 = sim_once_in(2);
    size_t size;

    sim_set_keys(a.e, 1);
    a.e->keys[0] = sim_made_key(c, SIZE_MAX, &size);
    put_key(c, &a, base64);
    a.e->text = base64 ? "me b" : "me ";
    sim_bytes_addf(&c->out, base64 ? " b\r\n" : "\r\n");
}

static void one(struct sim_client *c, bool quiet)
{
    switch (sim_below(8)) {
    case 0:
        delete (c, quiet);
        break;
    case 1:
        count(c, quiet);
        break;
    case 2:
    case 3:
    case 4:
        set(c, quiet);
        break;
    default:
        get(c, quiet);
        break;
    }
}

static void mark(struct sim_client *c)
{
    struct sim_expect *e = sim_expect_add(c, SIM_WANT_TEXT);

    e->text = "MN\r\n";
    e->reply_bytes = 4;
    sim_bytes_addf(&c->out, "mn\r\n");
}

/* Errors are not attributed: the mark ends the requests that may have one. */
void sim_meta_request(struct sim_client *c)
{
    if (sim_once_in(4)) {
        for (uint32_t n = sim_between(1, QUIET_MAX); n > 0; n--)
            one(c, true);
        mark(c);
    } else if (sim_once_in(12)) {
        debug(c);
    } else if (sim_once_in(12)) {
        mark(c);
    } else {
        one(c, false);
    }
}

bool sim_is_meta(const struct sim_expect *e)
{
    return e->text != NULL && e->text[0] == 'm';
}

/* ---- replies ---- */

static struct mr_slice first_line(struct mr_slice reply)
{
    return (struct mr_slice){reply.at, sim_line_bytes(reply) - 2};
}

static struct mr_slice word_of(struct mr_slice line, uint32_t i)
{
    const char *at = sim_word_at(line, i);
    const char *end = at != NULL ? memchr(at, ' ', (size_t)(line.at + line.len - at)) : NULL;

    if (at == NULL)
        return (struct mr_slice){"", 0};
    return (struct mr_slice){at, (size_t)((end != NULL ? end : line.at + line.len) - at)};
}

bool sim_meta_is_for(const struct sim_expect *e, struct mr_slice reply)
{
    const struct mr_slice mine = mr_slice_of(sim_text("O%u", e->opaque)), line = first_line(reply);

    for (uint32_t i = 1; sim_word_at(line, i) != NULL; i++)
        if (mr_slice_eq(word_of(line, i), mine))
            return true;
    return false;
}

static struct mr_slice shown_key(const struct sim_expect *e)
{
    const struct mr_slice key = e->keys[0];

    return strchr(e->text + 3, 'b') != NULL ? sim_to_base64(key) : key;
}

/* Checks one flag of a reply, starting at word *i. `found`: the value is known. */
static bool flag_ok(const struct sim_client *c, const struct sim_expect *e, struct mr_slice line,
                    char letter, bool found, size_t size, uint32_t *i)
{
    const struct mr_slice word = word_of(line, *i);
    const struct mr_slice key = shown_key(e);

    if (strchr("bv", letter) != NULL || (!found && strchr("sfc", letter) != NULL))
        return true;
    ++*i;
    switch (letter) {
    case 'k':
        if (!mr_slice_eq(word, mr_slice_of(sim_text("k%.*s", (int)key.len, key.at))))
            return false;
        return strchr(e->text + 3, 'b') == NULL ||
               mr_slice_eq(word_of(line, (*i)++), mr_slice_of("b"));
    case 'O':
        return mr_slice_eq(word, mr_slice_of(sim_text("O%u", e->opaque)));
    case 's':
        return mr_slice_eq(word, mr_slice_of(sim_text("s%zu", size)));
    case 'f':
        if (word.len > 1 && word.at[0] == 'f')
            sim_check_flags(c, e, (uint32_t)sim_number_at(word.at + 1), line);
        return word.len > 1 && word.at[0] == 'f';
    case 'c':
        if (word.len > 1 && word.at[0] == 'c')
            sim_learn_cas(e, sim_number_at(word.at + 1));
        return word.len > 1 && word.at[0] == 'c';
    default:
        return false;
    }
}

/* The flags from word `i` on must be exactly the requested ones. */
static void check_flags(const struct sim_client *c, const struct sim_expect *e,
                        struct mr_slice line, uint32_t i, bool found, size_t size)
{
    for (const char *letter = e->text + 3; *letter != '\0'; letter++)
        if (!flag_ok(c, e, line, *letter, found, size, &i))
            sim_wrong(c, e, line, "other flags in the reply");
    if (sim_word_at(line, i) != NULL)
        sim_wrong(c, e, line, "more flags in the reply");
}

static void check_get(const struct sim_client *c, const struct sim_expect *e, struct mr_slice reply)
{
    const struct mr_slice line = first_line(reply);
    struct mr_slice value = {NULL, 0};

    if (sim_starts(reply, "VA ")) {
        value = (struct mr_slice){reply.at + line.len + 2, reply.len - line.len - 4};
        check_flags(c, e, line, 2, true, value.len);
    } else if (sim_starts(reply, "EN")) {
        /* a failure shown as a miss has no flags */
        if (!mr_slice_eq(line, mr_slice_of("EN")) || !sim_failure_is_miss)
            check_flags(c, e, line, 1, false, 0);
    } else {
        sim_wrong(c, e, reply, "another reply");
    }
    if (e->want == SIM_WANT_STORED)
        sim_check_stored(c, e, value);
    else if (value.at != NULL)
        sim_check_made(c, e, 0, value);
    else
        sim_check_miss(c, e, "a value is missing");
}

static void check_change(const struct sim_client *c, const struct sim_expect *e,
                         struct mr_slice reply)
{
    const struct mr_slice line = first_line(reply);
    const bool yes = sim_starts(reply, "HD");

    if (!yes && !sim_starts(reply, "NS") && !sim_starts(reply, "NF") && !sim_starts(reply, "EX"))
        sim_wrong(c, e, reply, "another reply");
    check_flags(c, e, line, 1, false, 0);
    sim_check_change(c, e, yes, reply);
}

static void check_count(const struct sim_client *c, const struct sim_expect *e,
                        struct mr_slice reply)
{
    const struct mr_slice line = first_line(reply);

    if (sim_starts(reply, "VA ")) {
        check_flags(c, e, line, 2, false, 0);
        sim_check_count(c, e, sim_number_at(reply.at + line.len + 2), reply);
    } else if (sim_starts(reply, "NF")) {
        check_flags(c, e, line, 1, false, 0);
        sim_check_change(c, e, false, reply);
    } else {
        sim_wrong(c, e, reply, "another reply");
    }
}

void sim_meta_check(struct sim_client *c, const struct sim_expect *e, struct mr_slice reply)
{
    const struct mr_slice key = shown_key(e);

    if (e->want == SIM_WANT_VALUES || e->want == SIM_WANT_STORED)
        check_get(c, e, reply);
    else if (e->want == SIM_WANT_STORE)
        check_change(c, e, reply);
    else if (e->want == SIM_WANT_COUNT)
        check_count(c, e, reply);
    else if (!sim_starts(reply, sim_text("ME %.*s exp", (int)key.len, key.at)))
        sim_wrong(c, e, reply, "another reply");
}
