/* health.c - server health shared by all workers: back-off and ejection. */
#include "upstream/health.h"

#include <errno.h>

#define BACKOFF_FIRST_US 10000u
#define BACKOFF_MAX_US   1000000u
#define FAILING          2u      /* from this many failures on, connects back off */
#define CUT_US           100000u /* a restarting server cuts all connections within this time */

const char *mr_health_state_name(uint64_t state)
{
    static const char *const NAMES[MR_HEALTH_STATES] = {"unknown", "up", "down"};

    return NAMES[state < MR_HEALTH_STATES ? state : MR_HEALTH_UNKNOWN];
}

/* Delay between successive connects. */
static uint64_t backoff_us(uint64_t failures)
{
    const uint64_t doublings = failures > 2 ? failures - 2 : 0;

    return doublings > 6 ? BACKOFF_MAX_US : BACKOFF_FIRST_US << doublings;
}

int mr_health_may_connect(struct mr_health *h, uint64_t now_us)
{
    const uint64_t failures = mr_health_load(&h->failures), retry = mr_health_load(&h->retry_us);
    const int error = (int)mr_health_load(&h->error);

    if (failures < FAILING)
        return 0;
    if (now_us >= retry &&
        mr_health_claim(&h->retry_us, retry, now_us + backoff_us(failures + 1))) {
        mr_health_store(&h->failures, failures + 1); /* counts as failed until the server answers */
        return 0;
    }
    return error != 0 ? error : ECONNREFUSED;
}

bool mr_health_is_well(const struct mr_health *h, uint64_t now_us)
{
    if (mr_health_ejected(h) || mr_health_load(&h->state) == MR_HEALTH_DOWN)
        return false;
    return mr_health_load(&h->failures) == 0 || now_us >= mr_health_load(&h->retry_us);
}

static bool is_another(struct mr_health *h, uint64_t now_us, enum mr_failure failure,
                       uint64_t timeout_us)
{
    const uint64_t apart = failure == MR_FAILURE_TIMEOUT ? timeout_us : CUT_US;
    uint64_t *at = failure == MR_FAILURE_TIMEOUT ? &h->late_us : &h->cut_us;
    const uint64_t seen = mr_health_load(at);

    return failure == MR_FAILURE_SILENT ||
           (now_us >= seen + apart && mr_health_claim(at, seen, now_us));
}

uint64_t mr_health_failed(struct mr_health *h, uint64_t now_us, int error, enum mr_failure failure,
                          uint64_t timeout_us)
{
    const uint64_t failures = mr_health_load(&h->failures);

    mr_health_store(&h->error, (uint64_t)error);
    if (failure == MR_FAILURE_SILENT &&
        failures < FAILING) { /* later ones are counted by mr_health_may_connect */
        mr_health_store(&h->retry_us, now_us + backoff_us(FAILING));
        mr_health_store(&h->failures, FAILING);
    } else if (failures == 0) {
        mr_health_store(&h->retry_us, now_us);
        mr_health_store(&h->failures, 1);
    }
    return is_another(h, now_us, failure, timeout_us)
               ? __atomic_add_fetch(&h->strikes, 1, __ATOMIC_RELAXED)
               : mr_health_load(&h->strikes);
}

bool mr_health_is_shortage(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS ||
           error == EADDRNOTAVAIL;
}

static void count_change(struct mr_health *first)
{
    (void)__atomic_add_fetch(&first->ring_changes, 1, __ATOMIC_RELEASE);
}

bool mr_health_eject(struct mr_health *h, struct mr_health *first, uint64_t now_us)
{
    if (!mr_health_claim(&h->ejected_us, 0, now_us))
        return false;
    count_change(first);
    return true;
}

bool mr_health_restore(struct mr_health *h, struct mr_health *first)
{
    const uint64_t since = mr_health_load(&h->ejected_us);

    if (since == 0 || !mr_health_claim(&h->ejected_us, since, 0))
        return false;
    mr_health_store(&h->strikes, 0);
    count_change(first);
    return true;
}
