/* options.h - the command line. */
#pragma once

#include "core/result.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mr_options {
    const char *conf_file;  /* NULL: first default location that exists */
    const char *log_file;   /* NULL: from the configuration */
    const char *pid_file;   /* NULL: from the configuration */
    const char *stats_addr; /* NULL: from the configuration */
    const char *kill_word;  /* -k; NULL for none */
    int log_level;          /* -1: from the configuration */
    uint32_t stats_port;    /* 0: from the configuration */
    uint32_t mbuf_size;     /* limits keys to this size less 48 bytes */
    int64_t workers;        /* -1: from the configuration */
    const char *diff_file;  /* --diff; NULL for none */
    const char *engine;     /* NULL: from the configuration */
    bool help;
    bool version;
    bool test_conf;
    bool daemonize;
    bool describe_stats;
};

/** A row of options.def. */
struct mr_option_desc {
    const char *group; /* heading in the help */
    int code;          /* the letter; 256 or more if there is none */
    const char *name;
    const char *argument; /* "" for none */
    const char *help;
};

extern const struct mr_option_desc MR_OPTIONS[];
extern const size_t MR_OPTION_COUNT;

/** Fills *o. On failure err has the message for the terminal. */
enum mr_result mr_options_parse(struct mr_options *o, int argc, char **argv,
                                struct mr_error *err) MR_MUST_USE;

/** Prints "Usage: ", this text, and options on stderr. */
void mr_options_print(const char *usage, const struct mr_option_desc *options, size_t n);

/** Print the usage and the list of statistics on stderr. */
void mr_options_print_usage(void);
void mr_options_print_stats(void);
