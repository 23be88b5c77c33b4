/* value.c - parses configuration values. */
#include "config/value.h"

#include "core/metrics.h"
#include "core/number.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define SERVER_FORMAT "\"hostname:port:weight [name]\" or \"/path/unix_socket:weight [name]\""

struct unit {
    const char *name;
    uint64_t factor;
};

bool mr_value_has_control(const char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return true;
    return false;
}

static bool with_unit(const char *text, const struct unit *units, size_t n, uint64_t *out)
{
    const size_t digits = strspn(text, "0123456789");
    uint64_t v;

    if (!mr_parse_uint((struct mr_slice){text, digits}, UINT64_MAX, &v))
        return false;
    for (size_t i = 0; i < n; i++)
        if (strcasecmp(text + digits, units[i].name) == 0)
            return !__builtin_mul_overflow(v, units[i].factor, out);
    return false;
}

bool mr_value_time_ms(const char *text, uint64_t *ms)
{
    static const struct unit UNITS[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};

    return with_unit(text, UNITS, MR_COUNT(UNITS), ms);
}

bool mr_value_time_us(const char *text, uint64_t *us)
{
    static const struct unit UNITS[] = {{"us", 1}, {"ms", 1000}};

    return with_unit(text, UNITS, MR_COUNT(UNITS), us);
}

bool mr_value_size(const char *text, uint64_t *bytes)
{
    static const struct unit UNITS[] = {
        {"", 1}, {"b", 1}, {"kb", 1024}, {"mb", 1048576}, {"gb", 1073741824}};

    return with_unit(text, UNITS, MR_COUNT(UNITS), bytes);
}

static char *copy(struct mr_slice s)
{
    char *text = strndup(s.at, s.len);

    MR_CHECK(text != NULL);
    return text;
}

static char *copy_lower(struct mr_slice s)
{
    char *text = copy(s);

    for (char *c = text; *c != '\0'; c++)
        *c = (char)tolower((unsigned char)*c);
    return text;
}

static bool parse_port(struct mr_slice s, uint16_t *port)
{
    uint64_t v;

    if (!mr_parse_uint(s, UINT16_MAX, &v) || v == 0)
        return false;
    *port = (uint16_t)v;
    return true;
}

/* Cuts `s` at the last `c`; *tail gets what follows. */
static bool cut_last(struct mr_slice *s, char c, struct mr_slice *tail)
{
    const char *at = s->len > 0 ? memrchr(s->at, c, s->len) : NULL;

    if (at == NULL)
        return false;
    *tail = (struct mr_slice){at + 1, (size_t)(s->at + s->len - at - 1)};
    s->len = (size_t)(at - s->at);
    return true;
}

static enum mr_result listen_unix(struct mr_listen_config *out, struct mr_slice path,
                                  struct mr_error *err)
{
    struct mr_slice mode = {NULL, 0};
    unsigned bits = 0;

    if (cut_last(&path, ' ', &mode)) {
        if (mode.len == 0 || mode.len > 4)
            mode.len = 0;
        for (size_t i = 0; i < mode.len; i++) {
            if (mode.at[i] < '0' || mode.at[i] > '7')
                mode.len = 0;
            else
                bits = bits * 8 + (unsigned)(mode.at[i] - '0');
        }
        if (mode.len == 0 || bits > 0777)
            return mr_fail(err, MR_ECONFIG,
                           "has an invalid file permission in \"socket_path permission\" format "
                           "string; octal digits up to 0777 are allowed");
    }
    const enum mr_result rc = mr_addr_unix(&out->addr, path, err);
    if (rc != MR_OK) {
        mr_error_prefix(err, "has an invalid value");
        return MR_ECONFIG;
    }
    out->mode = (int)bits;
    out->text = copy(path);
    return MR_OK;
}

enum mr_result mr_value_listen(struct mr_listen_config *out, const char *text, struct mr_error *err)
{
    struct mr_slice host = mr_slice_of(text), port_text;
    uint16_t port;
    uint32_t n;

