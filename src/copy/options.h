/* options.h - the command line of `millrace copy`. */
#pragma once

#include "proc/options.h"

struct mr_copy_options {
    const char *conf_file; /* NULL: first default location that exists */
    const char *from;
    const char *to;
    const char *match; /* NULL: all keys */
    const char *user;  /* NULL: the pools' own passwords */
    const char *state_file;
    uint64_t rate;   /* keys a second; 0: unlimited */
    uint64_t verify; /* keys to compare afterwards */
    uint64_t db;
    bool has_db;
    bool replace;
    bool restart;
    bool quiet;
    bool help;
};

extern const struct mr_option_desc MR_COPY_OPTIONS[];
extern const size_t MR_COPY_OPTION_COUNT;

/** Fills *o. On failure err has the message for the terminal. */
enum mr_result mr_copy_options_parse(struct mr_copy_options *o, int argc, char **argv,
                                     struct mr_error *err) MR_MUST_USE;
