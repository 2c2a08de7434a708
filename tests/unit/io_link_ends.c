/* How links and listeners come to their end: closing, aborting, freeing, from wherever, and running out of things. */
#include "link_end.h"

static struct server server;

static const char *const kinds[] = {"unix", "tcp", "ring"};

/* What was sent before the close arrives, on every carrier, also from a link that is still connecting. */
static void close_drains(void **state)
{
    (void)state;
    for (size_t k = 0; k < CULE_COUNT(kinds); k++) {
        for (int early = 0; early < 2; early++) {
            struct end c = {0};
            uint64_t sent = 0;
            open_end(&c, serve(&server, fresh(kinds[k]), NULL), NULL);
            if (!early) {
                UNTIL(c.ready);
            }
            while (sent < 900 && send_event(&c, sent + 1, big, 900) == 0) {
                sent++;
            }
            assert_int_equal(sent, 900);
            cule_link_close(c.l);
            assert_int_equal(send_event(&c, sent + 1, NULL, 0), CULE_ECLOSED);
            assert_false(c.closed); /* never inside */
            UNTIL(c.closed && server.count && server.end[0].closed);
            assert_int_equal(c.why.code, 0);
            assert_int_equal(server.end[0].why.code, 0);
            assert_int_equal(server.end[0].events, 900);
            end_server(&server);
        }
    }
}

/* A side that goes while the other is still sending to it: what it said before is not lost for that. */
static void last_words_are_heard(void **state)
{
    (void)state;
    for (size_t k = 0; k < CULE_COUNT(kinds); k++) {
        struct end c = {0};
        open_end(&c, serve(&server, fresh(kinds[k]), NULL), NULL);
        UNTIL(c.ready && server.end[0].ready);
        server.end[0].silent = true;
        call_n(&c, NULL, 0, 0);
        UNTIL(server.end[0].last_id == 1);
        /* The server answers, and closes with things unread; we write before we read. */
        for (uint64_t i = 1; i <= 300; i++) {
            assert_int_equal(send_event(&server.end[0], i, big, 500), 0);
        }
        enough(cule_link_reply(server.end[0].l, 1, 0, 0, big, 7));
        cule_link_pause(c.l, true);
        cule_link_pause(server.end[0].l, true);
        send_event(&c, 1, big, 1000);
        cule_link_flush(c.l);
        cule_link_close(server.end[0].l);
        if (strcmp(kinds[k], "tcp") != 0) { /* there it waits for us */
            UNTIL(server.end[0].closed);
        } else {
            cule_loop_turn(loop, 10);
        }
        for (uint64_t i = 2; i < 20; i++) {
            send_event(&c, i, big, 1000);
            cule_link_flush(c.l);
            cule_loop_turn(loop, 0);
        }
        if (c.l) {
            cule_link_pause(c.l, false);
        }
        UNTIL(c.closed && server.end[0].closed);
        assert_int_equal(c.events, 300);
        assert_string_equal(c.notes, "reply 1 7; ");
        assert_int_equal(c.why.code, 0);
        end_server(&server);
    }
}

/* Open calls end with the link, each once, before `closed`; those that their callback asks anew fail at once. */
static void calls_end_with_the_link(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) {
        struct end c = {0};
        server.silent = true;
        open_end(&c, serve(&server, fresh("unix"), NULL), NULL);
        call_n(&c, NULL, 0, 0);
        call_n(&c, NULL, 0, 60000);
        UNTIL(server.end[0].last_id == 3);
        if (how == 0) {
            cule_link_close(c.l);
        } else if (how == 1) {
            cule_link_abort(server.end[0].l, NULL);
        } else {
            cule_link_free(server.end[0].l); /* no goodbye */
            server.end[0].closed = true;
        }
        assert_string_equal(c.notes, "");
        UNTIL(c.closed && server.end[0].closed);
        assert_string_equal(c.notes, "error 1 closed; error 3 closed; ");
        assert_int_equal(server.end[0].cancels, how < 2 ? 2 : 0);
        end_server(&server);
    }
    /* Freed from outside: nobody hears anything. */
    struct end c = {0};
    open_end(&c, serve(&server, fresh("unix"), NULL), NULL);
    call_n(&c, NULL, 0, 10);
    UNTIL(c.ready);
    cule_link_free(c.l);
    cule_loop_turn(loop, 30);
    assert_false(c.closed);
    end_server(&server);
}