    *out = (struct mr_listen_config){0};
    if (text[0] == '/')
        return listen_unix(out, host, err);
    if (!cut_last(&host, ':', &port_text) || host.len == 0)
        return mr_fail(err, MR_ECONFIG, "has an invalid \"hostname:port\" format string");
    if (!parse_port(port_text, &port))
        return mr_fail(err, MR_ECONFIG,
                       "has an invalid port in \"hostname:port\" format string; 1 to 65535 is "
                       "allowed");
    if (mr_addr_resolve(&out->addr, 1, &n, host, port, err) != MR_OK) {
        mr_error_prefix(err, "has an invalid value");
        return MR_ECONFIG;
    }
    out->text = copy(mr_slice_of(text));
    return MR_OK;
}

void mr_listen_config_fini(struct mr_listen_config *l)
{
    free(l->text);
    *l = (struct mr_listen_config){0};
}

void mr_server_config_fini(struct mr_server_config *s)
{
    free(s->text);
    free(s->name);
    free(s->host);
    *s = (struct mr_server_config){0};
}

static enum mr_result bad_server(struct mr_error *err, const char *what)
{
    return mr_fail(err, MR_ECONFIG, "has %s in " SERVER_FORMAT " format string", what);
}

/* Name of a server without one. twemproxy omits port 11211. */
static char *default_name(struct mr_slice host, uint16_t port, bool is_unix)
{
    char *name = NULL;
    int rc;

    if (is_unix)
        rc = asprintf(&name, "%.*s:", (int)host.len, host.at);
    else if (port == 11211)
        rc = asprintf(&name, "%.*s", (int)host.len, host.at);
    else
        rc = asprintf(&name, "%.*s:%u", (int)host.len, host.at, port);
    MR_CHECK(rc >= 0);
    return name;
}

/* Its name begins with "_", and it has no port. */
static bool is_service(const char *text)
{
    return text[0] == '_' && memchr(text, ':', strcspn(text, " ")) == NULL;
}

static enum mr_result parse_service(struct mr_server_config *out, const char *text,
                                    struct mr_error *err)
{
    struct mr_slice rest = mr_slice_of(text), name = {NULL, 0};

    if (mr_value_has_control(text))
        return mr_fail(err, MR_ECONFIG, "has a control character in the name of a service");
    if (cut_last(&rest, ' ', &name) && name.len == 0)
        return mr_fail(err, MR_ECONFIG, "has an empty name");
    if (rest.len > MR_HOST_BYTES || name.len > MR_HOST_BYTES)
        return mr_fail(err, MR_ECONFIG, "has a name of more than %u bytes", MR_HOST_BYTES);
    out->service_place = 1;
    out->weight = 1;
    out->text = copy(mr_slice_of(text));
    out->host = copy(rest);
    out->name = copy(name.len > 0 ? name : rest);
    return MR_OK;
}

enum mr_result mr_value_sentinel(struct mr_server_config *out, const char *text,
                                 struct mr_error *err)
{
    const char *blank = strchr(text, ' ');
    const size_t place = blank != NULL ? (size_t)(blank - text) : strlen(text);
    char *weighted = NULL;

    *out = (struct mr_server_config){.is_sentinel = true};
    if (is_service(text))
        return parse_service(out, text, err);
    if (memchr(text, ':', place) == NULL)
        return mr_fail(err, MR_ECONFIG, "has an invalid \"hostname:port [name]\" format string");
    MR_CHECK(asprintf(&weighted, "%.*s:1%s", (int)place, text, text + place) >= 0);
    const enum mr_result rc = mr_value_server(out, weighted, err);
    free(weighted);
    out->is_sentinel = true;
    return rc;
}

enum mr_result mr_value_server(struct mr_server_config *out, const char *text, struct mr_error *err)
{
    const bool is_unix = text[0] == '/';
    struct mr_slice rest = mr_slice_of(text), name = {NULL, 0}, weight_text, port_text;
    uint64_t weight;

