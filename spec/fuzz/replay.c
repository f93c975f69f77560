/* SPDX-License-Identifier: MIT
 *
 * replay.c - main for a fuzz target without libFuzzer: runs every file of the folders named (none: of its corpus),
 * each as one input. A target that finds something aborts, and what was shown last names the file.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#ifndef CORPUS
#define CORPUS "."
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path)
{
    static uint8_t data[1 << 20];
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        exit(1);
    }
    size_t size = fread(data, 1, sizeof data, file);
    fclose(file);
    uint8_t *exact = malloc(size + !size); /* so that a sanitizer sees a read beyond the end */
    for (size_t i = 0; i < size; i++)
        exact[i] = data[i];
    fprintf(stderr, "%s\r", path);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    return 1;
}

static int replay_folder(const char *path)
{
    char name[4096];
    int count = 0;
    DIR *folder = opendir(path);
    if (folder == NULL)
        return replay_file(path);
    for (struct dirent *entry; (entry = readdir(folder));)
        if (entry->d_name[0] != '.') {
            snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
            count += replay_file(name);
        }
    closedir(folder);
    return count;
}

int main(int argc, char **argv)
{
    int count = argc > 1 ? 0 : replay_folder(CORPUS);
    for (int i = 1; i < argc; i++)
        count += replay_folder(argv[i]);
    printf("\n%d inputs\n%d passed, %d failed\n", count, count > 0, count == 0);
    return count == 0;
}
