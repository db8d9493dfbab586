// SPDX-License-Identifier: MIT
#include "guard/address_count.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/hash.h"

static struct guard_shm *shm;
static size_t shm_bytes;

static void make(unsigned n_shards, uint32_t max_clients)
{
    if (shm != NULL)
        munmap(shm, shm_bytes);
    shm_bytes = guard_shm_bytes(n_shards, max_clients);
    void *p =
        mmap(NULL, shm_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(p != MAP_FAILED);
    shm = guard_shm_init(p, n_shards, max_clients);
}

static uint64_t hash_of(uint32_t i)
{
    const struct cidr c = {.hi = (uint64_t)i << 32, .family = AF_INET, .bits = 32};
    return address_hash(&c, ADDRESS_ITSELF);
}

static uint32_t rnd(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*seed >> 33);
}

/* ---- hashes */

static void addresses_and_subnets_are_different_things(void **state)
{
    struct cidr v4 = {.hi = UINT64_C(0x0a000000) << 32, .family = AF_INET, .bits = 32};
    struct cidr v6 = {.hi = v4.hi, .family = AF_INET6, .bits = 128};
    struct cidr net = {.hi = v4.hi, .family = AF_INET, .bits = 24};
    uint64_t h[] = {address_hash(&v4, ADDRESS_ITSELF), address_hash(&v4, ADDRESS_SUBNET),
                    address_hash(&v6, ADDRESS_ITSELF), address_hash(&v6, ADDRESS_SUBNET),
                    address_hash(&net, ADDRESS_SUBNET)};
    for (unsigned i = 0; i < 5; i++)
        for (unsigned k = 0; k < i; k++)
            assert_true(h[i] != h[k]);
    assert_true(h[0] == address_hash(&v4, ADDRESS_ITSELF));
}

static void hashes_depend_on_the_key(void **state)
{
    uint64_t before = hash_of(1);
    hash_init_fixed(2);
    assert_true(hash_of(1) != before);
    hash_init_fixed(1);
}

/* ---- one writer */

#define N_KEYS 400

static void it_counts_as_a_plain_array_does(void **state)
{
    static uint32_t expected[N_KEYS];
    uint64_t seed = 1;
    memset(expected, 0, sizeof expected);
    make(2, 250); /* room for 3/4 of 814 slots: no more than 400 keys are ever in it, but they stand close */
    for (unsigned step = 0; step < 300000; step++) {
        uint32_t key = rnd(&seed) % N_KEYS;
        if (rnd(&seed) % 100 < (step / 30000 % 2 == 0 ? 60u : 40u)) { /* it fills and empties in turns */
            assert_true(address_count_add(shm, 1, hash_of(key)));
            expected[key]++;
        } else {
            assert_int_equal(address_count_remove(shm, 1, hash_of(key)), expected[key] > 0);
            expected[key] -= expected[key] > 0;
        }
        if (step % 64 == 0) {
            uint32_t used = 0;
            for (uint32_t k = 0; k < N_KEYS; k++) {
                assert_int_equal(address_count_of(shm, 1, hash_of(k)), expected[k]);
                used += expected[k] > 0;
            }
            assert_int_equal(address_count_used(shm, 1), used);
        }
    }
    assert_int_equal(address_count_used(shm, 0), 0);
}

static void the_sum_is_over_all_shards(void **state)
{
    make(3, 10);
    address_count_add(shm, 0, hash_of(1));
    address_count_add(shm, 2, hash_of(1));
    address_count_add(shm, 2, hash_of(1));
    address_count_add(shm, 1, hash_of(2));
    assert_int_equal(address_count_sum(shm, hash_of(1)), 3);
    assert_int_equal(address_count_sum(shm, hash_of(2)), 1);
    assert_int_equal(address_count_sum(shm, hash_of(3)), 0);
    address_count_remove(shm, 2, hash_of(1));
    assert_int_equal(address_count_sum(shm, hash_of(1)), 2);
}

