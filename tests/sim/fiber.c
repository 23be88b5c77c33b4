/* fiber.c - fibers with stacks of their own. */
#include "fiber.h"

#include "core/check.h"

#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#ifdef WITH_ASAN
#include <sanitizer/common_interface_defs.h>
#define STACK_BYTES (1024u * 1024u)
#else
#define STACK_BYTES (256u * 1024u)
#endif

#define GUARD_BYTES 4096u

struct sim_fiber {
    ucontext_t context, back;
    void *stack;
    void (*body)(void *arg);
    void *arg;
    bool over;
    struct sim_fiber *next_free;
#ifdef WITH_ASAN
    void *fake, *back_fake;
    const void *back_bottom;
    size_t back_size;
#endif
};

static struct sim_fiber *unused; /* stacks kept for reuse */
static struct sim_fiber *starting;

/* AddressSanitizer must know the current stack. */
static void leaving(struct sim_fiber *f, bool to_fiber)
{
#ifdef WITH_ASAN
    if (to_fiber)
        __sanitizer_start_switch_fiber(&f->back_fake, f->stack, STACK_BYTES);
    else
        __sanitizer_start_switch_fiber(f->over ? NULL : &f->fake, f->back_bottom, f->back_size);
#else
    (void)f;
    (void)to_fiber;
#endif
}

static void arrived(struct sim_fiber *f, bool in_fiber)
{
#ifdef WITH_ASAN
    if (in_fiber)
        __sanitizer_finish_switch_fiber(f->fake, &f->back_bottom, &f->back_size);
    else
        __sanitizer_finish_switch_fiber(f->back_fake, NULL, NULL);
#else
    (void)f;
    (void)in_fiber;
#endif
}

static void enter(void)
{
    struct sim_fiber *f = starting;

    arrived(f, true);
    f->body(f->arg);
    f->over = true;
    leaving(f, false);
    (void)setcontext(&f->back);
}

static void prepare(struct sim_fiber *f)
{
    MR_CHECK(getcontext(&f->context) == 0);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = STACK_BYTES;
    f->context.uc_link = NULL;
    makecontext(&f->context, enter, 0);
}

struct sim_fiber *sim_fiber_new(void (*body)(void *arg), void *arg)
{
    struct sim_fiber *f = unused;

    if (f != NULL) {
        unused = f->next_free;
    } else {
        f = calloc(1, sizeof(*f));
        MR_CHECK(f != NULL);
        f->stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        MR_CHECK(f->stack != MAP_FAILED && mprotect(f->stack, GUARD_BYTES, PROT_NONE) == 0);
    }
    f->body = body;
    f->arg = arg;
    f->over = false;
#ifdef WITH_ASAN
    f->fake = NULL;
#endif
    prepare(f);
    return f;
}

void sim_fiber_free(struct sim_fiber *f)
{
    f->next_free = unused;
    unused = f;
}

void sim_fiber_run(struct sim_fiber *f)
{
    MR_CHECK(!f->over);
    starting = f;
    leaving(f, true);
    (void)swapcontext(&f->back, &f->context);
    arrived(f, false);
}

void sim_fiber_yield(struct sim_fiber *f)
{
    leaving(f, false);
    (void)swapcontext(&f->context, &f->back);
    arrived(f, true);
}
