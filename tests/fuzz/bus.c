/*
 * The broker's core under hostile clients: the input is cut into steps, each a client's message of any kind, credit
 * given or taken, time passing, a store that answers or fails. Nothing may crash, leak or keep memory.
 */
#include "../lib/bus_fake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PEERS = 4, STEPS_MAX = 400 };

static struct peer peers[PEERS];

struct input {
    const uint8_t *p;
    size_t n;
};

static unsigned byte(struct input *in)
{
    if (in->n == 0) {
        return 0;
    }
    in->n--;
    return *in->p++;
}

static const char *const texts[] = {
    "{\"pattern\":\"a/#\",\"ack\":true,\"ack_wait_ms\":50,\"max_deliver\":2}",
    "{\"pattern\":\"+/b\",\"group\":\"g\",\"queue\":2}",
    "{\"pattern\":\"a/b\",\"respond\":true}",
    "{\"pattern\":\"#\",\"from_seq\":0,\"tagged\":true,\"queue\":1}",
    "{\"pattern\":\"d/#\",\"ack\":true,\"durable\":\"w\",\"queue\":1,\"max_inflight\":1}",
    "{\"pattern\":\"#\"}",
    "{\"client\":2}",
    "{\"follow\":true}",
    "{\"what\":\"all\"}",
    "{\"pattern\":\"a/#\",\"history\":3,\"overflow\":\"block\",\"limit\":1}",
    "{\"grant\":{\"client\":1,\"rights\":3}}",
    "{\"delay_ms\":5}",
    "{\"dead\":true}",
    "a/b",
    "a/c body",
    "d/x body",
    "a/bx",
};

static void message(struct input *in, struct peer *p)
{
    struct cule_msg m = {0};
    char text[300];
    unsigned how = byte(in);
    static const int kinds[] = {CULE_EVENT, CULE_REQUEST, CULE_REQUEST, CULE_DATA, CULE_CANCEL, CULE_EVENT};
    cule_frame_init(&m.h, (enum cule_kind)kinds[how % 6]);
    m.h.priority = (uint8_t)((how >> 4) & 3);
    m.h.flags = (how & 64 ? CULE_OPEN : 0) | (how & 128 ? CULE_RETAIN : 0);
    m.h.service = byte(in) % 8 ? (uint32_t)CULE_S_BUS : (uint32_t)CULE_S_CULE;
    m.h.op = m.h.service == (uint32_t)CULE_S_BUS ? 0x300 + byte(in) % 12 : byte(in) % 12;
    m.h.id = m.h.kind == CULE_EVENT ? 0 : byte(in) | 1;
    unsigned pick = byte(in);
    if (pick < 200) {
        m.len = (size_t)snprintf(text, sizeof text, "%s", texts[pick % (sizeof texts / sizeof texts[0])]);
    } else {
        m.len = CULE_MIN((size_t)pick - 200, in->n);
        memcpy(text, in->p, m.len);
        in->p += m.len;
        in->n -= m.len;
    }
    m.body = (const uint8_t *)text;
    m.h.arg0 = byte(in);
    m.h.arg0 = m.h.arg0 > 250 ? UINT64_MAX - m.h.arg0 : m.h.arg0 % 8;
    m.h.arg1 = byte(in) % 8;
    m.h.cap = byte(in) < 250 ? 0 : cule_cap_make(byte(in) % 4, 1, 3);
    m.h.flags |= m.h.cap && how & 1 ? CULE_DELEGATE : 0;
    m.h.length = (uint32_t)m.len;
    cule_bus_message(F.bus, p->client, &m, F.now);
}

static void answer(struct input *in, struct peer *p)
{
    struct cule_msg m = {0};
    static const int kinds[] = {CULE_REPLY, CULE_ERROR_FRAME, CULE_DATA, CULE_REPLY};
    unsigned how = byte(in);
    cule_frame_init(&m.h, (enum cule_kind)kinds[how & 3]);
    m.h.flags = how & 4 ? CULE_OPEN : 0;
    m.body = (const uint8_t *)"answer";
    m.len = how & 8 ? 6 : 0;
    m.h.arg0 = 27;
    cule_bus_answer(F.bus, p->route[byte(in) % 8], &m, F.now);
}

static void step(struct input *in)
{
    unsigned what = byte(in);
    struct peer *p = &peers[what >> 4 & 3];
    if (!p->client) {
        peer_init(p, 1000);
        return;
    }
    if (p->n > 2000) {
        p->n = 0;
    }
    switch (what & 15) {
    case 0: peer_credit(p, byte(in) % 4); break;
    case 1: peer_credit(p, -1); break;
    case 2: p->stream_credit = (int)(byte(in) % 3) - 1; break;
    case 3: F.now += byte(in) * ms, cule_bus_tick(F.bus, F.now); break;
    case 4: F.store_fails = byte(in) & 1; break;
    case 5: F.store_full = byte(in) & 1; break;
    case 6: store_run(); break;
    case 7: answer(in, p); break;
    case 8: peer_gone(p); break;
    case 9: cule_bus_writable(F.bus, p->client, byte(in), F.now); break;
    case 10: cule_bus_stored(F.bus, 0, byte(in) & 1 ? CULE_EDISK : 0, "probe", F.now); break;
    default: message(in, p); break;
    }
    cule_bus_flush(F.bus, F.now);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    struct cule_bus_config c = world_config();
    c.limits.topics = 8;
    c.limits.memory = 64 * 1024;
    c.limits.queue_messages = 3;
    c.limits.requests = 4;
    unsigned flags = byte(&in);
    world_begin(&c, flags & 1);
    cule_bus_set_topic(F.bus, "a/#:history=2", NULL);
    if (flags & 1) {
        cule_bus_set_topic(F.bus, "d/#:durability=disk", NULL);
    }
    if (flags & 2) {
        cule_bus_set_topic(F.bus, "a/b:overflow=block,limit=1", NULL);
    }
    for (int i = 0; i < STEPS_MAX && in.n; i++) {
        step(&in);
    }
    for (int i = 0; i < PEERS; i++) {
        peer_gone(&peers[i]);
    }
    struct cule_bus_stats s = stats();
    if (s.subscriptions || s.routes || s.clients || s.inflight_now || s.parked_now) {
        abort();
    }
    world_end();
    return 0;
}