static void there_is_room_for_two_for_each_client_and_then_it_says_so(void **state)
{
    make(1, 1000);
    uint32_t n = 0;
    while (address_count_add(shm, 0, hash_of(n)))
        n++;
    assert_in_range(n, 2000, 2400);
    assert_int_equal(address_count_used(shm, 0), n);
    assert_true(address_count_add(shm, 0, hash_of(5))); /* those that are there still count */
    assert_int_equal(address_count_of(shm, 0, hash_of(5)), 2);
    assert_int_equal(address_count_of(shm, 0, hash_of(n)), 0);
    assert_true(address_count_remove(shm, 0, hash_of(7)));
    assert_true(address_count_add(shm, 0, hash_of(n)));
    for (uint32_t i = 0; i <= n; i++)
        while (address_count_remove(shm, 0, hash_of(i))) {
        }
    assert_int_equal(address_count_used(shm, 0), 0);
}

static void a_table_for_no_client_works(void **state)
{
    make(1, 0);
    assert_true(address_count_add(shm, 0, hash_of(1)));
    assert_int_equal(address_count_sum(shm, hash_of(1)), 1);
}

/* ---- the dead */

static void a_buried_table_counts_nothing_and_serves_again(void **state)
{
    make(2, 20000);
    for (uint32_t i = 0; i < 30000; i++) {
        address_count_add(shm, 0, hash_of(i));
        address_count_add(shm, 1, hash_of(i));
    }
    guard_shm_bury(shm, 0);
    assert_int_equal(address_count_used(shm, 0), 0);
    for (uint32_t i = 0; i < 30000; i++)
        assert_int_equal(address_count_sum(shm, hash_of(i)), 1);
    for (uint32_t i = 0; i < 30000; i++)
        assert_true(address_count_add(shm, 0, hash_of(i)));
    assert_int_equal(address_count_sum(shm, hash_of(29999)), 2);
}

/* Killed anywhere, also while entries are being moved; nobody waits for it, and its successor begins at 0. */
static void a_process_killed_in_the_middle_of_it(void **state)
{
    for (unsigned round = 0; round < 20; round++) {
        make(2, 300);
        address_count_add(shm, 1, hash_of(3));
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            for (uint64_t seed = round;;) {
                address_count_add(shm, 0, hash_of(rnd(&seed) % 500));
                address_count_remove(shm, 0, hash_of(rnd(&seed) % 500));
            }
        }
        while (address_count_used(shm, 0) < 20)
            sched_yield();
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        for (uint32_t i = 0; i < 500; i++)
            (void)address_count_sum(shm, hash_of(i)); /* comes back */
        guard_shm_bury(shm, 0);
        for (uint32_t i = 0; i < 500; i++)
            assert_int_equal(address_count_sum(shm, hash_of(i)), i == 3);
        assert_true(address_count_add(shm, 0, hash_of(3)));
        assert_true(address_count_remove(shm, 0, hash_of(3)));
        assert_int_equal(address_count_sum(shm, hash_of(3)), 1);
    }
}

/* ---- a reader beside the writer */

#define N_STAY  50
#define N_CHURN 600

static bool churn_ends;

/* Those below N_STAY stay, once each; the others come and go, so that those that stay move all the time. */
static void *churn(void *arg)
{
    uint64_t seed = 7;
    static bool there[N_CHURN];
    while (!__atomic_load_n(&churn_ends, __ATOMIC_RELAXED)) {
        uint32_t i = rnd(&seed) % N_CHURN;
        if (there[i])
            address_count_remove(shm, 0, hash_of(N_STAY + i));
        else
            address_count_add(shm, 0, hash_of(N_STAY + i));
        there[i] = !there[i];
    }
    return NULL;
}

