/* Capability tables: rights, generations, derivation, translation, and the time a look-up takes. */
#include "wire/captable.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static void rights_are_held_to(void **state)
{
    (void)state;
    struct cule_captable t;
    struct cule_err err;
    uint64_t h;
    cule_captable_init(&t, true, 0);
    assert_int_equal(cule_captable_issue(&t, 7, 99, 0x3, 0, &h), 0);
    assert_int_not_equal(h, 0);
    assert_int_equal(h & 1, 1);
    const struct cule_cap *c = cule_captable_find(&t, h, 0x1, 0);
    assert_non_null(c);
    assert_int_equal(c->target, 7);
    assert_int_equal(c->foreign, 99);
    assert_non_null(cule_captable_find(&t, h, 0x3, 0));
    assert_null(cule_captable_find(&t, h, 0x4, 0));
    assert_int_equal(cule_captable_why(&t, h, 0x4, 0, &err), CULE_EAUTH);
    /* Fewer rights than given may be presented; then only those count. More is a forgery. */
    uint64_t narrow = (h & UINT64_C(0xffffffffffff)) | UINT64_C(1) << 48;
    assert_non_null(cule_captable_find(&t, narrow, 0x1, 0));
    assert_null(cule_captable_find(&t, narrow, 0x2, 0));
    assert_null(cule_captable_find(&t, h | UINT64_C(0xffff) << 48, 0x1, 0));
    assert_int_equal(cule_captable_why(&t, h | UINT64_C(0xffff) << 48, 0, 0, &err), CULE_EBAD_CAP);
    assert_null(cule_captable_find(&t, h ^ 1, 0, 0));
    assert_null(cule_captable_find(&t, h + 2, 0, 0));
    assert_null(cule_captable_find(&t, h + (UINT64_C(1) << 32), 0, 0));
    assert_null(cule_captable_find(&t, 0, 0, 0));
    cule_captable_release(&t);
}

static void expiry(void **state)
{
    (void)state;
    struct cule_captable t;
    uint64_t h, d;
    cule_captable_init(&t, false, 0);
    assert_int_equal(cule_captable_issue(&t, 1, 2, 0xff, 1000, &h), 0);
    assert_int_equal(h & 1, 0);
    assert_non_null(cule_captable_find(&t, h, 1, 999));
    assert_null(cule_captable_find(&t, h, 1, 1000));
    assert_int_equal(cule_captable_attenuate(&t, h, 1, 5000, 10, &d), 0);
    assert_null(cule_captable_find(&t, d, 1, 1000));
    assert_int_equal(cule_captable_attenuate(&t, h, 1, 500, 10, &d), 0);
    assert_null(cule_captable_find(&t, d, 1, 500));
    assert_int_equal(cule_captable_attenuate(&t, h, 1, 0, 1000, &d), CULE_EBAD_CAP);
    cule_captable_release(&t);
}

static void derived_die_with_their_parent(void **state)
{
    (void)state;
    struct cule_captable t;
    uint64_t root, other, mid, leaf, leaf2;
    cule_captable_init(&t, true, 0);
    assert_int_equal(cule_captable_issue(&t, 1, 1, 0x7, 0, &root), 0);
    assert_int_equal(cule_captable_issue(&t, 1, 2, 0x7, 0, &other), 0);
    assert_int_equal(cule_captable_attenuate(&t, root, 0x3, 0, 0, &mid), 0);
    assert_int_equal(cule_captable_attenuate(&t, mid, 0x1, 0, 0, &leaf), 0);
    assert_int_equal(cule_captable_attenuate(&t, mid, 0x2, 0, 0, &leaf2), 0);
    assert_int_equal(cule_captable_attenuate(&t, mid, 0x4, 0, 0, &leaf2), CULE_EAUTH);
    assert_int_equal(t.live, 5);
    assert_int_equal(cule_captable_revoke(&t, leaf2), 1);
    assert_non_null(cule_captable_find(&t, leaf, 1, 0));
    assert_int_equal(cule_captable_revoke(&t, mid), 2);
    assert_null(cule_captable_find(&t, leaf, 0, 0));
    assert_non_null(cule_captable_find(&t, root, 0, 0));
    assert_int_equal(cule_captable_revoke(&t, mid), CULE_EBAD_CAP);
    assert_int_equal(cule_captable_revoke_target(&t, 1), 2);
    assert_null(cule_captable_find(&t, other, 0, 0));
    assert_int_equal(t.live, 0);
    cule_captable_release(&t);
}