/* abort and close from inside each kind of callback. */
static void ending_inside_callbacks(void **state)
{
    (void)state;
    static const char *const how[] = {"abort", "close"};
    for (size_t i = 0; i < 8; i++) {
        struct end c = {0};
        const char *what = how[i % 2];
        struct end *e = &c;
        open_end(&c, serve(&server, fresh(kinds[i % 3]), NULL), NULL);
        switch (i / 2) {
        case 0: c.on_next = what; break; /* ready */
        case 1:                          /* an answer */
            UNTIL(c.ready);
            c.on_next = what;
            call_n(&c, NULL, 0, 0);
            break;
        case 2: /* a message, on the other side */
            UNTIL(c.ready && server.end[0].ready);
            e = &server.end[0];
            e->on_next = what;
            send_event(&c, 1, NULL, 0);
            send_event(&c, 2, NULL, 0);
            break;
        default: /* a deadline */
            UNTIL(c.ready);
            UNTIL(server.count == 1);
            server.end[0].silent = true;
            c.on_next = what;
            call_n(&c, NULL, 0, 10);
        }
        UNTIL(c.closed && server.end[0].closed);
        assert_int_equal(e->why.code, i % 2 ? 0 : CULE_EREFUSED);
        if (i % 2 == 0) { /* the other was told why */
            const struct end *other = e == &c ? &server.end[0] : &c;
            assert_int_equal(other->why.code, CULE_EREFUSED);
            assert_non_null(strstr(other->why.text, "told to"));
        }
        end_server(&server);
    }
}

static void abort_in_writable(void **state)
{
    (void)state;
    struct end c = {0};
    struct cule_link_opts o = {.name = "server", .ops = &ops, .window_frames = 2};
    open_end(&c, serve(&server, fresh("unix"), &o), NULL);
    UNTIL(c.ready);
    cule_loop_turn(loop, 10); /* the grants are there */
    c.on_next = "abort";
    uint64_t i = 1;
    while (send_event(&c, i, NULL, 0) == 0) {
        i++;
    }
    assert_int_equal(i, 3);
    UNTIL(c.closed);
    end_server(&server);
}

/* --- connecting --- */

static void nobody_there(void **state)
{
    (void)state;
    struct end c = {0};
    struct cule_err err = {0};
    struct cule_link_opts o = opts_of(&c);
    char endpoint[256];
    int before = count_fds();
    snprintf(endpoint, sizeof endpoint, "unix:%s/none", dir);
    int rc = cule_link_open(loop, endpoint, &o, &c.l, &err);
    enough(rc);
    assert_int_equal(rc, CULE_ENO_RESPONDER);
    /* A port that was free a moment ago. */
    snprintf(endpoint, sizeof endpoint, "%s", serve(&server, "tcp:127.0.0.1:0", NULL));
    end_server(&server);
    rc = cule_link_open(loop, endpoint, &o, &c.l, &err);
    enough(rc);
    if (rc == 0) {
        call_n(&c, NULL, 0, 0);
        UNTIL(c.closed);
        rc = c.why.code;
        assert_string_equal(c.notes, "error 1 no_responder; ");
    }
    assert_int_equal(rc, CULE_ENO_RESPONDER);
    assert_int_equal(cule_link_open(loop, "quic:a:1", &o, &c.l, &err), CULE_EUNSUPPORTED);
    assert_int_equal(cule_link_open(loop, "what", &o, &c.l, &err), CULE_EUSAGE);
    assert_int_equal(cule_link_open(loop, "fd:999", &o, &c.l, &err), CULE_EUSAGE);
    UNTIL(count_fds() == before);
}

/* A server that accepts and says nothing: the listening socket's backlog does that. */
static void no_answer_to_a_connect(void **state)
{
    (void)state;
    struct cule_endpoint ep;
    struct cule_err err;
    struct cule_listen_opts lo = {0};
    int before = count_fds();
    for (size_t k = 0; k < CULE_COUNT(kinds); k++) {
        struct end c = {0};
        struct cule_link_opts o = opts_of(&c);
        char bound[256];
        int fd;
        o.connect_timeout_ms = 60;
        assert_int_equal(cule_endpoint_parse(&ep, fresh(kinds[k]), &err), 0);
        int rc = cule_endpoint_listen(&ep, &lo, &fd, &err);
        enough(rc);
        assert_int_equal(rc, 0);
        cule_endpoint_bound(&ep, fd, bound, sizeof bound);
        open_end(&c, bound, &o);
        UNTIL(c.closed);
        assert_int_equal(c.why.code, CULE_ETIMEOUT);
        /* and without a loop */
        rc = cule_link_open(NULL, bound, &o, &c.l, &err);
        enough(rc);
        assert_int_equal(rc, CULE_ETIMEOUT);
        /* closed while nothing has come of it, and freed */
        open_end(&c, bound, NULL);
        c.closed = false;
        cule_link_close(c.l);
        UNTIL(c.closed);
        assert_int_equal(c.why.code, 0);
        open_end(&c, bound, NULL);
        cule_loop_turn(loop, 0);
        cule_link_free(c.l);
        cule_endpoint_unlisten(&ep, fd);
        close(fd);
    }
    UNTIL(count_fds() == before);
}

