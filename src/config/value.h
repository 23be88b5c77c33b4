/* value.h - configuration values from their text. */
#pragma once

#include "config/config.h"

/** True for text that would end a line, or worse, where it is shown: in a reply, the log, a page.
 */
bool mr_value_has_control(const char *text);

/** Digits with a unit: ms, s, m, h. False for anything else or an overflow. */
bool mr_value_time_ms(const char *text, uint64_t *ms);

/** Digits with a unit: us, ms. */
bool mr_value_time_us(const char *text, uint64_t *us);

/** Digits with an optional unit: b, kb, mb, gb (1024-based), in any letter case. */
bool mr_value_size(const char *text, uint64_t *bytes);

/** `listen`: fills *out (owned by the caller) or says what is wrong. */
enum mr_result mr_value_listen(struct mr_listen_config *out, const char *text,
                               struct mr_error *err) MR_MUST_USE;

/** A line of `servers`: fills *out (owned by the caller) or says what is wrong. */
enum mr_result mr_value_server(struct mr_server_config *out, const char *text,
                               struct mr_error *err) MR_MUST_USE;

void mr_listen_config_fini(struct mr_listen_config *l);
void mr_server_config_fini(struct mr_server_config *s);