/* A chain as deep as the table is revoked without recursion. */
static void deep_chain(void **state)
{
    (void)state;
    struct cule_captable t;
    uint64_t root, h;
    cule_captable_init(&t, true, 0);
    assert_int_equal(cule_captable_issue(&t, 1, 1, 0x7, 0, &root), 0);
    h = root;
    for (int i = 1; i < CULE_CAPTABLE_MAX; i++) {
        assert_int_equal(cule_captable_attenuate(&t, h, 0x7, 0, 0, &h), 0);
    }
    assert_int_equal(cule_captable_issue(&t, 1, 1, 0x7, 0, &h), CULE_ELIMIT);
    assert_int_equal(cule_captable_revoke(&t, root), CULE_CAPTABLE_MAX);
    assert_int_equal(t.live, 0);
    cule_captable_release(&t);
}

/* One slot is used up; its first handle never comes back to life, and the index is not used again. */
static void generations_never_wrap(void **state)
{
    (void)state;
    struct cule_captable t;
    uint64_t first, h;
    cule_captable_init(&t, true, 1);
    assert_int_equal(cule_captable_issue(&t, 1, 1, 1, 0, &first), 0);
    assert_int_equal(cule_captable_revoke(&t, first), 1);
    for (int i = 2; i <= 0xffff; i++) {
        assert_int_equal(cule_captable_issue(&t, 1, 1, 1, 0, &h), 0);
        assert_int_equal((uint32_t)h, (uint32_t)first);
        assert_null(cule_captable_find(&t, first, 0, 0));
        assert_int_equal(cule_captable_revoke(&t, h), 1);
    }
    assert_int_equal(t.retired, 1);
    assert_int_equal(cule_captable_issue(&t, 1, 1, 1, 0, &h), 0);
    assert_int_not_equal((uint32_t)h, (uint32_t)first);
    for (uint32_t g = 0; g <= 0xffff; g++) {
        assert_null(cule_captable_find(&t, cule_cap_make((uint32_t)first, (uint16_t)g, 1), 0, 0));
    }
    cule_captable_release(&t);
}

