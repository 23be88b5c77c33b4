/* about.c - describes the build: version, I/O engines, libraries. */
#include "proc/about.h"

#include "core/result.h"
#include "core/version.h"
#include "net/loop.h"

#include <ares.h>
#include <hiredis/hiredis.h>
#include <jansson.h>
#include <microhttpd.h>
#include <nettle/version.h>
#include <stdio.h>
#include <sys/utsname.h>
#include <yaml.h>

#ifdef __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

void mr_about_print_name(void)
{
    struct mr_error err;

    (void)fprintf(stderr, "This is millrace-%s\nasync event backend: %s\n\n", MR_VERSION,
                  mr_loop_choose_engine("auto", &err));
}

static void print_engine(const char *name)
{
    struct mr_error err;

    if (mr_loop_choose_engine(name, &err) != NULL)
        (void)fprintf(stderr, "  %-14s available\n", name);
    else
        (void)fprintf(stderr, "  %-14s not available: %s\n", name, err.text);
}

static const char *jansson(void)
{
#if JANSSON_VERSION_HEX >= 0x020d00
    return jansson_version_str();
#else
    return JANSSON_VERSION;
#endif
}

void mr_about_print_build(void)
{
    struct utsname u;

    if (uname(&u) == 0)
        (void)fprintf(stderr, "I/O engines on %s %s:\n", u.sysname, u.release);
    else
        (void)fputs("I/O engines:\n", stderr);
    print_engine("epoll");
    print_engine("io_uring");
    (void)fprintf(stderr, "\ncompiled with %s\n", COMPILER);
    (void)fputs("\nlibraries:\n", stderr);
    (void)fprintf(stderr, "  %-14s %s\n", "c-ares", ares_version(NULL));
    (void)fprintf(stderr, "  %-14s %d.%d.%d\n", "hiredis", HIREDIS_MAJOR, HIREDIS_MINOR,
                  HIREDIS_PATCH);
    (void)fprintf(stderr, "  %-14s %s\n", "libyaml", yaml_get_version_string());
    (void)fprintf(stderr, "  %-14s %s\n", "jansson", jansson());
    (void)fprintf(stderr, "  %-14s %s\n", "libmicrohttpd", MHD_get_version());
    (void)fprintf(stderr, "  %-14s %d.%d\n", "nettle", nettle_version_major(),
                  nettle_version_minor());
#ifdef MR_WITH_URING
    (void)fprintf(stderr, "  %-14s %s\n", "liburing", MR_LIBURING);
#endif
}
