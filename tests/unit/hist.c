/* Histograms: the stated error bound, percentiles, merging, the picture. */
#include "base/hist.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static void test_error_bound(void **state)
{
    (void)state;
    static struct cule_hist h;
    uint64_t v = 1;
    for (int i = 0; i < 2000; i++) {
        cule_hist_init(&h);
        cule_hist_add(&h, v);
        cule_hist_add(&h, UINT64_MAX);
        uint64_t got = cule_hist_at(&h, 50);
        assert_true(got >= v);
        assert_true((double)got <= (double)v * (1 + 1.0 / 64) + 1);
        v = v * 1103515245u + 12345u;
        v >>= (unsigned)i % 60;
        v |= 1;
    }
}

static void test_percentiles(void **state)
{
    (void)state;
    static struct cule_hist h;
    cule_hist_init(&h);
    assert_int_equal(cule_hist_at(&h, 50), 0);
    for (uint64_t i = 1; i <= 50; i++) {
        cule_hist_add(&h, i);
    }
    assert_int_equal(cule_hist_at(&h, 50), 25);
    assert_int_equal(cule_hist_at(&h, 0), 1);
    assert_int_equal(cule_hist_at(&h, 100), 50);
    assert_int_equal(h.min, 1);
    assert_int_equal(h.max, 50);
    assert_true(cule_hist_mean(&h) == 25.5);
    assert_true(cule_hist_stddev(&h) > 14.4 && cule_hist_stddev(&h) < 14.5);
}

static void test_merge(void **state)
{
    (void)state;
    static struct cule_hist a, b;
    cule_hist_init(&a);
    cule_hist_init(&b);
    for (int i = 0; i < 99; i++) {
        cule_hist_add(&a, 10);
    }
    cule_hist_add(&b, 1000000);
    cule_hist_merge(&a, &b);
    assert_int_equal(a.count, 100);
    assert_int_equal(cule_hist_at(&a, 99), 10);
    assert_int_equal(cule_hist_at(&a, 99.9), 1000000); /* never above the largest value added */
}

static void test_picture_counts_everything_once(void **state)
{
    (void)state;
    static struct cule_hist h;
    cule_hist_init(&h);
    for (uint64_t i = 0; i < 10000; i++) {
        cule_hist_add(&h, 1000 + i * 7 % 5000);
    }
    cule_hist_add(&h, 90000000);
    struct cule_buf b;
    cule_buf_init(&b, 0);
    assert_int_equal(cule_hist_draw(&h, 1000, "us", 12, 20, &b), 0);
    assert_int_equal(cule_buf_addc(&b, '\0'), 0);
    double sum = 0;
    unsigned lines = 0;
    for (char *p = (char *)cule_buf_data(&b); (p = strrchr(p, '|') ? strchr(p, '\n') : NULL); p++) {
        char *bar = p;
        while (*bar != '|') {
            bar--;
        }
        double part = 0;
        for (char *c = bar + 1; c < p; c++) {
            if (*c >= '0' && *c <= '9' && part == 0) {
                part = strtod(c, NULL);
                break;
            }
        }
        sum += part;
        lines++;
    }
    assert_true(lines >= 3 && lines <= 13);
    assert_true(sum > 99.9 && sum < 100.1);
    assert_non_null(strstr((char *)cule_buf_data(&b), "90000.00 us"));
    cule_buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_bound),
        cmocka_unit_test(test_percentiles),
        cmocka_unit_test(test_merge),
        cmocka_unit_test(test_picture_counts_everything_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