    *out = (struct mr_server_config){0};
    if (is_service(text))
        return parse_service(out, text, err);
    if (mr_value_has_control(text))
        return bad_server(err, "a control character");
    if (cut_last(&rest, ' ', &name) && name.len == 0)
        return bad_server(err, "an empty name");
    if (name.len > MR_NAME_BYTES)
        return mr_fail(err, MR_ECONFIG, "has a name of %zu bytes; at most %u are allowed", name.len,
                       MR_NAME_BYTES);
    if (!cut_last(&rest, ':', &weight_text))
        return mr_fail(err, MR_ECONFIG, "has an invalid " SERVER_FORMAT " format string");
    if (!mr_parse_uint(weight_text, INT32_MAX, &weight))
        return bad_server(err, "an invalid weight");
    if (weight == 0)
        return bad_server(err, "a zero weight");
    if (!is_unix && !cut_last(&rest, ':', &port_text))
        return mr_fail(err, MR_ECONFIG, "has an invalid " SERVER_FORMAT " format string");
    if (!is_unix && !parse_port(port_text, &out->port))
        return bad_server(err, "an invalid port");
    if (rest.len == 0 || (rest.len == 2 && rest.at[0] == '['))
        return bad_server(err, "an empty hostname");
    if (rest.len > MR_HOST_BYTES)
        return mr_fail(err, MR_ECONFIG, "has a hostname of %zu bytes; at most %u are allowed",
                       rest.len, MR_HOST_BYTES);
    if (is_unix && mr_addr_unix(&out->addr, rest, err) != MR_OK)
        return MR_ECONFIG;
    if (!is_unix)
        (void)mr_addr_numeric(&out->addr, rest, out->port); /* names are resolved later */
    out->weight = (uint32_t)weight;
    out->text = copy(mr_slice_of(text));
    out->host = is_unix ? NULL : copy(rest);
    out->name = name.len > 0 ? copy(name) : default_name(rest, out->port, is_unix);
    return MR_OK;
}

/* ---- commands ---- */

#define COMMAND_FORMAT "\"NAME ARITY read|write FIRST LAST STEP\", as in \"json.get -2 read 1 1 1\""

/* Parses the number at *at; a space or the end must follow. */
static bool next_number(const char **at, long min, long max, long *out)
{
    char *end;

    *out = strtol(*at, &end, 10);
    if (end == *at || (*end != ' ' && *end != '\0') || *out < min || *out > max)
        return false;
    *at = end;
    return true;
}

static bool read_class(const char **at, uint8_t *class)
{
    *at += strspn(*at, " ");
    const struct mr_slice word = {*at, strcspn(*at, " ")};
    *at += word.len;
    *class = mr_slice_eq(word, mr_slice_of("read")) ? MR_CLASS_READ : MR_CLASS_WRITE;
    return *class == MR_CLASS_READ || mr_slice_eq(word, mr_slice_of("write"));
}

/* All zero, or a range that starts after the command's name. */
static bool is_range(long first, long last, long step)
{
    if (first == 0)
        return last == 0 && step == 0;
    return step > 0 && (last < 0 || last >= first);
}

enum mr_result mr_value_command(struct mr_resp_command *out, const char *text, struct mr_error *err)
{
    const struct mr_slice name = {text, strcspn(text, " ")};
    const char *at = text + name.len;
    struct mr_resp_command c = {.handling = MR_RESP_ROUTE};
    long arity, first, last, step;

    if (name.len == 0 || name.len > MR_RESP_NAME_BYTES || mr_value_has_control(text))
        return mr_fail(err, MR_ECONFIG, "must begin with a name of 1 to %u characters; format: %s",
                       MR_RESP_NAME_BYTES, COMMAND_FORMAT);
    if (!next_number(&at, INT16_MIN, INT16_MAX, &arity) || !read_class(&at, &c.class) ||
        !next_number(&at, 0, INT8_MAX, &first) || !next_number(&at, INT8_MIN, INT8_MAX, &last) ||
        !next_number(&at, 0, INT8_MAX, &step) || *at != '\0' || arity == 0 ||
        !is_range(first, last, step))
        return mr_fail(err, MR_ECONFIG, "is not a command; format: %s", COMMAND_FORMAT);
    c.arity = (int16_t)arity;
    c.keys = first > 0 ? MR_RESP_KEYS : MR_RESP_NO_KEYS;
    c.a = (int8_t)first;
    c.b = (int8_t)last;
    c.c = (int8_t)step;
    c.name = copy_lower(name);
    *out = c;
    return MR_OK;
}

void mr_value_command_fini(struct mr_resp_command *c)
{
    free((void *)(uintptr_t)c->name);
}