static void a_reader_finds_what_stays_while_others_come_and_go(void **state)
{
    pthread_t writer;
    uint64_t seed = 1;

    make(1, 300);
    for (uint32_t i = 0; i < N_STAY; i++)
        address_count_add(shm, 0, hash_of(i));
    churn_ends = false;
    assert_int_equal(pthread_create(&writer, NULL, churn, NULL), 0);
    for (unsigned i = 0; i < 400000; i++) {
        assert_int_equal(address_count_sum(shm, hash_of(rnd(&seed) % N_STAY)), 1);
        assert_in_range(address_count_sum(shm, hash_of(N_STAY + rnd(&seed) % N_CHURN)), 0, 1);
    }
    __atomic_store_n(&churn_ends, true, __ATOMIC_RELAXED);
    pthread_join(writer, NULL);
}

/* ---- the limit, with all at once: may be passed by n_shards - 1 */

#define N_WRITERS 4
#define LIMIT     20

static void *enter_up_to_the_limit(void *arg)
{
    unsigned shard = (unsigned)(uintptr_t)arg;
    for (unsigned i = 0; i < 20000; i++) {
        if (address_count_sum(shm, hash_of(1)) < LIMIT)
            address_count_add(shm, shard, hash_of(1));
        else if (i % 3 == 0)
            address_count_remove(shm, shard, hash_of(1));
        address_count_add(shm, shard, hash_of(100 + i % 50));
        address_count_remove(shm, shard, hash_of(100 + (i + 25) % 50));
    }
    while (address_count_sum(shm, hash_of(1)) < LIMIT)
        address_count_add(shm, shard, hash_of(1));
    return NULL;
}

static void a_limit_is_passed_by_no_more_than_one_for_each_other_shard(void **state)
{
    pthread_t writers[N_WRITERS];
    make(N_WRITERS, 100);
    for (uintptr_t i = 0; i < N_WRITERS; i++)
        assert_int_equal(pthread_create(&writers[i], NULL, enter_up_to_the_limit, (void *)i), 0);
    for (unsigned i = 0; i < N_WRITERS; i++)
        pthread_join(writers[i], NULL);
    assert_in_range(address_count_sum(shm, hash_of(1)), LIMIT, LIMIT + N_WRITERS - 1);
}

/* ---- what it costs */

static void what_a_check_over_16_shards_takes(void **state)
{
    struct timespec a, b;
    uint64_t sum = 0;
    make(16, 100000);
    for (uint32_t i = 0; i < 20000; i++)
        address_count_add(shm, i % 16, hash_of(i));
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (uint32_t i = 0; i < 100000; i++)
        sum += address_count_sum(shm, hash_of(i % 40000));
    clock_gettime(CLOCK_MONOTONIC, &b);
    print_message("%.0f ns for the sum over 16 shards, %.1f MB if every page is touched\n",
                  ((double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec)) / 100000,
                  (double)shm_bytes / 1e6);
    assert_int_equal(sum, 60000);
    assert_in_range(shm_bytes, 16 * 100000 * 48, 16 * 100000 * 50);
}

static int set_up(void **state)
{
    hash_init_fixed(1);
    return 0;
}

static int tear_down(void **state)
{
    munmap(shm, shm_bytes);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_and_subnets_are_different_things),
        cmocka_unit_test(hashes_depend_on_the_key),
        cmocka_unit_test(it_counts_as_a_plain_array_does),
        cmocka_unit_test(the_sum_is_over_all_shards),
        cmocka_unit_test(there_is_room_for_two_for_each_client_and_then_it_says_so),
        cmocka_unit_test(a_table_for_no_client_works),
        cmocka_unit_test(a_buried_table_counts_nothing_and_serves_again),
        cmocka_unit_test(a_process_killed_in_the_middle_of_it),
        cmocka_unit_test(a_reader_finds_what_stays_while_others_come_and_go),
        cmocka_unit_test(a_limit_is_passed_by_no_more_than_one_for_each_other_shard),
        cmocka_unit_test(what_a_check_over_16_shards_takes),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
