/* fuzz_config.c - configurations from arbitrary bytes: valid, or an error with its place. */
#include "config/config.h"
#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mr_config *config = NULL;
    struct mr_error err = {0};

    /* names would need a resolver */
    if (size > 4096 || memmem(data, size, "listen", 6) != NULL)
        return 0;
    if (mr_config_parse(&config, "f", (struct mr_slice){(const char *)data, size}, 100, NULL,
                        &err) == MR_OK)
        mr_config_free(config);
    else
        FUZZ_CHECK(strncmp(err.text, "f:", 2) == 0);
    return 0;
}
