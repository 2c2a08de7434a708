/* Feeds every file of the directories given to a fuzz target once: the committed corpus as a test, without libFuzzer.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int feed(const char *path)
{
    int rc = -1;
    uint8_t *data = NULL;
    struct stat st;
    FILE *f = fopen(path, "rb");

    if (!f || fstat(fileno(f), &st) < 0) {
        perror(path);
        goto out;
    }
    /* The exact size, so that a sanitizer sees a read past the end. */
    data = malloc(st.st_size ? (size_t)st.st_size : 1);
    if (!data || fread(data, 1, (size_t)st.st_size, f) != (size_t)st.st_size) {
        perror(path);
        goto out;
    }
    LLVMFuzzerTestOneInput(data, (size_t)st.st_size);
    rc = 0;
out:
    free(data);
    if (f) {
        fclose(f);
    }
    return rc;
}

int main(int argc, char **argv)
{
    size_t fed = 0;

    for (int i = 1; i < argc; i++) {
        DIR *d = opendir(argv[i]);
        if (!d) {
            perror(argv[i]);
            return 1;
        }
        for (struct dirent *e = readdir(d); e; e = readdir(d)) {
            char path[4096];
            snprintf(path, sizeof path, "%s/%s", argv[i], e->d_name);
            if (e->d_name[0] != '.' && feed(path) < 0) {
                closedir(d);
                return 1;
            }
            fed += e->d_name[0] != '.';
        }
        closedir(d);
    }
    printf("# %zu inputs\n", fed);
    return fed > 0 ? 0 : 1;
}
