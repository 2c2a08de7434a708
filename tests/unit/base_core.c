/* Map, heap, byte queue, pool and list, each against a model so simple that it can be trusted. */
#include "base/buf.h"
#include "base/err.h"
#include "base/heap.h"
#include "base/list.h"
#include "base/map.h"
#include "base/pool.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static uint64_t seed;

static uint32_t rnd(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33);
}

/* An allocation may fail (torture runs): the program then ends in order. */
static void need(bool ok)
{
    if (!ok) {
        print_message("# out of memory\n");
        exit(77);
    }
}

/* --- map --- */

enum { KEYS = 600 };

static void map_agrees(const struct cule_map *m, const uint64_t *key, void *const *model)
{
    size_t count = 0;
    size_t seen = 0;
    size_t at = 0;
    uint64_t k;
    for (int i = 0; i < KEYS; i++) {
        assert_ptr_equal(cule_map_get(m, key[i]), model[i]);
        count += model[i] != NULL;
    }
    assert_int_equal(m->count, count);
    for (void *v; (v = cule_map_next(m, &at, &k));) {
        seen++;
        assert_ptr_equal(cule_map_get(m, k), v);
    }
    assert_int_equal(seen, count);
}

static void map_random(void **state)
{
    (void)state;
    static uint64_t key[KEYS];
    void *model[KEYS];
    for (int round = 0; round < 12; round++) {
        struct cule_map m;
        seed = 77u + (unsigned)round;
        cule_map_init(&m);
        memset(model, 0, sizeof model);
        for (int i = 0; i < KEYS; i++) {
            /* small counters, strided keys that share a home, and any */
            key[i] = round % 3 == 0 ? (uint64_t)i : round % 3 == 1 ? (uint64_t)i << 32 : (uint64_t)rnd() << 32 | rnd();
        }
        for (int step = 0; step < 6000; step++) {
            int i = (int)(rnd() % KEYS);
            bool grow = (step / 1500) % 2 == 0;
            if (rnd() % 10 < (grow ? 7u : 3u)) {
                model[i] = &key[rnd() % KEYS];
                need(cule_map_put(&m, key[i], model[i]) == 0);
            } else {
                assert_ptr_equal(cule_map_take(&m, key[i]), model[i]);
                model[i] = NULL;
            }
            if (step % 200 == 0) {
                map_agrees(&m, key, model);
            }
        }
        map_agrees(&m, key, model);
        for (int i = 0; i < KEYS; i++) {
            assert_ptr_equal(cule_map_take(&m, key[i]), model[i]);
            model[i] = NULL;
        }
        assert_int_equal(m.count, 0);
        assert_true(m.size <= 16);
        assert_null(cule_map_get(&m, key[0]));
        cule_map_release(&m);
        assert_null(cule_map_take(&m, 1));
    }
}

/* --- heap --- */

enum { NODES = 300 };

static void heap_random(void **state)
{
    (void)state;
    static struct cule_heap_node node[NODES];
    bool in[NODES] = {false};
    struct cule_heap h;
    seed = 5;
    memset(node, 0, sizeof node);
    cule_heap_init(&h);
    assert_null(cule_heap_top(&h));
    for (int step = 0; step < 20000; step++) {
        unsigned i = rnd() % NODES;
        if (rnd() % 3) {
            need(cule_heap_put(&h, &node[i], rnd() % 1000) == 0);
            in[i] = true;
        } else {
            cule_heap_remove(&h, &node[i]);
            in[i] = false;
        }
        uint64_t least = UINT64_MAX;
        size_t count = 0;
        for (int k = 0; k < NODES; k++) {
            assert_int_equal(node[k].at != 0, in[k]);
            if (in[k]) {
                count++;
                least = CULE_MIN(least, node[k].key);
            }
        }
        assert_int_equal(h.count, count);
        const struct cule_heap_node *top = cule_heap_top(&h);
        assert_true(count ? top->key == least : top == NULL);
    }
    uint64_t last = 0;
    for (struct cule_heap_node *n; (n = cule_heap_top(&h));) {
        assert_true(n->key >= last);
        last = n->key;
        cule_heap_remove(&h, n);
    }
    cule_heap_release(&h);
}

/* --- byte queue --- */

enum { MODEL_MAX = 1 << 20 };

static void buf_random(void **state)
{
    (void)state;
    static uint8_t model[MODEL_MAX];
    static uint8_t chunk[70000];
    struct cule_buf b;
    size_t head = 0;
    size_t tail = 0;
    seed = 9;
    cule_buf_init(&b, 200000);
    assert_null(cule_buf_data(&b));
    for (int step = 0; step < 4000; step++) {
        size_t n = rnd() % 4 ? rnd() % 300 : rnd() % sizeof chunk;
        if (rnd() % 2) {
            uint8_t *at;
            for (size_t i = 0; i < n; i++) {
                chunk[i] = (uint8_t)(i ^ (size_t)step);
            }
            int rc;
            if (rnd() % 2) {
                rc = cule_buf_add(&b, chunk, n);
            } else {
                /* more is reserved than is used */
                rc = cule_buf_reserve(&b, n + 1, &at);
                if (rc == 0) {
                    memcpy(at, chunk, n);
                    cule_buf_commit(&b, n);
                }
            }
            need(rc != CULE_ENOMEM);
            if (rc == CULE_ELIMIT) {
                assert_true(tail - head + n + 1 > 200000);
            } else {
                assert_int_equal(rc, 0);
                if (tail + n > MODEL_MAX) {
                    memmove(model, model + head, tail - head);
                    tail -= head;
                    head = 0;
                }
                memcpy(model + tail, chunk, n);
                tail += n;
            }
        } else {
            n = CULE_MIN(n, tail - head);
            cule_buf_take(&b, n);
            head += n;
        }
        assert_int_equal(cule_buf_len(&b), tail - head);
        assert_true(tail == head || memcmp(cule_buf_data(&b), model + head, tail - head) == 0);
    }
    cule_buf_release(&b);
}

