/* value.h - parses configuration values. */
#pragma once

#include "config/config.h"
#include "proto/resp/command.h"

/**
 * True if text has control characters, which could break replies, log lines or pages that show it.
 */
bool mr_value_has_control(const char *text);

/** Digits with a unit: ms, s, m, h. False for anything else, or on overflow. */
bool mr_value_time_ms(const char *text, uint64_t *ms);

/** Digits with a unit: us, ms. */
bool mr_value_time_us(const char *text, uint64_t *us);

/** Digits with an optional unit: b, kb, mb, gb (powers of 1024), in any case. */
bool mr_value_size(const char *text, uint64_t *bytes);

/** Parses `listen`. Fills *out (owned by the caller), or err. */
enum mr_result mr_value_listen(struct mr_listen_config *out, const char *text,
                               struct mr_error *err) MR_MUST_USE;

/** Parses a line of `servers`, possibly "_SERVICE._PROTO.DOMAIN [name]". Fills *out (owned by the
 * caller), or err. */
enum mr_result mr_value_server(struct mr_server_config *out, const char *text,
                               struct mr_error *err) MR_MUST_USE;

/** As mr_value_server, of "host:port" or a service, and an optional name. */
enum mr_result mr_value_sentinel(struct mr_server_config *out, const char *text,
                                 struct mr_error *err) MR_MUST_USE;

/** Parses a line of `commands`. Fills *out (its name is owned by the caller), or err. */
enum mr_result mr_value_command(struct mr_resp_command *out, const char *text,
                                struct mr_error *err) MR_MUST_USE;

void mr_value_command_fini(struct mr_resp_command *c);
void mr_listen_config_fini(struct mr_listen_config *l);
void mr_server_config_fini(struct mr_server_config *s);
