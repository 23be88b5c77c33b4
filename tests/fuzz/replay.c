/* replay.c - runs a fuzz target over a corpus, and over mutations of it from a fixed seed. */
#include "fuzz/fuzz.h"

#include <dirent.h>
#include <sys/stat.h>

#define INPUT_MAX 65536
#define MUTATIONS 300 /* per input */

static unsigned seed = 1, runs;

static unsigned next_random(void)
{
    seed = seed * 1103515245u + 12345u;
    return seed >> 8;
}

static void mutate(const uint8_t *data, size_t size)
{
    static uint8_t copy[INPUT_MAX + 64];

    for (int i = 0; i < MUTATIONS; i++) {
        size_t n = size;
        memcpy(copy, data, size);
        for (unsigned edits = 1 + next_random() % 4; edits > 0 && n > 1; edits--) {
            const size_t at = next_random() % n;
            switch (next_random() % 4) {
            case 0:
                copy[at] = (uint8_t)next_random();
                break;
            case 1:
                copy[at] = (uint8_t) "\r\n$*-+:0129 \"'\\"[next_random() % 15];
                break;
            case 2:
                memmove(copy + at, copy + at + 1, n - at - 1);
                n--;
                break;
            default:
                memmove(copy + at + 1, copy + at, n - at);
                n++;
                break;
            }
        }
        (void)LLVMFuzzerTestOneInput(copy, n);
        runs++;
    }
}

static void run_file(const char *path)
{
    static uint8_t data[INPUT_MAX];
    FILE *f = fopen(path, "rb");

    if (f == NULL) {
        perror(path);
        exit(1);
    }
    const size_t size = fread(data, 1, sizeof(data), f);
    (void)fclose(f);
    (void)LLVMFuzzerTestOneInput(data, size);
    runs++;
    mutate(data, size);
}

static void run_folder(const char *folder)
{
    char path[4096];
    DIR *d = opendir(folder);

    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;)
        if (e->d_name[0] != '.') {
            (void)snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
            run_file(path);
        }
    if (d != NULL)
        (void)closedir(d);
}

int main(int argc, char **argv)
{
    struct stat st;

    for (int i = 1; i < argc; i++) {
        if (stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode))
            run_folder(argv[i]);
        else
            run_file(argv[i]);
    }
    (void)printf("%u inputs\n", runs);
    return runs > 0 ? 0 : 1;
}