/* Descriptors stay the caller's when a link cannot be made of them. */
static void descriptors_of_failures(void **state)
{
    (void)state;
    struct end c = {0};
    struct cule_err err;
    struct cule_link_opts o = opts_of(&c);
    int sv[2];
    pair(sv);
    o.connect_timeout_ms = 20;
    int rc = cule_link_open_fd(NULL, sv[0], sv[0], &o, &c.l, &err); /* no HELLO in time */
    enough(rc);
    assert_int_equal(rc, CULE_ETIMEOUT);
    assert_int_equal(close(sv[0]), 0);
    close(sv[1]);
    int d = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    rc = cule_link_open_fd(loop, d, -1, &o, &c.l, &err);
    enough(rc);
    assert_int_equal(rc, CULE_EUSAGE);
    assert_int_equal(close(d), 0);
}

/* --- listeners --- */

static void listeners(void **state)
{
    (void)state;
    struct end c = {0};
    char endpoint[128];
    struct stat st;
    snprintf(endpoint, sizeof endpoint, "%s", serve(&server, fresh("unix"), NULL));
    server.in_accept = "abort";
    open_end(&c, endpoint, NULL);
    UNTIL(c.closed);
    UNTIL(server.end[0].closed);
    memset(&c, 0, sizeof c);
    server.in_accept = "free";
    open_end(&c, endpoint, NULL);
    call_n(&c, "x", 1, 0);
    UNTIL(strcmp(c.notes, "reply 1 1; ") == 0); /* links stay */
    assert_null(server.listener);
    assert_int_equal(stat(endpoint + 5, &st), -1);
    cule_link_free(c.l);
    UNTIL(server.end[1].closed);
    end_server(&server);
}

/* Out of descriptors, the listener waits until there are some, and does not spin. */
static void out_of_descriptors(void **state)
{
    (void)state;
    enum { N = 6 };
    int raw[N];
    int spare[64];
    int nspare = 0;
    struct rlimit was;
    struct rlimit low;
    struct cule_endpoint ep;
    struct cule_err err;
    const char *endpoint = serve(&server, fresh("unix"), NULL);
    assert_int_equal(cule_endpoint_parse(&ep, endpoint, &err), 0);
    for (int i = 0; i < N; i++) {
        assert_int_equal(cule_endpoint_connect_wait(&ep, 0, &raw[i], &err), 0);
    }
    getrlimit(RLIMIT_NOFILE, &was);
    low = was;
    low.rlim_cur = 64;
    setrlimit(RLIMIT_NOFILE, &low);
    while ((spare[nspare] = dup(0)) >= 0) {
        nspare++;
    }
    close(spare[--nspare]); /* one link may come */
    UNTIL(cule_listener_paused_count(server.listener) >= 2);
    assert_int_equal(server.count, 1);
    while (nspare > 0) {
        close(spare[--nspare]);
    }
    UNTIL(server.count == N);
    setrlimit(RLIMIT_NOFILE, &was);
    assert_true(cule_listener_paused_count(server.listener) < 100);
    for (int i = 0; i < N; i++) {
        close(raw[i]);
    }
    UNTIL(server.end[N - 1].closed);
    end_server(&server);
}

/* Two links in one turn, one of which ends the other. */
static struct end *victim;

static void free_victim(struct cule_link *l, void *ctx, struct cule_msg *m)
{
    on_message(l, ctx, m);
    if (victim && victim->l && victim != ctx) {
        cule_link_free(victim->l);
        victim->l = NULL;
        victim = NULL;
    }
}

static void freed_by_another(void **state)
{
    (void)state;
    static const struct cule_link_ops freeing = {free_victim, on_ready, on_writable, on_skipped, on_closed};
    for (int order = 0; order < 2; order++) {
        struct end e[2] = {{0}, {0}};
        int other[2];
        for (int i = 0; i < 2; i++) {
            int sv[2];
            pair(sv);
            open_fd(&e[i], sv[0], sv[0], NULL);
            cule_link_set_ctx(e[i].l, &freeing, &e[i]);
            other[i] = sv[1];
            say(sv[1], CULE_HELLO, 0, 0);
        }
        UNTIL(e[0].ready && e[1].ready);
        victim = &e[order];
        for (int i = 0; i < 2; i++) {
            say(other[i], CULE_EVENT, 0, 0);
            say(other[i], CULE_EVENT, 0, 0);
        }
        UNTIL(victim == NULL);
        cule_loop_turn(loop, 5);
        cule_link_free(e[1 - order].l);
        close(other[0]);
        close(other[1]);
    }
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]); /* one test alone */
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(close_drains),
        cmocka_unit_test(last_words_are_heard),
        cmocka_unit_test(calls_end_with_the_link),
        cmocka_unit_test(ending_inside_callbacks),
        cmocka_unit_test(abort_in_writable),
        cmocka_unit_test(nobody_there),
        cmocka_unit_test(no_answer_to_a_connect),
        cmocka_unit_test(descriptors_of_failures),
        cmocka_unit_test(listeners),
        cmocka_unit_test(out_of_descriptors),
        cmocka_unit_test(freed_by_another),
    };
    return cmocka_run_group_tests(tests, begin_group, end_group);
}
