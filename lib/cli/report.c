/* Errors, warnings and notes on stderr. */
#include "cli/report.h"

#include "base/utf8.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

int cule_cli_json_string(struct cule_buf *out, const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    const unsigned char *end = s + strlen(text);
    int rc = cule_buf_addc(out, '"');

    while (s < end && rc == 0) {
        uint32_t c;
        size_t n = cule_utf8_next(s, (size_t)(end - s), &c);
        if (n == 0) {
            rc = cule_buf_add(out, "\xef\xbf\xbd", 3);
            n = 1;
        } else if (*s < 0x20 || *s == 0x7f) {
            rc = cule_buf_addf(out, "\\u%04x", *s);
        } else {
            if (*s == '"' || *s == '\\') {
                rc = cule_buf_addc(out, '\\');
            }
            rc = rc ? rc : cule_buf_add(out, s, n);
        }
        s += n;
    }
    return rc ? rc : cule_buf_addc(out, '"');
}

/* One write a line, so that the lines of several processes on one stderr do not mix. */
static void write_line(struct cule_buf *line)
{
    const uint8_t *p = cule_buf_data(line);
    size_t n = cule_buf_len(line);

    while (n > 0) {
        ssize_t w = write(STDERR_FILENO, p, n);
        if (w <= 0) {
            return; /* there is nobody left to tell */
        }
        p += w;
        n -= (size_t)w;
    }
}

static int json_line(struct cule_buf *line, const struct cule_err *err)
{
    int rc = cule_buf_addf(line, "{\"error\":\"%s\",\"code\":%d,\"message\":", cule_err_name(err->code), -err->code);
    rc = rc ? rc : cule_cli_json_string(line, err->text);
    return rc ? rc : cule_buf_add(line, "}\n", 2);
}

int cule_cli_fail(const struct cule_cli *cli, const struct cule_err *err)
{
    struct cule_buf line;
    struct cule_err told = *err;

    if (told.code > 0) {
        told.code = -told.code;
    }
    if (!told.text[0]) {
        snprintf(told.text, sizeof told.text, "%s", cule_err_text(told.code));
    }
    fflush(stdout); /* what was found out before the error stands before it on a terminal */
    cule_buf_init(&line, 0);
    int rc = cli->json ? json_line(&line, &told) : cule_buf_addf(&line, "%s: %s\n", cli->program->name, told.text);
    if (rc == 0) {
        write_line(&line);
    } else {
        fprintf(stderr, "%s: %s\n", cli->program->name, told.text);
    }
    cule_buf_release(&line);
    return cule_err_exit(told.code);
}

int cule_cli_failf(const struct cule_cli *cli, int code, const char *fmt, ...)
{
    struct cule_err err = {.code = code};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err.text, sizeof err.text, fmt, ap);
    va_end(ap);
    return cule_cli_fail(cli, &err);
}

static void say(const struct cule_cli *cli, const char *prefix, const char *fmt, va_list ap)
{
    char text[1024];
    struct cule_buf line;

    vsnprintf(text, sizeof text, fmt, ap);
    fflush(stdout);
    cule_buf_init(&line, 0);
    if (cule_buf_addf(&line, "%s: %s%s\n", cli->program->name, prefix, text) == 0) {
        write_line(&line);
    }
    cule_buf_release(&line);
}

void cule_cli_warn(const struct cule_cli *cli, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say(cli, "warning: ", fmt, ap);
    va_end(ap);
}

void cule_cli_note(const struct cule_cli *cli, unsigned level, const char *fmt, ...)
{
    va_list ap;
    if (cli->verbose < level) {
        return;
    }
    va_start(ap, fmt);
    say(cli, "", fmt, ap);
    va_end(ap);
}
