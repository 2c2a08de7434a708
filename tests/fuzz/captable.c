/* Capability tables held against a plain list of what is valid: any sequence of issue, attenuate, revoke and look-up.
 */
#include "wire/captable.h"

#include <stdlib.h>

enum { HANDLES_MAX = 64 };

struct model {
    uint64_t handle;
    int parent; /* -1: none */
    uint16_t rights;
    bool live;
};

static void kill_tree(struct model *m, int n, int root)
{
    m[root].live = false;
    for (int i = root + 1; i < n; i++) { /* what is derived comes after what it is derived from */
        if (m[i].live && m[i].parent >= 0 && !m[m[i].parent].live) {
            m[i].live = false;
        }
    }
}

static void check(bool ok)
{
    if (!ok) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cule_captable t;
    struct model m[HANDLES_MAX];
    int n = 0;
    if (size == 0) {
        return 0;
    }
    cule_captable_init(&t, data[0] & 1, 8 + (data[0] >> 4));
    for (size_t at = 1; at + 2 < size && n < HANDLES_MAX; at += 3) {
        int which = n ? data[at + 1] % n : 0;
        uint16_t rights = data[at + 2];
        uint64_t h = 0;
        switch (data[at] % 4) {
        case 0:
            if (cule_captable_issue(&t, data[at + 1] % 3, rights, rights, 0, &h) == 0) {
                m[n++] = (struct model){h, -1, rights, true};
            }
            break;
        case 1: {
            int rc = n ? cule_captable_attenuate(&t, m[which].handle, rights, 0, 0, &h) : CULE_EBAD_CAP;
            check(n == 0 || m[which].live || rc == CULE_EBAD_CAP);
            if (rc == 0) {
                check((rights & ~m[which].rights) == 0);
                m[n++] = (struct model){h, which, rights, true};
            }
            break;
        }
        case 2:
            if (n) {
                int rc = cule_captable_revoke(&t, m[which].handle);
                check((rc > 0) == m[which].live);
                if (rc > 0) {
                    kill_tree(m, n, which);
                }
            }
            break;
        default: break;
        }
        uint32_t live = 0;
        for (int i = 0; i < n; i++) {
            const struct cule_cap *c = cule_captable_find(&t, m[i].handle, rights, 0);
            check((c != NULL) == (m[i].live && (rights & ~m[i].rights) == 0));
            live += m[i].live;
        }
        check(live == t.live);
        uint64_t forged = 0;
        for (size_t i = 0; i < 3; i++) {
            forged = forged << 24 ^ data[at + i];
        }
        cule_captable_find(&t, forged, 0, 0);
    }
    cule_captable_release(&t);
    return 0;
}