/* asker (link 1) - multiplexer - worker (link 2), and a second worker (link 3). */
static void translation(void **state)
{
    (void)state;
    struct cule_captable ta, tw, tx, worker;
    struct cule_err err;
    cule_captable_init(&ta, false, 0); /* we accepted the asker */
    cule_captable_init(&tw, false, 0); /* the workers were started: theirs are odd */
    cule_captable_init(&tx, false, 2);
    cule_captable_init(&worker, true, 0);
    struct cule_cap_side a = {&ta, 1}, w = {&tw, 2}, x = {&tx, 3};
    uint64_t theirs, given, back, again, out;

    assert_int_equal(cule_captable_issue(&worker, 42, 0, 0x3, 0, &theirs), 0);
    /* The worker gives it to the asker, who presents it and gets through with what the worker knows. */
    assert_int_equal(cule_captable_translate(&w, &a, theirs, true, 0, &given, &err), 0);
    assert_true(cule_captable_ours(&ta, given));
    assert_int_equal(cule_captable_translate(&w, &a, theirs, true, 0, &again, &err), 0);
    assert_int_equal(given, again);
    assert_int_equal(ta.live, 1);
    assert_int_equal(cule_captable_translate(&a, &w, given, false, 0, &back, &err), 0);
    assert_int_equal(back, theirs);
    assert_non_null(cule_captable_find(&worker, back, 0x2, 0));
    /* Narrowed by the asker. */
    uint64_t narrow = (given & UINT64_C(0xffffffffffff)) | UINT64_C(1) << 48;
    assert_int_equal(cule_captable_translate(&a, &w, narrow, false, 0, &back, &err), 0);
    assert_non_null(cule_captable_find(&worker, back, 0x1, 0));
    assert_null(cule_captable_find(&worker, back, 0x2, 0));
    /* It is no authority before another worker, but may be given to it, who can give it back. */
    assert_int_equal(cule_captable_translate(&a, &x, given, false, 0, &out, &err), CULE_EBAD_CAP);
    assert_int_equal(cule_captable_translate(&a, &x, given, true, 0, &out, &err), 0);
    assert_int_equal(cule_captable_translate(&x, &w, out, false, 0, &back, &err), 0);
    assert_int_equal(back, theirs);
    assert_int_equal(cule_captable_translate(&x, &w, out, true, 0, &back, &err), 0);
    assert_int_equal(back, theirs);
    /* Forged, and presented by its own issuer. */
    assert_int_equal(cule_captable_translate(&a, &w, given + 2, false, 0, &out, &err), CULE_EBAD_CAP);
    assert_int_equal(cule_captable_translate(&w, &a, theirs, false, 0, &out, &err), CULE_EBAD_CAP);
    assert_int_equal(cule_captable_translate(&a, &w, 0, false, 0, &out, &err), 0);
    assert_int_equal(out, 0);
    /* The table's limit. */
    assert_int_equal(cule_captable_translate(&a, &x, 1 | UINT64_C(1) << 32, true, 0, &out, &err), 0);
    assert_int_equal(cule_captable_translate(&a, &x, 3 | UINT64_C(1) << 32, true, 0, &out, &err), CULE_ELIMIT);
    /* The worker goes: the asker's handle is void. */
    assert_int_equal(cule_captable_revoke_target(&ta, 2), 1);
    assert_int_equal(cule_captable_translate(&a, &w, given, false, 0, &out, &err), CULE_EBAD_CAP);
    assert_non_null(strstr(err.text, "revoked"));
    cule_captable_release(&ta);
    cule_captable_release(&tw);
    cule_captable_release(&tx);
    cule_captable_release(&worker);
}

/* Not held to a figure here, a loaded machine would fail it; the figure is printed. */
static void look_up_time(void **state)
{
    (void)state;
    enum { CAPS = 1024, ROUNDS = 2000 };
    struct cule_captable t;
    static uint64_t h[CAPS];
    uint64_t sum = 0;
    struct timespec a, b;
    cule_captable_init(&t, true, 0);
    for (int i = 0; i < CAPS; i++) {
        assert_int_equal(cule_captable_issue(&t, (uint64_t)i, 1, 0x3, 0, &h[i]), 0);
    }
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (int r = 0; r < ROUNDS; r++) {
        for (int i = 0; i < CAPS; i++) {
            const struct cule_cap *c = cule_captable_find(&t, h[(i * 7 + r) & (CAPS - 1)], 0x1, 1);
            sum += c ? c->target : 1000000;
        }
    }
    clock_gettime(CLOCK_MONOTONIC, &b);
    assert_int_equal(sum, (uint64_t)ROUNDS * CAPS * (CAPS - 1) / 2);
    double ns = ((double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec)) / (ROUNDS * (double)CAPS);
    print_message("# capability look-up: %.2f ns\n", ns);
    cule_captable_release(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rights_are_held_to),
        cmocka_unit_test(expiry),
        cmocka_unit_test(derived_die_with_their_parent),
        cmocka_unit_test(deep_chain),
        cmocka_unit_test(generations_never_wrap),
        cmocka_unit_test(translation),
        cmocka_unit_test(look_up_time),
    };
    return cmocka_run_group_tests_name("captable", tests, NULL, NULL);
}