static void buf_limits(void **state)
{
    (void)state;
    struct cule_buf b;
    struct cule_pool_stats before;
    struct cule_pool_stats after;
    uint8_t *at = NULL;
    cule_pool_stats(&before);
    cule_buf_init(&b, 10);
    assert_int_equal(cule_buf_add(&b, "", 0), 0);
    assert_null(b.base);
    int rc = cule_buf_addf(&b, "%s", "0123456789"); /* just fits: its NUL does not count */
    need(rc != CULE_ENOMEM);
    assert_int_equal(rc, 0);
    assert_memory_equal(cule_buf_data(&b), "0123456789", 10);
    assert_int_equal(cule_buf_addc(&b, 'x'), CULE_ELIMIT);
    assert_int_equal(cule_buf_addf(&b, "%d", 7), CULE_ELIMIT);
    assert_int_equal(cule_buf_addf(&b, "%s", ""), 0);
    assert_int_equal(cule_buf_reserve(&b, SIZE_MAX - 5, &at), CULE_ENOMEM);
    assert_int_equal(cule_buf_len(&b), 10);
    cule_buf_take(&b, 10);
    assert_null(b.base); /* an empty queue holds nothing */
    cule_pool_stats(&after);
    assert_int_equal(after.held_bytes, before.held_bytes);
    cule_buf_release(&b);
}

/* --- pool --- */

static void pool_random(void **state)
{
    (void)state;
    enum { HELD = 64 };
    static uint8_t *block[HELD];
    static size_t cap[HELD];
    static uint8_t mark[HELD];
    uint64_t held = 0;
    struct cule_pool_stats base;
    struct cule_pool_stats s;
    seed = 3;
    cule_pool_stats(&base);
    for (int step = 0; step < 5000; step++) {
        unsigned i = rnd() % HELD;
        if (block[i]) {
            assert_int_equal(block[i][0], mark[i]);
            assert_int_equal(block[i][cap[i] - 1], mark[i]);
            held -= cap[i];
            cule_pool_put(block[i], cap[i]);
            block[i] = NULL;
        } else {
            size_t n = 1 + (rnd() % 50 == 0 ? rnd() % 3000000 : rnd() % 5000);
            block[i] = cule_pool_get(n, &cap[i]);
            need(block[i] != NULL);
            assert_true(cap[i] >= n && cap[i] >= 256);
            mark[i] = (uint8_t)step;
            memset(block[i], mark[i], cap[i]);
            held += cap[i];
        }
        cule_pool_stats(&s);
        assert_int_equal(s.held_bytes - base.held_bytes, held);
        assert_true(s.high_water_bytes >= s.held_bytes);
        assert_true(s.gets >= s.misses);
    }
    for (int i = 0; i < HELD; i++) {
        if (block[i]) {
            cule_pool_put(block[i], cap[i]);
        }
    }
    /* the same size again comes from the free list */
    size_t c;
    void *p = cule_pool_get(1000, &c);
    need(p != NULL);
    cule_pool_put(p, c);
    cule_pool_stats(&s);
    uint64_t misses = s.misses;
    assert_ptr_equal(cule_pool_get(1024, &c), p);
    cule_pool_put(p, c);
    cule_pool_stats(&s);
    assert_int_equal(s.misses, misses);
    cule_pool_trim();
    cule_pool_stats(&s);
    assert_int_equal(s.held_bytes, base.held_bytes);
}

/* What a thread keeps when it ends is given back: the leak checker would say otherwise. */
static void *pool_user(void *arg)
{
    size_t cap;
    void *p = cule_pool_get(4096, &cap);
    if (p) {
        cule_pool_put(p, cap);
    }
    return arg;
}

static void pool_threads(void **state)
{
    (void)state;
    pthread_t t[4];
    for (int i = 0; i < 4; i++) {
        need(pthread_create(&t[i], NULL, pool_user, NULL) == 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], NULL);
    }
}

/* --- list --- */

static void lists(void **state)
{
    (void)state;
    struct item {
        int v;
        struct cule_list node;
    } item[10];
    struct cule_list head;
    cule_list_init(&head);
    assert_true(cule_list_empty(&head));
    assert_null(cule_list_pop(&head));
    for (int i = 0; i < 10; i++) {
        item[i].v = i;
        cule_list_init(&item[i].node);
        cule_list_remove(&item[i].node); /* in none: harmless */
        cule_list_push(&head, &item[i].node);
    }
    int want = 0;
    CULE_LIST_EACH (n, &head) {
        struct item *it = CULE_LIST_ENTRY(n, struct item, node);
        assert_int_equal(it->v, want++);
        if (it->v % 2) {
            cule_list_remove(n);
        }
    }
    assert_int_equal(want, 10);
    want = 0;
    for (struct cule_list *n; (n = cule_list_pop(&head)); want += 2) {
        assert_int_equal(CULE_LIST_ENTRY(n, struct item, node)->v, want);
    }
    assert_int_equal(want, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(map_random), cmocka_unit_test(heap_random), cmocka_unit_test(buf_random),
        cmocka_unit_test(buf_limits), cmocka_unit_test(pool_random), cmocka_unit_test(pool_threads),
        cmocka_unit_test(lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
