/* A file's bytes, for the programs that test the engine; they end with exit code 2 if it cannot be read. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static uint8_t *read_all(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END)) exit(2);
    *bytes = (size_t)ftell(file);
    rewind(file);
    uint8_t *data = malloc(*bytes);
    if (data == NULL || fread(data, 1, *bytes, file) != *bytes) exit(2);
    fclose(file);
    return data;
}
