/* cule-ipc top: what a bus does now, redrawn every second; once where standard output is no terminal. */
#include "buslist.h"
#include "busrun.h"
#include "cli/screen.h"
#include "cli/tty.h"
#include "common.h"

#include <poll.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

struct top_opts {
    BUS_OPTION_FIELDS
    uint64_t interval_ms, count;
    int sort;
};

static const char *const sort_keys[] = {"rate_hz", "seq", "dropped", "subscribers"};

struct top {
    struct busrun run;
    const struct top_opts *o;
    struct cule_screen screen;
    struct cule_timer *timer;
    struct cule_watch *keys;
    struct termios before;
    uint64_t drawn, limit; /* pictures; 0: no limit */
    bool raw, asked;
};

static void stop(void *ctx)
{
    struct top *t = ctx;
    busclient_close(t->run.client);
}

static void draw(struct top *t, const struct cule_json *doc)
{
    FILE *f = cule_screen_begin(&t->screen);
    if (!f) {
        return;
    }
    size_t clients = 0, topics = 0;
    double rate = 0;
    int list = cule_json_find(doc, 0, "topics");
    for (int i = cule_json_first(doc, list); i >= 0; i = cule_json_next(doc, i)) {
        rate += busask_real(doc, i, "rate_hz");
        topics++;
    }
    list = cule_json_find(doc, 0, "clients");
    for (int i = cule_json_first(doc, list); i >= 0; i = cule_json_next(doc, i)) {
        clients++;
    }
    fprintf(f, "%s: %zu clients, %zu topics, %.1f messages/s%s\n\n", t->run.where.endpoint, clients, topics, rate,
            t->screen.live ? "  (q quits)" : "");
    buslist_table(doc, "topics", sort_keys[t->o->sort], f, STDOUT_FILENO);
    fputc('\n', f);
    buslist_table(doc, "clients", "queued", f, STDOUT_FILENO);
    int rc = cule_screen_end(&t->screen);
    if (rc) {
        busrun_done(&t->run, 0); /* nobody looks any more */
    }
}

static void on_list(struct cule_link *l, void *arg, struct cule_msg *answer)
{
    (void)l;
    struct top *t = arg;
    struct cule_err err = {0};
    struct cule_json doc;
    t->asked = false;
    int rc = cule_msg_error(answer, &err);
    if (t->run.over || rc == CULE_ECLOSED || rc == CULE_EPEER_RESTARTED || rc == CULE_ECANCELLED) {
        return;
    }
    cule_json_init(&doc);
    if (rc == 0) {
        rc = cule_json_parse(&doc, (const char *)answer->body, answer->len, &err);
    }
    if (rc) {
        cule_err_context(&err, rc, "cannot list what is on the bus");
        busrun_fail(&t->run, &err);
    } else if (t->run.cli->json) {
        if (ipc_write_all(STDOUT_FILENO, answer->body, answer->len, NULL) ||
            ipc_write_all(STDOUT_FILENO, "\n", 1, NULL)) {
            busrun_done(&t->run, 0);
        }
    } else {
        draw(t, &doc);
    }
    cule_json_release(&doc);
    if (rc == 0 && ++t->drawn == t->limit) {
        stop(t);
    }
}

static void ask(void *ctx)
{
    struct top *t = ctx;
    if (!busclient_is_up(t->run.client) || t->asked) {
        return;
    }
    static const char all[] = "{\"what\":\"all\"}";
    struct cule_msg m = cule_msg_make(CULE_REQUEST, CULE_S_BUS, CULE_OP_BUS_LIST);
    m.h.priority = CULE_HIGH; /* a busy bus is when one looks */
    m.body = (const uint8_t *)all;
    m.len = sizeof all - 1;
    t->asked = cule_link_call(busclient_link(t->run.client), &m, t->run.cli->timeout_ms, on_list, t, NULL) == 0;
}

static void on_key(void *ctx, int events)
{
    struct top *t = ctx;
    char c;
    if ((events & (POLLERR | POLLHUP)) || read(STDIN_FILENO, &c, 1) != 1 || c == 'q' || c == 'Q' || c == 4) {
        cule_watch_set(t->keys, 0);
        stop(t);
    } else {
        ask(t);
    }
}

static void on_down(void *ctx, const struct cule_err *why)
{
    struct top *t = ctx;
    FILE *f = t->screen.live ? cule_screen_begin(&t->screen) : NULL;
    t->asked = false;
    if (f) {
        fprintf(f, "%s; trying again  (q quits)\n", why->text);
        cule_screen_end(&t->screen);
    } else {
        busrun_down(&t->run, why);
    }
}

static void on_over(void *ctx, const struct cule_err *why)
{
    struct top *t = ctx;
    if (why->code) {
        busrun_fail(&t->run, why);
    } else {
        busrun_done(&t->run, 0);
    }
}

static const struct busclient_ops ops = {.up = ask, .down = on_down, .over = on_over};

static int keys(struct top *t)
{
    if (!t->screen.live || !isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &t->before) != 0) {
        return 0;
    }
    struct termios raw = t->before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    t->raw = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
    return cule_watch_new(t->run.loop, &t->keys, STDIN_FILENO, POLLIN, on_key, t, &t->run.err);
}

static int top_run(struct cule_cli *cli)
{
    struct top t = {.o = cli->opts};
    struct busclient_opts c = {.name = "cule-ipc top", .ops = &ops, .ctx = &t, .connect_timeout_ms = cli->timeout_ms};
    bool tty = cule_tty_is(STDOUT_FILENO);
    t.limit = t.o->count ? t.o->count : tty && !cli->json ? 0 : 1;
    c.reconnect = t.limit != 1;
    if (busrun_begin(&t.run, cli, &t.o->at, stop, &t) == 0 && busrun_client(&t.run, &c) == 0 &&
        cule_timer_new(t.run.loop, &t.timer, ask, &t, &t.run.err) == 0) {
        if (!cli->json) {
            cule_screen_open(&t.screen, STDOUT_FILENO);
        }
        cule_timer_start(t.timer, t.o->interval_ms, t.o->interval_ms ? t.o->interval_ms : 1000);
        if (keys(&t) == 0) {
            busrun_run(&t.run);
        }
        cule_screen_close(&t.screen);
        if (t.raw) {
            tcsetattr(STDIN_FILENO, TCSANOW, &t.before);
        }
    }
    return busrun_end(&t.run);
}

const struct cule_command cule_ipc_top = {
    .name = "top",
    .group = "bus",
    .summary = "watch topics and clients of a bus",
    .opts_size = sizeof(struct top_opts),
    .options =
        (const struct cule_opt[]){BUS_OPTION_ROWS(struct top_opts),
                                  CULE_OPT_DURATION(struct top_opts, interval_ms, 'i', "interval", "T",
                                                    "time between two pictures", .def = "1s"),
                                  CULE_OPT_U64(struct top_opts, count, 'n', "count", "N",
                                               "end after N pictures (0: on a terminal never, else 1)", .def = "0"),
                                  CULE_OPT_CHOICE(struct top_opts, sort, 's', "sort", "BY",
                                                  "rate|seq|dropped|subscribers", "which topics come first",
                                                  .def = "rate"),
                                  CULE_OPT_END},
    .timeout = "5s",
    .flags = CULE_CMD_JSON,
    .run = top_run,
};
