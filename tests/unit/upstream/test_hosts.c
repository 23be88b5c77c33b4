/* test_hosts.c - names that workers ask for and the resolver answers. */
#include "unit/test.h"
#include "upstream/hosts.h"

static struct mr_hosts hosts;
static struct mr_addr found;

static int fresh(void **state)
{
    (void)state;
    memset(&hosts, 0, sizeof(hosts));
    return 0;
}

static enum mr_host_answer find(const char *name)
{
    return mr_hosts_find(&hosts, mr_slice_of(name), 6379, 1, &found);
}

static void resolve(uint32_t place, const char *host)
{
    struct mr_addr addr;

    assert_true(mr_addr_numeric(&addr, mr_slice_of(host), 0));
    mr_host_resolved(&hosts.at[place], &addr);
}

static void a_name_is_pending_until_it_is_resolved(void **state)
{
    (void)state;
    assert_int_equal(find("a.test"), MR_HOST_IS_PENDING);
    assert_int_equal(find("a.test"), MR_HOST_IS_PENDING); /* asked for once */
    assert_int_equal(hosts.at[1].state, MR_HOST_FREE);
    resolve(0, "10.0.0.1");
    assert_int_equal(find("a.test"), MR_HOST_IS_KNOWN);
    assert_string_equal(found.text, "10.0.0.1:6379");
    resolve(0, "::1");
    assert_int_equal(find("a.test"), MR_HOST_IS_KNOWN);
    assert_string_equal(found.text, "[::1]:6379");
}

static void one_name_is_no_part_of_another(void **state)
{
    (void)state;
    assert_int_equal(find("a.test"), MR_HOST_IS_PENDING);
    resolve(0, "10.0.0.1");
    assert_int_equal(find("a.tes"), MR_HOST_IS_PENDING);
    assert_int_equal(find("a.testy"), MR_HOST_IS_PENDING);
    assert_int_equal(hosts.at[2].state, MR_HOST_ASKED);
}

/* A failure matters only until there has been an address. */
static void failures(void **state)
{
    (void)state;
    assert_int_equal(find("a.test"), MR_HOST_IS_PENDING);
    mr_host_resolved(&hosts.at[0], NULL);
    assert_int_equal(find("a.test"), MR_HOST_IS_UNKNOWN);
    resolve(0, "10.0.0.1");
    mr_host_resolved(&hosts.at[0], NULL);
    assert_int_equal(find("a.test"), MR_HOST_IS_KNOWN);
}

static void what_is_no_host_name_is_not_asked_for(void **state)
{
    static const char *const WRONG[] = {"", "?", "a b", "a/b", "-a", ".a", "a:1", "a\r\nb"};
    char longest[MR_HOST_NAME_SIZE + 1];

    (void)state;
    for (size_t i = 0; i < MR_COUNT(WRONG); i++)
        assert_int_equal(find(WRONG[i]), MR_HOST_IS_UNKNOWN);
    memset(longest, 'a', sizeof(longest));
    longest[MR_HOST_NAME_SIZE] = '\0';
    assert_int_equal(find(longest), MR_HOST_IS_UNKNOWN);
    assert_int_equal(hosts.at[0].state, MR_HOST_FREE);
    longest[MR_HOST_NAME_SIZE - 1] = '\0';
    assert_int_equal(find(longest), MR_HOST_IS_PENDING);
    assert_int_equal(mr_hosts_find(NULL, mr_slice_of("a"), 1, 1, &found), MR_HOST_IS_UNKNOWN);
}

static void places_are_limited_and_used_again(void **state)
{
    char name[32];

    (void)state;
    for (uint32_t i = 0; i < MR_HOSTS; i++) {
        (void)snprintf(name, sizeof(name), "host%u.test", i);
        assert_int_equal(find(name), MR_HOST_IS_PENDING);
    }
    assert_int_equal(find("one.more"), MR_HOST_IS_UNKNOWN);
    assert_int_equal(hosts.no_room, 1);
    mr_host_forget(&hosts.at[7]);
    assert_int_equal(find("one.more"), MR_HOST_IS_PENDING);
    assert_string_equal(hosts.at[7].name, "one.more");
}

/* As if the resolver died at that moment. */
static void a_half_written_address_is_not_read(void **state)
{
    (void)state;
    assert_int_equal(find("a.test"), MR_HOST_IS_PENDING);
    resolve(0, "10.0.0.1");
    hosts.at[0].version++;
    assert_int_equal(find("a.test"), MR_HOST_IS_PENDING);
    resolve(0, "10.0.0.2");
    assert_int_equal(find("a.test"), MR_HOST_IS_KNOWN);
    assert_string_equal(found.text, "10.0.0.2:6379");
}

static void a_reload_keeps_what_is_known(void **state)
{
    static struct mr_hosts old;

    (void)state;
    assert_int_equal(find("failed.test"), MR_HOST_IS_PENDING);
    assert_int_equal(find("a.test"), MR_HOST_IS_PENDING);
    assert_int_equal(find("asked.test"), MR_HOST_IS_PENDING);
    mr_host_resolved(&hosts.at[0], NULL);
    resolve(1, "10.0.0.1");
    hosts.lookups = 5;
    old = hosts;
    memset(&hosts, 0, sizeof(hosts));
    mr_hosts_keep(&hosts, &old);
    assert_int_equal(hosts.lookups, 5);
    assert_int_equal(hosts.at[1].state, MR_HOST_FREE);
    assert_int_equal(find("a.test"), MR_HOST_IS_KNOWN);
    assert_int_equal(find("failed.test"), MR_HOST_IS_PENDING); /* it may resolve by now */
}

#define F(name) cmocka_unit_test_setup(name, fresh)
RUN(F(a_name_is_pending_until_it_is_resolved), F(one_name_is_no_part_of_another), F(failures),
    F(what_is_no_host_name_is_not_asked_for), F(places_are_limited_and_used_again),
    F(a_half_written_address_is_not_read), F(a_reload_keeps_what_is_known))
