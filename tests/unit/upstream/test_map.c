/* test_map.c - the map of discovered servers: copies, and what another configuration keeps of it.
 */
#include "unit/test.h"
#include "upstream/map.h"

#include <arpa/inet.h>

#define NAMED  2u /* servers in the file */
#define PLACES 5u

/* A pool of two servers from the file and three places for discovered ones. */
struct side {
    struct mr_server_config servers[PLACES];
    struct mr_pool_config config;
    struct mr_health health[PLACES];
    struct mr_node_map *map;
    struct mr_node_table *table; /* to be written, or read */
};

static struct side old, new;

static struct mr_addr address(uint16_t port)
{
    struct mr_addr addr = {0};

    if (port > 0)
        assert_true(mr_addr_numeric(&addr, mr_slice_of("127.0.0.1"), port));
    return addr;
}

static void open_side(struct side *side, uint16_t first, uint16_t second, uint32_t places)
{
    memset(side, 0, sizeof(*side));
    side->servers[0].addr = address(first);
    side->servers[1].addr = address(second);
    side->config.servers.at = side->servers;
    side->config.servers.n = places;
    side->config.servers.named = NAMED;
    side->map = calloc(1, mr_node_map_bytes(&side->config));
    side->table = calloc(1, mr_node_table_bytes(&side->config));
}

static void close_side(struct side *side)
{
    free(side->map);
    free(side->table);
}

static void know(struct side *side, uint32_t place, uint16_t port)
{
    side->health[place].addr = address(port);
    side->health[place].node = MR_NODE_KNOWN;
}

static void write_table(struct side *side)
{
    mr_node_map_write(side->map, side->table, mr_node_table_bytes(&side->config));
}

static bool copy_table(struct side *side)
{
    return mr_node_map_copy(side->map, side->table, mr_node_table_bytes(&side->config));
}

static void keep(void)
{
    mr_node_map_keep(&new.config, new.map, new.health, &old.config, old.map, old.health);
}

/* The port of a server by its number plus 1. */
static uint16_t port_of(const struct side *side, uint16_t number)
{
    if (number == 0)
        return 0;
    const struct mr_addr *addr = mr_health_is_known(&side->health[number - 1u])
                                     ? &side->health[number - 1u].addr
                                     : &side->servers[number - 1u].addr;
    return ntohs(addr->sa.in.sin_port);
}

static void a_map_is_copied_only_whole(void **state)
{
    (void)state;
    open_side(&old, 1, 2, PLACES);
    assert_int_equal(mr_node_table_bytes(&old.config) % 8, 0);
    assert_false(copy_table(&old)); /* empty */
    old.table->owner[MR_SLOTS - 1] = 2;
    old.table->master_of[PLACES - 1] = 1;
    write_table(&old);
    memset(old.table, 0, mr_node_table_bytes(&old.config));
    assert_true(copy_table(&old));
    assert_int_equal(old.table->owner[MR_SLOTS - 1], 2);
    assert_int_equal(old.table->master_of[PLACES - 1], 1);
    old.map->version++; /* its writer has died */
    assert_false(copy_table(&old));
    write_table(&old);
    assert_true(copy_table(&old));
    assert_int_equal(old.map->version % 2, 0);
    close_side(&old);
}

/* Servers are the same by their address, wherever the configurations list them. */
static void another_configuration_keeps_what_it_has_room_for(void **state)
{
    (void)state;
    open_side(&old, 1, 2, PLACES);
    know(&old, 2, 3);
    know(&old, 3, 4);
    know(&old, 4, 5); /* has no slots and no master */
    for (uint32_t s = 0; s < MR_SLOTS; s++)
        old.table->owner[s] = (uint16_t)(s % 4); /* none, 1, 2, 3 */
    old.table->master_of[3] = 1;
    old.map->looks = 7;
    write_table(&old);

    open_side(&new, 2, 9, PLACES);
    keep();
    assert_true(copy_table(&new));
    for (uint32_t s = 0; s < MR_SLOTS; s++)
        assert_int_equal(port_of(&new, new.table->owner[s]), s % 4);
    assert_int_equal(new.table->owner[2], 1); /* the file has it in another place */
    assert_int_equal(new.map->looks, 7);
    unsigned replicas = 0;
    for (uint16_t i = 0; i < PLACES; i++) {
        if (new.table->master_of[i] == 0)
            continue;
        replicas++;
        assert_int_equal(port_of(&new, (uint16_t)(i + 1u)), 4);
        assert_int_equal(port_of(&new, new.table->master_of[i]), 1);
    }
    assert_int_equal(replicas, 1);
    close_side(&new);

    open_side(&new, 2, 9, NAMED + 1);
    keep();
    assert_true(copy_table(&new));
    for (uint32_t s = 0; s < MR_SLOTS; s++) /* there was one place, which 1 got */
        assert_int_equal(port_of(&new, new.table->owner[s]), s % 4 == 3 ? 0 : s % 4);
    assert_int_equal(new.table->master_of[0] + new.table->master_of[2], 0);
    close_side(&new);
    close_side(&old);
}

static void an_empty_map_leaves_nothing(void **state)
{
    (void)state;
    open_side(&old, 1, 2, PLACES);
    open_side(&new, 1, 2, PLACES);
    know(&old, 2, 3);
    keep();
    assert_int_equal(new.map->version, 0);
    assert_false(mr_health_is_known(&new.health[2]));
    close_side(&new);
    close_side(&old);
}

RUN(T(a_map_is_copied_only_whole), T(another_configuration_keeps_what_it_has_room_for),
    T(an_empty_map_leaves_nothing))
